"""The loss on the validation split."""

from __future__ import annotations

import numpy as np

from toynn.data import PackedTokens
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.labels import IGNORE_ID


class Validation:
    """Windows of the validation split in their order, each foretold from its own start.

    The last window may be shorter; its rest, and the rest of the last batch, have no targets. So every token but the
    first counts once, unless `windows` (0: all) ends it earlier.
    """

    def __init__(self, tokens: PackedTokens, t_seq: int, t_batch: int, windows: int) -> None:
        self._tokens, self._t, self._b = tokens.tokens, t_seq, t_batch
        n = max(len(tokens) - 1, 0)
        self.tokens = min(n, windows * t_seq) if windows > 0 else n
        split = tokens.meta.splits[tokens.split]
        self.bytes = split.bytes * self.tokens / max(split.tokens, 1)  # of text, of so many tokens

    def loss(self, engine: LlamaSeqEngine) -> float:
        """Mean loss in nats a token, added up in float64 in the order of the batches. Drops a training graph."""
        t, b = self._t, self._b
        nats = 0.0
        for start in range(0, self.tokens, t * b):
            n = min(t * b, self.tokens - start)
            part = np.asarray(self._tokens[start : start + n + 1], dtype=np.int32)
            ids = np.zeros(t * b, dtype=np.int32)
            targets = np.full(t * b, IGNORE_ID, dtype=np.int32)
            ids[:n], targets[:n] = part[:-1], part[1:]
            nats += engine.mean_loss(ids, targets) * n
        return nats / self.tokens
