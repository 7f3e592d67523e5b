"""Data and configurations that are so small that a test can train a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from toynn.data.prepare import prepare
from toynn.storage.checkpoint import Checkpoint, load_checkpoint
from toynn.training import CheckpointArgs, EvaluationArgs, ModelArgs, OptimizerArgs, ScheduleArgs, StepArgs, TrainConfig
from toynn.training.run_log import read_log

WORDS = [
    "the",
    "cat",
    "hen",
    "dog",
    "saw",
    "fed",
    "met",
    "a",
    "small",
    "red",
    "old",
    "one",
    "and",
    "then",
    "it",
    "ran",
    "home",
]

MODEL = ModelArgs(d_model=16, n_heads=2, n_kv=1, d_ff=24, n_layers=2, ctx=16, init_scale=1.0)


def make_data(folder: Path, seed: int = 0, documents: int = 40) -> Path:
    """Write a data folder of a few thousand random words, and return it."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 30)) + ".\n" for _ in range(documents)]
    source = folder.with_name(f"{folder.name}.txt")
    source.write_text("<|endoftext|>\n".join(texts), encoding="utf-8")
    prepare([source], folder, vocab_size=280, validation=0.1)
    return folder


def config(steps: int = 12, **sections: Any) -> TrainConfig:
    """Return the configuration of a run that takes about a second."""
    plain = TrainConfig(
        MODEL,
        StepArgs(steps=steps, batch=2),
        OptimizerArgs(lr=1e-2, kind="adamw"),
        ScheduleArgs(warmup=min(2, steps - 1)),
        EvaluationArgs(every=5),
        CheckpointArgs(every=4),
    )
    return dataclasses.replace(plain, **sections)


def losses(run: Path) -> list[str]:
    """Return every loss of a run in hex, without steps that were repeated."""
    return [float(event["loss"]).hex() for event in read_log(run / "log.jsonl") if event["event"] == "stepped"]


def evaluations(run: Path) -> list[str]:
    return [float(event["loss"]).hex() for event in read_log(run / "log.jsonl") if event["event"] == "evaluated"]


def final_bytes(run: Path) -> dict[str, bytes]:
    """Return weights and moments of the latest checkpoint."""
    return bytes_of(load_checkpoint(run))


def bytes_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Return the weights and moments of a checkpoint of a run."""
    assert checkpoint.training is not None
    return {
        name: values.tobytes() for name, values in {**checkpoint.model.weights, **checkpoint.training.moments}.items()
    }
