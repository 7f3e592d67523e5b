"""The labels of next-token prediction: for each position the next token id, or a one-hot row of the vocabulary."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer
from toynn.tinynn.arrays import flat_ids, ids_in_vocab
from toynn.tinynn.memory import memory_for

__all__ = [
    "IGNORED",
    "IGNORE_ID",
    "fixed_target",
    "next_token",
    "next_token_guarded",
    "one_hot_class",
    "targets",
    "targets_guarded",
]

IGNORE_ID = -1  # in a graph, the target of a position that does not count for the loss
IGNORED = -100  # the target of a position that does not count, in data and in PyTorch; the engine accepts -1 and -100
BYTES_OF_ID = 32  # largest memory per id in bytes while targets are made: three int64 arrays and their checks


def targets(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.int32]:
    """Return the next id at each position, int32 (T*B,). The last position of each sequence has its own id as target.

    Raises TinyNNValueError for a target outside the vocabulary.
    """
    vocab = integer("vocab", vocab, 1)
    with _memory_of_targets(context, batch):
        ids = _targets(seq_ids, context, batch)
        ids_in_vocab("the target of seq_ids", ids, vocab)
        return ids.astype(np.int32)


def targets_guarded(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.int32]:
    """Return the next id at each position as `targets` does, but IGNORE_ID for an id outside the vocabulary."""
    vocab = integer("vocab", vocab, 1)
    with _memory_of_targets(context, batch):
        ids = _targets(seq_ids, context, batch)
        return np.where((ids >= 0) & (ids < vocab), ids, IGNORE_ID).astype(np.int32)


def next_token(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.float32]:
    """Return one-hot rows float32 (T*B, vocab) of the targets that `targets` returns.

    Raises TinyNNValueError for a target outside the vocabulary.
    """
    vocab = integer("vocab", vocab, 1)
    with _memory_of_targets(context, batch):
        targets = _targets(seq_ids, context, batch)
        ids_in_vocab("the target of seq_ids", targets, vocab)
        return rows_of(targets, vocab)


def next_token_guarded(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.float32]:
    """Return one-hot rows as `next_token` does, but a row of zeros for an id outside the vocabulary."""
    vocab = integer("vocab", vocab, 1)
    with _memory_of_targets(context, batch):
        return rows_of(_targets(seq_ids, context, batch), vocab)


def fixed_target(vocab: int, context: int, target_id: int) -> npt.NDArray[np.float32]:
    """Return rows float32 (context, vocab), each one-hot at target_id.

    Raises TinyNNValueError if a number is out of range, and TinyNNTypeError if a value is not an integer.
    """
    vocab, context = integer("vocab", vocab, 1), integer("context", context, 1)
    target = integer("target_id", target_id, 0, vocab - 1)
    with memory_for("context", 4 * context, f"the targets of {context} positions"):
        targets = np.full(context, target, dtype=np.int32)
    return rows_of(targets, vocab)


def one_hot_class(num_classes: int, label: int) -> npt.NDArray[np.float32]:
    """Return a row float32 (1, num_classes), one-hot at label.

    Raises TinyNNValueError if a number is out of range, and TinyNNTypeError if a value is not an integer.
    """
    num_classes = integer("num_classes", num_classes, 1)
    return rows_of(np.array([integer("label", label, 0, num_classes - 1)]), num_classes)


def _memory_of_targets(context: object, batch: object) -> AbstractContextManager[None]:
    """Raise TinyNNMemoryError before context * batch ids are converted, if the memory for the conversion is not
    available.
    """
    n = integer("context", context, 1) * integer("batch", batch, 1)
    return memory_for("seq_ids", BYTES_OF_ID * n if n <= INT31_MAX else 0, f"the targets of {n} ids")


def _targets(seq_ids: npt.ArrayLike, context: int, batch: int) -> npt.NDArray[np.int64]:
    context, batch = integer("context", context, 1), integer("batch", batch, 1)
    return shifted(flat_ids("seq_ids", seq_ids, context * batch, "context * batch"), batch)


def shifted(ids: npt.NDArray[np.int64], batch: int) -> npt.NDArray[np.int64]:
    """Return the next id at each position of checked ids (B*T,), as `targets` does."""
    rows = ids.reshape(batch, -1)  # (B, T)
    return np.concatenate([rows[:, 1:], rows[:, -1:]], axis=1).ravel()  # (B*T,)


def rows_of(targets: npt.NDArray[np.integer[Any]], vocab: int) -> npt.NDArray[np.float32]:
    """Return one-hot rows (n, vocab) of targets (n,). A target outside the vocabulary gives a row of zeros."""
    with memory_for("vocab", 4 * targets.size * vocab, f"one-hot labels of shape ({targets.size}, {vocab})"):
        rows = np.zeros((targets.size, vocab), dtype=np.float32)
    known = np.flatnonzero((targets >= 0) & (targets < vocab))
    rows[known, targets[known]] = 1.0
    return rows
