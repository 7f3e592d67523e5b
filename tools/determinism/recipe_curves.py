"""The golden curves of the recipes that start from a base or a donor, in the per_head layout."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toynn import AdamW, LlamaSeqEngine, RecipeOptions, RopeScaling, labels
from toynn.interop import GgufBase, export_gguf
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel

SHAPE = ModelShape(
    vocab=627, d_model=64, n_heads=6, n_kv=2, d_ff=96, n_layers=3, ctx=64, rope_base=10000.0, rms_eps=1e-5, head_dim=12,
    rope_scaling=RopeScaling.llama3_hf(8.0, 1.0, 4.0, 32), untied=True, qkv_bias=True,
)  # fmt: skip
T = 16
TARGET = 99
STEPS = 5


def base() -> TrainedModel:
    """Return a model of random weights. Its biases are not zero."""
    with LlamaSeqEngine() as engine:
        engine.realize(SHAPE, RecipeOptions(t_seq=T, seed=11, layout="fused"))
        weights = {name: engine.download_weight(name) for name in engine.weights}
    for name, values in weights.items():
        if name.endswith(".bias"):
            weights[name] = np.linspace(-0.5, 0.5, values.size, dtype=np.float32)
    return TrainedModel(SHAPE, weights, None)


def lora(engine: LlamaSeqEngine) -> None:
    engine.enable_lora_q(4)
    engine.enable_lora_q_adamw()
    engine.realize_for_q8_copy(base(), SHAPE, T, True, True)
    engine.upload_lora_q_init(42, 0.01)


def lora_on_file(form: str, *, copy: bool = False) -> Callable[[LlamaSeqEngine], None]:
    """Return a function that starts LoRA on a mapped or copied GGUF file with interleaved rows of q and k."""

    def realize(engine: LlamaSeqEngine) -> None:
        engine.enable_lora_q(4)
        engine.enable_lora_q_adamw()
        call = engine.realize_for_q8_copy if copy else engine.realize_for_mmap
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "base.gguf"
            export_gguf(base(), path, form)
            with GgufBase(path) as opened:
                call(opened, SHAPE, T, True, True)
        engine.upload_lora_q_init(42, 0.01)

    return realize


def full_finetune(engine: LlamaSeqEngine) -> None:
    engine.enable_full_finetune()
    engine.realize_for_full_finetune(base(), SHAPE, T, True, True)


def full_finetune_embeddings(engine: LlamaSeqEngine) -> None:
    engine.enable_full_finetune_embeddings()
    full_finetune(engine)


@dataclass(frozen=True)
class RecipeCurve:
    """A golden curve whose steps predict one token at each position. realize: makes the engine's model."""

    name: str
    realize: Callable[[LlamaSeqEngine], None]
    lr: float
    steps: int = STEPS


RECIPE_CURVES = [
    RecipeCurve("lora", lora, 0.01),
    RecipeCurve("lora_mapped_f32", lora_on_file("f32"), 0.01),
    RecipeCurve("lora_mapped_f16", lora_on_file("f16"), 0.01),
    RecipeCurve("lora_mapped_bf16", lora_on_file("bf16"), 0.01),
    RecipeCurve("lora_mapped_q8_0", lora_on_file("q8_0"), 0.01),
    RecipeCurve("lora_copied_q8_0", lora_on_file("q8_0", copy=True), 0.01),
    RecipeCurve("full_finetune", full_finetune, 0.0005),
    RecipeCurve("full_finetune_embeddings", full_finetune_embeddings, 0.0005),
]


def run(engine: LlamaSeqEngine, curve: RecipeCurve, seq_ids: list[int]) -> Iterator[float]:
    """Realize the model and yield the loss before each step."""
    curve.realize(engine)
    engine.build_training_step()
    m_labels, adamw = labels.fixed_target(SHAPE.vocab, T, TARGET), AdamW.for_lora(curve.lr)
    for step in range(curve.steps):
        yield engine.train_step(seq_ids[:T], m_labels, adamw.hp_for_step(step), reset_moments=step == 0)[0]
