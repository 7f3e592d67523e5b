"""Labels of next-token prediction: per position a row of the vocabulary with 1 at the id to come, or that id alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import flat_ids, ids_in_vocab, integer
from toynn.tinynn.memory import memory_for

IGNORE_ID = -1  # a target that counts for nothing


def targets(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.int32]:
    """(T*B,) int32, for the fused layout: the next id; the last position of each sequence targets itself.

    Raises TinyNNValueError for a target outside the vocabulary.
    """
    vocab = integer("vocab", vocab, 1)
    ids = _targets(seq_ids, context, batch)
    ids_in_vocab("the target of seq_ids", ids, vocab)
    return ids.astype(np.int32)


def targets_guarded(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.int32]:
    """The same, but a target outside the vocabulary becomes IGNORE_ID: that position adds nothing to the loss."""
    vocab = integer("vocab", vocab, 1)
    ids = _targets(seq_ids, context, batch)
    return np.where((ids >= 0) & (ids < vocab), ids, IGNORE_ID).astype(np.int32)


def next_token(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.float32]:
    """One-hot rows (T*B, vocab): the target is the next id; the last position of each sequence targets itself."""
    vocab = integer("vocab", vocab, 1)
    targets = _targets(seq_ids, context, batch)
    ids_in_vocab("the target of seq_ids", targets, vocab)
    return _rows(targets, vocab)


def next_token_guarded(seq_ids: npt.ArrayLike, vocab: int, context: int, batch: int) -> npt.NDArray[np.float32]:
    """The same, but a target outside the vocabulary leaves its row zero: that position adds nothing to the loss."""
    return _rows(_targets(seq_ids, context, batch), integer("vocab", vocab, 1))


def _targets(seq_ids: npt.ArrayLike, context: int, batch: int) -> npt.NDArray[np.int64]:
    context, batch = integer("context", context, 1), integer("batch", batch, 1)
    ids = flat_ids("seq_ids", seq_ids, context * batch, "context * batch").reshape(batch, context)
    return np.concatenate([ids[:, 1:], ids[:, -1:]], axis=1).ravel()  # (B*T,)


def _rows(targets: npt.NDArray[np.int64], vocab: int) -> npt.NDArray[np.float32]:
    with memory_for("vocab", 4 * targets.size * vocab, f"one-hot labels of shape ({targets.size}, {vocab})"):
        rows = np.zeros((targets.size, vocab), dtype=np.float32)
    known = np.flatnonzero((targets >= 0) & (targets < vocab))
    rows[known, targets[known]] = 1.0
    return rows
