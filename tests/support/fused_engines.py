"""Engines of both layouts with a training graph, for tests of the fused layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from engines import realized, weights_of
from oracle.params import random_weights
from oracle.variants import Variant
from toynn import (
    AdamW,
    LlamaSeqEngine,
    labels,
)
from toynn.llm.layouts import to_fused

F32 = npt.NDArray[np.float32]


HP = AdamW(lr=0.01, weight_decay=0.1, eps=1e-3, bias_correct=True)


@contextmanager
def engine(
    variant: Variant, layout: str = "fused", n_threads: int = 1, precision: str = "f32", **build: Any
) -> Iterator[LlamaSeqEngine]:
    """Yield a realized engine with a training graph."""
    how = {"layout": layout, "n_threads": n_threads, "precision": precision}
    with realized(variant.cfg, **variant.options, **how, seed=3, init_scale=1.5) as e:
        e.build_training_step(**build)
        yield e


def targets(variant: Variant) -> npt.NDArray[np.int32]:
    return labels.targets(variant.ids(), variant.cfg.vocab, variant.t_seq, variant.t_batch)


def load(e: LlamaSeqEngine, variant: Variant) -> dict[str, npt.NDArray[np.float64]]:
    """Upload the random weights of the oracle, and return them by their per_head names."""
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    for name, values in to_fused({n: w.astype(np.float32) for n, w in weights.items()}, variant.cfg).items():
        e.upload_weight(name, values)
    return weights


def all_weights(e: LlamaSeqEngine) -> dict[str, bytes]:
    return {name: values.tobytes() for name, values in weights_of(e).items()}
