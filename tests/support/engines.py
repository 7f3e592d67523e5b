"""Engines for tests, with defaults for everything that a test does not choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toynn import LlamaSeqEngine, RecipeOptions, SmolLM2Config


def realize(
    engine: LlamaSeqEngine,
    cfg: SmolLM2Config,
    *,
    layout: str = "fused",
    t_seq: int = 4,
    t_batch: int = 1,
    weight_dtype: int = 0,
    untied: bool | None = None,
    qkv_bias: bool | None = None,
    seed: int = 0,
    init_scale: float = 1.0,
    init_stream: str = "lcg31",
    n_threads: int | None = 1,
    oversubscribe: bool = True,
    optimizer: str = "adamw",
    precision: str = "f32",
    z_loss: float = 0.0,
    embedding_std: float = 0.02,
) -> None:
    """Realize an engine with random weights.

    If cfg is a ModelShape, untied and qkv_bias have its values by default, otherwise False. n_threads may exceed the
    number of cores.
    """
    options = RecipeOptions(
        t_seq=t_seq,
        t_batch=t_batch,
        weight_dtype=weight_dtype,
        untied=getattr(cfg, "untied", False) if untied is None else untied,
        qkv_bias=getattr(cfg, "qkv_bias", False) if qkv_bias is None else qkv_bias,
        seed=seed,
        init_scale=init_scale,
        init_stream=init_stream,
        n_threads=n_threads,
        layout=layout,
        optimizer=optimizer,
        precision=precision,
        z_loss=z_loss,
        embedding_std=embedding_std,
    )
    engine.realize(cfg, options, oversubscribe=oversubscribe)


def realized(cfg: SmolLM2Config, **options: Any) -> LlamaSeqEngine:
    """Return a new realized engine, for a `with` statement. The options are those of `realize`."""
    engine = LlamaSeqEngine()
    realize(engine, cfg, **options)
    return engine


def weights_of(engine: LlamaSeqEngine) -> dict[str, npt.NDArray[np.float32]]:
    """Return every weight of an engine by its name."""
    return {name: engine.download_weight(name) for name in engine.weights}
