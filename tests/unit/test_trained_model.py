"""TrainedModel: the weights of an engine, and errors for inconsistent fields and weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized, weights_of
from oracle.variants import Variant, each_variant
from toynn import SmolLM2Config, TinyNNTypeError, TinyNNValueError
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes

pytestmark = pytest.mark.quick


@each_variant
def test_weight_shapes_equal_those_of_an_engine_in_order(variant: Variant) -> None:
    shape = ModelShape.of(variant.cfg, untied=variant.untied, qkv_bias=variant.qkv_bias)
    with realized(shape) as engine:
        want = [(name, values.shape) for name, values in weights_of(engine).items()]
    assert list(weight_shapes(shape).items()) == want


def weights(shape: ModelShape) -> dict[str, npt.NDArray[np.float32]]:
    return {name: np.ones(size, dtype=np.float32) for name, size in weight_shapes(shape).items()}


SHAPE = ModelShape(23, 12, 3, 3, 20, 1, 16, 10000.0, 1e-5, untied=True)


@pytest.mark.parametrize(
    ("changes", "error", "mentions"),
    [
        ({"shape": None}, TinyNNTypeError, "shape must be a ModelShape, got NoneType"),
        ({"weights": []}, TinyNNTypeError, "weights must be a dict, got list"),
        ({"tokenizer": "{}"}, TinyNNTypeError, "tokenizer must be the bytes of a tokenizer.json, or None, got str"),
        ({"shape": {"untied": False}}, TinyNNValueError, r"but 'output\.weight' is unknown"),
        (
            {"shape": {"qkv_bias": True}},
            TinyNNValueError,
            r"but 'blk\.0\.attn_q\.bias' is missing \(3 missing, 0 unknown\)",
        ),
        ({"shape": {"d_ff": 21}}, TinyNNValueError, r"ffn_gate\.weight must have shape \(21, 12\)"),
    ],
)
def test_a_model_with_inconsistent_fields_is_refused(
    changes: dict[str, Any], error: type[Exception], mentions: str
) -> None:
    model = TrainedModel(SHAPE, weights(SHAPE), None)
    if isinstance(changes.get("shape"), dict):
        changes = {"shape": dataclasses.replace(SHAPE, **changes["shape"])}
    with pytest.raises(error, match=mentions):
        dataclasses.replace(model, **changes)


@pytest.mark.parametrize(
    ("values", "error", "mentions"),
    [
        (np.ones(12), TinyNNTypeError, r"output_norm\.weight must be an array of float32, got an array of float64"),
        ([1.0] * 12, TinyNNTypeError, r"output_norm\.weight must be an array of float32, got list"),
        (np.ones((12, 1), dtype=np.float32), TinyNNValueError, r"must have shape \(12,\), got \(12, 1\)"),
        (
            np.array([1] * 11 + [np.nan], dtype=np.float32),
            TinyNNValueError,
            r"finite numbers, got nan at \[11\]",
        ),
        (np.full(12, -np.inf, dtype=np.float32), TinyNNValueError, r"finite numbers, got -inf at \[0\]"),
    ],
)
def test_a_weight_with_wrong_type_shape_or_values_is_refused(
    values: Any, error: type[Exception], mentions: str
) -> None:
    with pytest.raises(error, match=mentions):
        TrainedModel(SHAPE, {**weights(SHAPE), "output_norm.weight": values}, None)


def test_a_donor_embedding_needs_an_untied_head() -> None:
    with pytest.raises(TinyNNValueError, match=r"donor_d_in = 5 needs untied = True, because"):
        dataclasses.replace(SHAPE, donor_d_in=5, untied=False)


@pytest.mark.parametrize(
    ("changes", "error", "mentions"),
    [
        ({"untied": 1}, TinyNNTypeError, "untied must be True or False"),
        ({"qkv_bias": "no"}, TinyNNTypeError, "qkv_bias must be True or False"),
        (
            {"architecture": "mamba"},
            TinyNNValueError,
            "architecture must be one of 'llama', .*, got 'mamba'",
        ),
        ({"qk_norm": True}, TinyNNValueError, "qk_norm must be False with architecture = 'llama', got True"),
        ({"architecture": "qwen2"}, TinyNNValueError, "qkv_bias must be True with architecture = 'qwen2', got False"),
    ],
)
def test_wrong_fields_of_a_shape_are_refused_by_name(
    changes: dict[str, Any], error: type[Exception], mentions: str
) -> None:
    with pytest.raises(error, match=mentions):
        dataclasses.replace(SHAPE, **changes)


def test_a_shape_is_made_of_a_config_and_its_variants() -> None:
    cfg = SmolLM2Config(23, 12, 3, 3, 20, 1, 16, 10000.0, 1e-5)
    assert ModelShape.of(cfg) == dataclasses.replace(SHAPE, untied=False)
    assert ModelShape.of(cfg, untied=True) == SHAPE == ModelShape.of(SHAPE)
    with pytest.raises(TinyNNValueError, match="untied = False contradicts cfg, which has untied = True"):
        ModelShape.of(SHAPE, untied=False)
    with pytest.raises(TinyNNTypeError, match="cfg must be a SmolLM2Config, got NoneType"):
        ModelShape.of(None)  # type: ignore[arg-type]
