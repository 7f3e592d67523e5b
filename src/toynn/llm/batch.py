"""The inputs of one training step: ids, positions, labels and hyperparameters, with the right shapes and types."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer
from toynn.errors import SessionError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adamw import AdamW
from toynn.llm.inputs import checked_labels
from toynn.llm.labels import BYTES_OF_ID, IGNORE_ID, rows_of, shifted
from toynn.tinynn.arrays import flat_ids, ids_in_vocab, real_array
from toynn.tinynn.memory import memory_for


class TrainingBatch(Initialised):
    """The inputs of one training step.

    Fill a batch with ids, then pass its arrays to a recipe. In the fused layout, pass targets instead of labels:

        batch = TrainingBatch(vocab, context=32, batch=1)
        batch.hp = AdamW().hp(0)
        batch.fill(seq_ids)
        loss = recipe.step(batch.seq_ids, batch.positions, batch.labels, batch.hp, True)

    seq_ids holds the sequences one after the other. Every fill makes new arrays; earlier arrays stay as they were. A
    fill that raises an error changes nothing.

    Attributes:
        positions: int32 (T*B,), 0..T-1 in each sequence.
        seq_ids: int32 (T*B,); empty before the first fill.
        m_labels, m_hp: labels and hp as a step needs them. m_hp is `AdamW().hp(1)` until hp is set, and m_labels raises
            SessionError before the first fill.
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
        self.seq_ids: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._hp: npt.NDArray[np.float32] = np.zeros((1, 7), dtype=np.float32)
        self._targets: npt.NDArray[np.int32] | None = None
        # The labels are made on first use, because they are vocab times as large as the targets.
        self._labels: npt.NDArray[np.float32] | None = None

    def fill(self, seq_ids: npt.ArrayLike, m_hp: npt.ArrayLike | None = None) -> None:
        """Set the ids, and the next token of each position as its label.

        m_hp: a row of `AdamW.hp`; None: keep the current row.
        """
        self._fill(seq_ids, m_hp, None)

    def fill_fixed_target(self, seq_ids: npt.ArrayLike, target_id: int) -> None:
        """Set the ids, and labels whose target is target_id at every position. hp does not change."""
        self._fill(seq_ids, None, integer("target_id", target_id, 0, self.vocab - 1))

    def _fill(self, seq_ids: npt.ArrayLike, m_hp: npt.ArrayLike | None, target: int | None) -> None:
        n = self.context * self.batch
        with memory_for("seq_ids", BYTES_OF_ID * n, f"{n} ids and their targets"):
            ids = flat_ids("seq_ids", seq_ids, n, "context * batch")
            ids_in_vocab("seq_ids", ids, self.vocab)
            hp = self._hp if m_hp is None else _hp_row("m_hp", m_hp)
            targets = shifted(ids, self.batch) if target is None else np.full(n, target)
        self.seq_ids, self._targets, self._labels, self._hp = ids.astype(np.int32), targets.astype(np.int32), None, hp

    @property
    def hp(self) -> npt.NDArray[np.float32]:
        """The row of hyperparameters, float32 (1, 7). The caller can assign a new row. Before that, it consists of
        zeros.
        """
        return self._hp

    @hp.setter
    def hp(self, row: npt.ArrayLike) -> None:
        self._hp = _hp_row("hp", row)

    @property
    def m_hp(self) -> npt.NDArray[np.float32]:
        """The row `hp`, or `AdamW().hp(1)` if `hp` was not set."""
        return self._hp if self._hp.any() else AdamW().hp(1)

    @property
    def labels(self) -> npt.NDArray[np.float32]:
        """Labels float32 (T*B, vocab), for the per_head layout: zeros before the first fill. The caller can assign new
        labels.
        """
        if self._labels is None:
            targets = np.full(self.context * self.batch, IGNORE_ID) if self._targets is None else self._targets
            self._labels = rows_of(targets, self.vocab)
        return self._labels

    @labels.setter
    def labels(self, rows: npt.ArrayLike) -> None:
        self._labels, self._targets = checked_labels(rows, self.context * self.batch, self.vocab, name="labels"), None

    @property
    def m_labels(self) -> npt.NDArray[np.float32]:
        """The labels. Raises SessionError before the first fill."""
        if self._labels is None and self._targets is None:
            raise SessionError("the batch is empty: call fill(seq_ids) first")
        return self.labels

    @property
    def targets(self) -> npt.NDArray[np.int32]:
        """The target at each position, int32 (T*B,), for the fused layout.

        Raises SessionError before the first fill, and after labels were assigned, because the rows of assigned labels
            need not be one-hot.
        """
        if self._targets is None:
            raise SessionError(
                "the batch has no targets: call fill(seq_ids) first, which also replaces assigned labels"
            )
        return self._targets


def _hp_row(name: str, value: npt.ArrayLike) -> npt.NDArray[np.float32]:
    row = real_array(name, value, 7)
    if row.size != 7:
        raise TinyNNValueError(f"{name} must be the seven numbers of AdamW.hp, shape (1, 7), got shape {row.shape}")
    with np.errstate(over="ignore"):
        row = np.array(row, dtype=np.float32).reshape(1, 7)
    if not np.isfinite(row).all():
        raise TinyNNValueError(f"{name} must be finite numbers (as float32), got {row.tolist()[0]}")
    return row
