"""Divide documents between training and validation, so that neither split is empty (unless validation is 0)."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator

from toynn.data.meta import SPLITS
from toynn.data.texts import Texts
from toynn.errors import TinyNNValueError
from toynn.text.documents import PIECE, Piece

TRAIN, VALIDATION = SPLITS
_NEAR = 1000  # number of characters: if a word ends at most this far before a cut, the cut moves to the end of the word


def divided(texts: Texts, share: float, seed: int) -> tuple[Iterator[Piece], Callable[[Piece], str]]:
    """Return the pieces of all documents, and a function that returns the name of the split of a piece.

    Validation gets the documents with the lowest hashes. If there are two or more documents, each split gets at least
    one of them. A single document is cut in two, and validation gets its end.
    """
    if texts.documents == 1:
        size = max(min(PIECE, texts.text_bytes // 100), 1)
        if share == 0:
            return texts.pieces(size), lambda _: TRAIN
        tail = texts.text_bytes - round(texts.text_bytes * share)
        tail = min(max(tail, 1), max(texts.text_bytes - 1, 1))  # each split gets at least one byte
        at_end = _cut_in_two(texts.pieces(size), tail)
        return at_end, lambda piece: VALIDATION if piece.start >= tail or piece.ends_document else TRAIN
    if share == 0:
        return texts.pieces(), lambda _: TRAIN

    def place(document: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{document}".encode(), digest_size=16).digest()

    n = min(max(round(texts.documents * share), 1), texts.documents - 1)
    held_out = set(heapq.nsmallest(n, range(texts.documents), key=place))
    return texts.pieces(), lambda piece: VALIDATION if piece.document in held_out else TRAIN


def _cut_in_two(pieces: Iterable[Piece], tail: int) -> Iterator[Piece]:
    """Yield the pieces of a single document. If no piece begins at byte `tail` or later, cut the last piece there.

    If there is a space shortly before that byte, cut before the space. Raises TinyNNValueError if the document has only
    one character.
    """
    for piece in pieces:
        if not piece.ends_document or piece.start >= tail:
            yield piece
            continue
        text = piece.text
        at = len(text.encode("utf-8")[: tail - piece.start].decode("utf-8", "ignore"))
        if (space := text.rfind(" ", max(at - _NEAR, 1), at + 1)) > 0:
            at = space
        at = min(max(at, 1), len(text) - 1)
        if at > 0:
            yield Piece(piece.document, piece.start, text[:at], False)
            yield Piece(piece.document, piece.start + len(text[:at].encode("utf-8")), text[at:], True)
        elif piece.start > 0:
            yield piece
        else:
            raise TinyNNValueError(
                f"validation: the only document is {text!r}, which cannot be divided into training and validation; add "
                "text, or set validation to 0"
            )
