"""Record which tokens a decoder has read, so that the next text is read only from its first new token."""

from __future__ import annotations

from collections.abc import Sequence

from toynn.llm.fused.decoder import LlamaDecoder


class ReadTokens:
    """Records which tokens a decoder has read, for texts that it reads one after another.

    `reuse` keeps the tokens that two texts have in common, and `note` records the tokens of the current text. If the
    decoder was used for something else in between, no token is reused. The logits have the same bits with and without
    reuse, because in the fused layout they do not depend on how the tokens are divided among calls.

    decoder: the decoder.
    """

    def __init__(self, decoder: LlamaDecoder) -> None:
        self.decoder = decoder
        self._ids: list[int] = []
        self._turns = -1  # the value of `decoder.turns` at the last call of `note`

    def reuse(self, ids: Sequence[int]) -> int:
        """Make the decoder forget all tokens except those with which the new text `ids` begins. Return their number.

        At least one token of the new text remains unread, because the decoder returns logits only for new tokens.
        """
        decoder = self.decoder
        read = self._ids[: decoder.n_past] if decoder.turns == self._turns else []
        n = 0
        for old, new in zip(read, ids[:-1], strict=False):
            if old != new:
                break
            n += 1
        decoder.rewind(n)
        self.note(ids)
        return n

    def note(self, ids: Sequence[int]) -> None:
        """Record that the tokens that the decoder has read so far are the first tokens of `ids`."""
        self._ids, self._turns = list(ids), self.decoder.turns
