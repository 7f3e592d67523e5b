"""TrainedModel: exactly the weights that an engine has, and nothing that no model could have."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from oracle.variants import VARIANTS, Variant
from toynn import LlamaSeqEngine, SmolLM2Config, TinyNNTypeError, TinyNNValueError
from toynn.model.trained_model import TrainedModel, weight_shapes


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_shapes_are_those_of_the_engine_in_its_order(variant: Variant) -> None:
    with LlamaSeqEngine() as engine:
        engine.realize_for_random_init(
            variant.cfg, 4, 1, 0, variant.untied, variant.qkv_bias, 0, 1.0, layout="fused", n_threads=1
        )
        want = [(name, engine.download_weight(name).shape) for name in engine.weights]
    assert list(weight_shapes(variant.cfg, variant.untied, variant.qkv_bias).items()) == want


def weights(cfg: SmolLM2Config) -> dict[str, npt.NDArray[np.float32]]:
    return {name: np.ones(shape, dtype=np.float32) for name, shape in weight_shapes(cfg, True, False).items()}


CFG = SmolLM2Config(23, 12, 3, 3, 20, 1, 16, 10000.0, 1e-5)


@pytest.mark.parametrize(
    ("changes", "error", "mentions"),
    [
        ({"cfg": None}, TinyNNTypeError, "cfg must be a SmolLM2Config, got NoneType"),
        ({"untied": 1}, TinyNNTypeError, "untied must be True or False"),
        ({"qkv_bias": "no"}, TinyNNTypeError, "qkv_bias must be True or False"),
        ({"weights": []}, TinyNNTypeError, "weights must be a dict, got list"),
        ({"tokenizer": "{}"}, TinyNNTypeError, "tokenizer must be the bytes of a tokenizer.json, or None, got str"),
        ({"untied": False}, TinyNNValueError, r"hold 'output\.weight', which the model does not have"),
        ({"qkv_bias": True}, TinyNNValueError, r"lack 'blk\.0\.attn_q\.bias' \(3 missing, 0 unknown\)"),
        ({"cfg": dataclasses.replace(CFG, d_ff=21)}, TinyNNValueError, r"ffn_gate\.weight must have shape \(21, 12\)"),
        ({"cfg": dataclasses.replace(CFG, donor_d_in=5), "untied": False}, TinyNNValueError, "needs untied=True"),
    ],
)
def test_a_model_that_does_not_fit_together_is_refused(
    changes: dict[str, Any], error: type[Exception], mentions: str
) -> None:
    model = TrainedModel(CFG, True, False, weights(CFG), None)
    with pytest.raises(error, match=mentions):
        dataclasses.replace(model, **changes)


@pytest.mark.parametrize(
    ("values", "error", "mentions"),
    [
        (np.ones(12), TinyNNTypeError, r"output_norm\.weight must be an array of float32, got an array of float64"),
        ([1.0] * 12, TinyNNTypeError, r"output_norm\.weight must be an array of float32, got list"),
        (np.ones((12, 1), dtype=np.float32), TinyNNValueError, r"must have shape \(12,\), got \(12, 1\)"),
        (np.array([1] * 11 + [np.nan], dtype=np.float32), TinyNNValueError, r"output_norm\.weight holds nan at \[11\]"),
        (np.full(12, -np.inf, dtype=np.float32), TinyNNValueError, r"output_norm\.weight holds -inf at \[0\]"),
    ],
)
def test_a_weight_that_no_model_has_is_refused(values: Any, error: type[Exception], mentions: str) -> None:
    with pytest.raises(error, match=mentions):
        TrainedModel(CFG, True, False, {**weights(CFG), "output_norm.weight": values}, None)
