"""The inputs of one training step: ids, positions, labels and hyperparameters, with the right shapes and types."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer
from toynn.errors import SessionError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm import labels
from toynn.llm.adamw import AdamW
from toynn.tinynn.arrays import flat_ids, ids_in_vocab, real_array
from toynn.tinynn.memory import memory_for


class TrainingBatch(Initialised):
    """The inputs of one training step.

    Fill a batch with ids, then pass its arrays to a recipe. In the fused layout, pass targets instead of m_labels:

        batch = TrainingBatch(vocab, context=32, batch=1)
        batch.fill(seq_ids, AdamW().hp(1))
        loss = recipe.step(batch.seq_ids, batch.positions, batch.m_labels, batch.m_hp, True)

    seq_ids holds the sequences one after the other. Every fill makes new arrays; earlier arrays stay as they were. A
    fill that raises an error changes nothing.
    """

    def __init__(self, vocab: int, context: int, batch: int = 1) -> None:
        self.vocab = integer("vocab", vocab, 1)
        self.context = integer("context", context, 1)
        self.batch = integer("batch", batch, 1)
        if self.context * self.batch > INT31_MAX:
            raise TinyNNValueError(f"context * batch must be below 2^31, got {self.context} * {self.batch}")
        with memory_for("context", 8 * self.context * self.batch, f"positions of {self.context} * {self.batch} tokens"):
            positions = np.tile(np.arange(self.context, dtype=np.int32), self.batch)
        self.positions: npt.NDArray[np.int32] = positions  # (B*T,)
        self.m_hp: npt.NDArray[np.float32] = AdamW().hp(1)  # (1, 7)
        self._seq_ids: npt.NDArray[np.int32] | None = None
        self._targets: npt.NDArray[np.int32] | None = None
        self._m_labels: npt.NDArray[np.float32] | None = None  # made on first use, because it is vocab times as large
        # as the targets

    def fill(self, seq_ids: npt.ArrayLike, m_hp: npt.ArrayLike | None = None) -> None:
        """Set the ids, and make their labels. m_hp: a row of `AdamW.hp`; None keeps the current row."""
        n = self.context * self.batch
        with memory_for("seq_ids", labels.BYTES_OF_ID * n, f"{n} ids and their targets"):
            ids = flat_ids("seq_ids", seq_ids, n, "context * batch")
            ids_in_vocab("seq_ids", ids, self.vocab)
            hp = self.m_hp if m_hp is None else _hp_row(m_hp)
            targets = labels.shifted(ids, self.batch).astype(np.int32)
        self._seq_ids, self._targets, self._m_labels, self.m_hp = ids.astype(np.int32), targets, None, hp

    @property
    def seq_ids(self) -> npt.NDArray[np.int32]:
        """The token ids, int32 (T*B,). Raises SessionError before the first fill."""
        if self._seq_ids is None:
            raise SessionError("the batch is empty: call fill(seq_ids) first")
        return self._seq_ids

    @property
    def m_labels(self) -> npt.NDArray[np.float32]:
        """One-hot labels float32 (T*B, vocab), for the per_head layout."""
        if self._m_labels is None:
            self._m_labels = labels.next_token(self.seq_ids, self.vocab, self.context, self.batch)
        return self._m_labels

    @property
    def targets(self) -> npt.NDArray[np.int32]:
        """The id that follows each token, int32 (T*B,), for the fused layout."""
        if self._targets is None:
            raise SessionError("the batch is empty: call fill(seq_ids) first")
        return self._targets


def _hp_row(value: npt.ArrayLike) -> npt.NDArray[np.float32]:
    row = real_array("m_hp", value, 7)
    if row.size != 7:
        raise TinyNNValueError(f"m_hp must be the seven numbers of AdamW.hp, shape (1, 7), got shape {row.shape}")
    with np.errstate(over="ignore"):
        row = np.array(row, dtype=np.float32).reshape(1, 7)
    if not np.isfinite(row).all():
        raise TinyNNValueError(f"m_hp must be finite numbers (as float32), got {row.tolist()[0]}")
    return row
