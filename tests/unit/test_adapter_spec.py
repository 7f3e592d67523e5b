"""AdapterSpec and TrainedAdapter: the accepted values, and the errors for wrong values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.llm.adapters.spec import AdapterSpec, target_keys
from toynn.llm.adapters.trained_adapter import BaseModel, TrainedAdapter
from toynn.model.shape import ModelShape

pytestmark = pytest.mark.quick

SHAPE = ModelShape(
    vocab=50, d_model=16, n_heads=4, n_kv=2, d_ff=24, n_layers=2, ctx=8, rope_base=1e4, rms_eps=1e-5, untied=True
)
SPEC = AdapterSpec(rank=4, alpha=8.0, use_rslora=False, targets=("q", "down"))


def tensors(spec: AdapterSpec = SPEC) -> dict[str, np.ndarray]:
    return {weight.name: np.zeros(weight.size, np.float32) for weight in spec.weights(SHAPE)}


def test_scale_is_that_of_peft() -> None:
    assert SPEC.scale == 2.0
    assert dataclasses.replace(SPEC, use_rslora=True).scale == 4.0


def test_targets_are_keys_or_names_of_peft_in_one_order() -> None:
    names = ("lm_head", "down_proj", "up", "k_proj", "q_proj", "v", "gate_proj", "o_proj")
    assert target_keys(names) == ("q", "k", "v", "o", "gate", "up", "down", "output")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("w1",), r"targets\[0\] must be one of q_proj, .*got 'w1'"),
        (("q", "q_proj"), "targets must name each matrix once, got 'q' twice"),
        ((), "targets must name at least one matrix"),
    ],
)
def test_wrong_targets_are_named(targets: tuple[str, ...], message: str) -> None:
    with pytest.raises(TinyNNValueError, match=message):
        dataclasses.replace(SPEC, targets=targets)


def test_matrices_have_names_and_sizes_by_target() -> None:
    sizes = {weight.name: weight.size for weight in SPEC.weights(SHAPE)}
    assert sizes == {
        "blk.0.attn_q.weight.lora_a": (4, 16),
        "blk.0.attn_q.weight.lora_b": (16, 4),
        "blk.0.ffn_down.weight.lora_a": (4, 24),
        "blk.0.ffn_down.weight.lora_b": (16, 4),
        "blk.1.attn_q.weight.lora_a": (4, 16),
        "blk.1.attn_q.weight.lora_b": (16, 4),
        "blk.1.ffn_down.weight.lora_a": (4, 24),
        "blk.1.ffn_down.weight.lora_b": (16, 4),
    }


def test_rank_larger_than_a_matrix_is_refused_by_name() -> None:
    spec = AdapterSpec(rank=9, alpha=8.0, use_rslora=False, targets=("k",))
    with pytest.raises(TinyNNValueError, match=r"rank must be at most 8 for blk.0.attn_k.weight.*got 9"):
        spec.weights(SHAPE)


def test_output_of_a_tied_model_is_refused() -> None:
    spec = dataclasses.replace(SPEC, targets=("output",))
    with pytest.raises(TinyNNValueError, match=r"targets must not contain 'output', .*no matrix 'output'; the output"):
        spec.weights(dataclasses.replace(SHAPE, untied=False))


def test_trained_adapter_checks_its_matrices() -> None:
    base = BaseModel(Path("base.gguf"), "0" * 64)
    own = tensors()
    assert TrainedAdapter(SPEC, SHAPE, dict(reversed(own.items())), base).tensors.keys() == own.keys()
    with pytest.raises(TinyNNValueError, match=r"but 'blk.1.ffn_down.weight.lora_b' is missing"):
        TrainedAdapter(SPEC, SHAPE, dict(list(own.items())[:-1]))
    name = "blk.0.attn_q.weight.lora_a"
    with pytest.raises(TinyNNValueError, match=f"{name} must have shape .* another base"):
        TrainedAdapter(SPEC, SHAPE, {**own, name: np.zeros((4, 15), np.float32)})
    with pytest.raises(TinyNNValueError, match=f"{name} must hold only finite numbers"):
        TrainedAdapter(SPEC, SHAPE, {**own, name: np.full((4, 16), np.nan, np.float32)})
    with pytest.raises(TinyNNTypeError, match=f"{name} must be an array of float32"):
        TrainedAdapter(SPEC, SHAPE, {**own, name: np.zeros((4, 16))})  # type: ignore[dict-item]
    with pytest.raises(TinyNNValueError, match="sha256"):
        BaseModel(Path("base.gguf"), "0")
