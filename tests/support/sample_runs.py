"""Data made of short samples, a model for windows of 24 tokens, and the loss of samples that the model sees alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import toynn
from toynn.data import PackedTokens
from toynn.llm.engine import LlamaDecoder
from toynn.model.trained_model import TrainedModel
from toynn.training import ModelArgs

T = 24
MODEL = ModelArgs(d_model=16, n_heads=2, n_kv=1, d_ff=24, n_layers=2, ctx=T)


def sample_data(folder: Path, n: int) -> Path:
    """Write a data folder of n samples of 3 to about 40 tokens, a few of which are longer than a window."""
    rng = np.random.default_rng(0)
    records = [
        {"prompt": "hen dog "[: int(rng.integers(1, 8))], "completion": "the cat saw a red hen "[: int(length)]}
        for length in np.minimum(rng.geometric(0.12, n), 22)
    ]
    records[::40] = [{"prompt": "a ", "completion": "once upon a time the old dog ran home"}] * len(records[::40])
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, records)))
    toynn.prepare(folder / "samples.jsonl", folder / "data", vocab_size=262, validation=0.2, progress=False)
    return folder / "data"


def mean_loss_alone(model: TrainedModel, parts: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> tuple[float, int]:
    """Return the mean loss of the tokens that count, and their number. The model sees each part alone."""
    found: list[float] = []
    with LlamaDecoder(model.shape, model.weights) as decoder:
        for ids, counted in parts:
            row = decoder.score(np.asarray(ids, np.int32))
            found += row[np.asarray(counted)[1:] == 1].astype(np.float64).tolist()
    return math.fsum(found) / len(found), len(found)


def pieces_at(split: PackedTokens, t: int) -> list[tuple[int, tuple[npt.NDArray[Any], npt.NDArray[Any]]]]:
    """Divide each sample into pieces of at most t predicted tokens. Return, for each piece, its position, its ids, and
    whether each id counts.
    """
    assert split.starts is not None
    assert split.counted is not None
    found = []
    for start, end in zip(split.starts, np.append(split.starts[1:], len(split)), strict=True):
        for at in range(start, end - 1, t):
            part = slice(at, min(at + t + 1, end))
            found.append((at, (split.tokens[part], split.counted[part])))
    return found


def pieces(split: PackedTokens, t: int) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    return [part for _, part in pieces_at(split, t)]
