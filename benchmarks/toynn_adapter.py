"""The program that trains an adapter with toynn, and the files of its base."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from benchmarks.shapes import ADAM_EPS, ADAPTER_SHAPES, BETA1, BETA2, LR, RMS_EPS, Shape
from toynn import AdamW, LlamaSeqEngine, RecipeOptions
from toynn.interop import GgufBase, export_gguf, export_hf, export_peft, import_gguf
from toynn.interop.gguf_types import GGUF_DTYPES, stored_values
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.model.shape import ModelShape
from toynn.model.weights import weights_of

QUANTIZED, IN_F32, HF, PEFT = "base.gguf", "base-f32.gguf", "hf", "peft"
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
_ROWS = 4096  # number of different rows of random numbers; larger matrices repeat these rows


def spec_of(shape: Shape) -> AdapterSpec:
    return AdapterSpec(shape.adapter_rank, 2.0 * shape.adapter_rank, use_rslora=False, targets=PROJECTIONS)


def write_base(shape: Shape, folder: Path) -> None:
    """Write the base as a GGUF file. Each row of its matrices is one of a limited number of random rows."""
    model, kind = _model_shape(shape), GGUF_DTYPES[shape.base_type].kind
    draw, pools = np.random.default_rng(0), {}
    writer = GGUFWriter(folder / QUANTIZED, model.architecture)
    writer.add_block_count(model.n_layers)
    writer.add_context_length(model.ctx)
    writer.add_embedding_length(model.d_model)
    writer.add_feed_forward_length(model.d_ff)
    writer.add_head_count(model.n_heads)
    writer.add_head_count_kv(model.n_kv)
    writer.add_layer_norm_rms_eps(model.rms_eps)
    writer.add_rope_freq_base(model.rope_base)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_vocab_size(model.vocab)
    writer.add_tokenizer_model("no_vocab")
    for weight in weights_of(model):
        if len(weight.size) == 1:
            writer.add_tensor(weight.name, np.ones(weight.size, np.float32))
            continue
        rows, cols = weight.size
        if cols not in pools:
            values = draw.standard_normal((_ROWS, cols), dtype=np.float32) * np.float32(0.02)
            pools[cols] = stored_values(weight.name, values, kind)
        writer.add_tensor(weight.name, pools[cols][draw.integers(0, _ROWS, rows)], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_for_peft(shape: Shape, folder: Path) -> None:
    """Write the base in f32, as a GGUF file and as a folder for transformers. Write the initial adapter for PEFT."""
    model = import_gguf(folder / QUANTIZED)
    export_gguf(model, folder / IN_F32)
    export_hf(model, folder / HF)
    spec = spec_of(shape)
    export_peft(TrainedAdapter(spec, model.shape, spec.initial(model.shape, 0)), folder / PEFT)


def _model_shape(shape: Shape) -> ModelShape:
    return ModelShape(
        vocab=shape.vocab, d_model=shape.d_model, n_heads=shape.n_heads, n_kv=shape.n_kv, d_ff=shape.d_ff,
        n_layers=shape.n_layers, ctx=shape.t_seq, rope_base=shape.rope_base, rms_eps=RMS_EPS, untied=shape.untied,
    )  # fmt: skip


class AdapterTraining:
    """An adapter on a mapped base. Each step trains on the next batch."""

    def __init__(
        self, shape: Shape, threads: int, folder: Path, *, in_f32: bool, recompute: bool, precision: str
    ) -> None:
        self._batches = []
        for ids, targets in shape.batches():
            wanted = np.array(targets)
            wanted[shape.t_seq - 1 :: shape.t_seq] = -100  # as in transformers, the last token has no target
            self._batches.append((np.array(ids), wanted))
        self._adamw = AdamW(lr=LR, beta1=BETA1, beta2=BETA2, eps=ADAM_EPS, bias_correct=True)
        self._engine, self._n = LlamaSeqEngine(), 0
        spec = spec_of(shape)
        options = RecipeOptions(
            t_seq=shape.t_seq, t_batch=shape.t_batch, n_threads=threads, layout="fused", precision=precision
        )
        with GgufBase(folder / (IN_F32 if in_f32 else QUANTIZED)) as base:
            self._engine.realize_with_adapter(base, spec, options, spec.initial(base.shape, 0))
        self._engine.build_training_step(recompute=recompute)

    def step(self) -> float:
        ids, targets = self._batches[self._n % len(self._batches)]
        self._n += 1
        return self._engine.train_step(ids, targets, self._adamw.hp(self._n), reset_moments=self._n == 1)[0]

    def restart(self, folder: Path) -> None:
        raise NotImplementedError(f"adapters are compared from their start, not from the weights in {folder.name}")


if __name__ == "__main__":
    write_base(ADAPTER_SHAPES[sys.argv[1]], Path(sys.argv[2]))
    if sys.argv[3:] == ["--peft"]:
        write_for_peft(ADAPTER_SHAPES[sys.argv[1]], Path(sys.argv[2]))
