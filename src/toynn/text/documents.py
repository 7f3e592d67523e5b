"""Divide texts into documents. Only this module defines what a document, a separator line and a line end are.

`toynn prepare`, `toynn eval` and `toynn generate` all divide their texts with this module. So they count bytes in the
same way, and never score a separator as text.

- A line ends with LF, CR LF or CR.
- A separator line contains only the text of the separator. The line and its end do not belong to a document.
- A document is the text between two separator lines, or between a separator line and the start or end of the file.
  Empty documents are ignored.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from toynn.arguments import label
from toynn.errors import TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.parallel.in_order import Each, one_after_another
from toynn.storage.text_files import BYTE_ORDER_MARK
from toynn.text.sentencepiece_cuts import SentencePieceCuts, has_sentencepiece_rules
from toynn.text.tokenizer_json import added_tokens, check_text, token_ids, token_starts
from toynn.text.word_borders import BEFORE_SPACE, parts_of, separates_words_as_gpt2

with naming_the_extra():
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
# Separator lines that other tools write between documents.
KNOWN_MARKERS = (
    END_OF_TEXT, "</s>", "<eos>", "<EOS>", "[EOS]", "<|eos|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>",
    "<|end|>", "<end_of_turn>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|endofdocument|>", "<eod>", "<|eod|>",
    "[SEP]",
)  # fmt: skip
PIECE = 1 << 16  # approximate size of a piece in bytes; a piece ends at a line end
_LONGEST_LINE = 1 << 20  # largest number of characters in a part of a line; encoding a part takes about a second
_CUT = 1 << 17  # largest number of characters encoded at once, to save memory, unless cutting would change the tokens
_BATCH = 64  # largest number of pieces that are encoded together
# Largest number of characters in a batch. Encoding a batch takes about a second, and Ctrl-C has no effect during this
# time.
_BATCH_TEXT = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A part of a document: one or more lines, or a part of a very long line.

    document: the number of the document, from 0.
    start: the size of all text before this piece, in bytes.
    """

    document: int
    start: int
    text: str
    ends_document: bool


def separators_of(separator: str | None, eos: str | None) -> tuple[str, ...]:
    """Return the separator lines: the line that the user chose, or by default the text of eos and <|endoftext|>.

    separator: the user's choice; "": no separator; None: the default. Raises TinyNNTypeError for a value that is not a
        str, or TinyNNValueError for a separator with several lines.
    """
    if separator is None:
        return tuple(dict.fromkeys([eos, END_OF_TEXT] if eos else [END_OF_TEXT]))
    line = one_line("separator", separator)
    return (line,) if line else ()


def one_line(name: str, value: object) -> str:
    """Check that a value is a str of one line that UTF-8 can encode, and return it.

    Raises TinyNNTypeError or TinyNNValueError for any other value.
    """
    line = label(name, value).decode("utf-8")
    if "\n" in line or "\r" in line:
        raise TinyNNValueError(f"{name} must be one line, got {line!r:.60}")
    return line


def documents_of(text: str, separators: Sequence[str]) -> list[str]:
    """Return the documents of a text, without separator lines and without a leading byte-order mark."""
    documents: dict[int, list[str]] = {}
    for piece in pieces([[text]], separators):
        documents.setdefault(piece.document, []).append(piece.text)
    return ["".join(parts) for parts in documents.values()]


def marker_lines(text: str, markers: Sequence[str]) -> Counter[str]:
    """Return, for each marker that occurs as a whole line of a text, the number of these lines."""
    if not any(marker in text for marker in markers):
        return Counter()
    found = (marker_in(line, markers) for line, is_whole in lines([text]) if is_whole)
    return Counter(marker for marker in found if marker is not None)


def marker_in(line: str, markers: Collection[str]) -> str | None:
    """Return the marker that is equal to a whole line, or None.

    A byte-order mark at the start of the line is ignored, because joining several files can leave one there.
    """
    content = line.rstrip("\r\n").removeprefix(BYTE_ORDER_MARK)
    return content if content in markers else None


def pieces(files: Iterable[Iterable[str]], separators: Sequence[str], size: int = PIECE) -> Iterator[Piece]:
    """Yield the documents of all files in pieces of about `size` bytes that end at line ends. Skip empty documents.

    files: for each file, its text in parts of any size.
    """
    document, start = 0, 0
    for parts in files:
        held: list[str] = []
        length = 0
        began = False  # whether a piece of the current document was yielded
        for line, is_whole in lines(parts):
            if is_whole and marker_in(line, separators) is not None:
                if held or began:
                    yield Piece(document, start, "".join(held), True)
                    start += length
                    document += 1
                held, length, began = [], 0, False
                continue
            if length >= size:  # another line of the document follows, so the collected text does not end the document
                yield Piece(document, start, "".join(held), False)
                start += length
                held, length, began = [], 0, True
            held.append(line)
            length += len(line.encode("utf-8", "surrogatepass"))
        if held or began:
            yield Piece(document, start, "".join(held), True)
            start += length
            document += 1


def lines(parts: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield each line of a text with its line end, and whether it is a complete line. Very long lines are split.

    CRs directly before an LF belong to the same line end.
    """
    held, begins, first = "", True, True
    for part in parts:
        held += part.removeprefix(BYTE_ORDER_MARK) if first else part
        first = first and not part
        *ended, held = held.split("\n")
        for line in ended:
            if "\r" in line:
                yield from _at_each_cr(line + "\n", begins)
            else:
                yield line + "\n", begins
            begins = True
        # A CR at the end of the part may belong to a line end whose LF is in the next part.
        if (cut := held.rstrip("\r").rfind("\r") + 1) > 0:
            yield from _at_each_cr(held[:cut], begins)
            held, begins = held[cut:], True
        while len(held) > _LONGEST_LINE:
            space = held.rfind(" ", _LONGEST_LINE // 2, _LONGEST_LINE)  # cutting at a space does not divide a word
            end = space if space > 0 else _LONGEST_LINE
            yield held[:end], False
            held, begins = held[end:], False
    if held:
        yield from _at_each_cr(held, begins)


def _at_each_cr(text: str, begins: bool) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a text that contains no LF except at its end. begins: whether the text begins a new line."""
    body = text.rstrip("\r\n")
    end = text[len(body) :]
    if "\r" in body:
        *ended, body = body.split("\r")
        for line in ended:
            yield line + "\r", begins
            begins = True
    if end.endswith("\n") or len(end) <= 1:
        yield body + end, begins
        return
    yield body + "\r", begins  # without an LF, each of these CRs ends a line
    for _ in end[1:]:
        yield "\r", True


def batches(all_pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield the pieces in lists. The pieces of a list are encoded together."""
    batch: list[Piece] = []
    characters = 0
    for piece in all_pieces:
        batch.append(piece)
        characters += len(piece.text)
        if len(batch) == _BATCH or characters >= _BATCH_TEXT:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class _Window:
    """Consecutive pieces of a document that are encoded as one text, between the text before and after them."""

    before: str
    pieces: list[Piece]
    after: str

    @property
    def text(self) -> str:
        return "".join([self.before, *(piece.text for piece in self.pieces), self.after])


Batch: TypeAlias = list[_Window]


def _windows(cuts: SentencePieceCuts, all_pieces: Iterable[Piece]) -> Iterator[_Window]:
    """Yield the pieces in windows. A window can end only where its document ends or can be cut, unless it would become
    too long.
    """
    before = ""
    held: list[Piece] = []
    for piece in all_pieces:
        if held:
            safe = held[-1].document == piece.document and cuts.can_cut(held[-1].text, piece.text)
            is_long = sum(len(one.text) for one in held) + len(piece.text) > _LONGEST_LINE
            if safe or is_long or held[-1].document != piece.document:
                yield _Window(before, held, cuts.context_after(piece.text) if safe else "")
                before = cuts.context_before("".join(one.text for one in held)) if safe else ""
                held = []
        held.append(piece)
    if held:
        yield _Window(before, held, "")


def _batches_of_windows(windows: Iterable[_Window]) -> Iterator[Batch]:
    """Yield the windows in lists. The windows of a list are encoded together."""
    batch: Batch = []
    characters = 0
    for window in windows:
        batch.append(window)
        characters += sum(len(piece.text) for piece in window.pieces)
        if len(batch) == _BATCH or characters >= _BATCH_TEXT:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class TextEncoder:
    """Encodes batches of pieces. Batches are independent of each other.

    tokenizer: the tokenizer. name: the name of the texts in errors.
    """

    def __init__(self, tokenizer: Tokenizer, name: str = "text") -> None:
        self._tokenizer, self._name = tokenizer, name
        self._in_context = has_sentencepiece_rules(tokenizer)
        self._can_be_cut: bool | None = None

    def batches(self, all_pieces: Iterable[Piece]) -> Iterator[Batch]:
        """Yield the pieces in batches, which keep their order. The pieces of a document must be in order."""
        if self._in_context:
            return _batches_of_windows(_windows(SentencePieceCuts(self._tokenizer), all_pieces))
        return ([_Window("", [piece], "") for piece in batch] for batch in batches(all_pieces))

    def encode(self, batch: Batch) -> list[list[int]]:
        """Return the token ids of each piece of a batch. Raises the errors of `token_ids`."""
        return self._encode_in_context(batch) if self._in_context else self._encode_alone(batch)

    def _encode_alone(self, batch: Batch) -> list[list[int]]:
        parts = [[window.text] for window in batch]
        for i, (text,) in enumerate(parts):
            if len(text) > _CUT:
                if self._can_be_cut is None:
                    self._can_be_cut = separates_words_as_gpt2(self._tokenizer)
                if self._can_be_cut:
                    parts[i] = list(parts_of(text, PIECE, BEFORE_SPACE))
        ids = iter(token_ids(self._tokenizer, [text for texts in parts for text in texts], self._name))
        return [list(itertools.chain.from_iterable(itertools.islice(ids, len(texts)))) for texts in parts]

    def _encode_in_context(self, batch: Batch) -> list[list[int]]:
        """Return the token ids of each piece. A window is encoded with the text around it, and the tokens of this text
        are left out. A token that two pieces share belongs to the first of these pieces.
        """
        all_ids = []
        found = token_starts(self._tokenizer, [window.text for window in batch], self._name)
        for window, (ids, starts) in zip(batch, found, strict=True):
            end = len(window.before)
            first = bisect_left(starts, end)
            for piece in window.pieces:
                end += len(piece.text)
                last = bisect_left(starts, end, first)
                all_ids.append(ids[first:last])
                first = last
        return all_ids


def encoded(
    tokenizer: Tokenizer, all_pieces: Iterable[Piece], name: str = "text", each: Each = one_after_another
) -> Iterator[tuple[Piece, list[int]]]:
    """Yield each piece with its token ids. No end token is added after a document. Raises the errors of `token_ids`.

    The pieces of a document must be in order. With a SentencePiece tokenizer, the ids of all pieces of a document are
    the ids of the whole document. The only exception is a document with more than 1,048,576 characters without a place
    where it can be cut.

    each: a function that encodes the batches, in this process or in several (see `toynn.parallel.in_order.Each`).
    """
    encoder = TextEncoder(tokenizer, name)
    for batch, all_ids in each(encoder.encode, encoder.batches(all_pieces)):
        yield from zip((piece for window in batch for piece in window.pieces), all_ids, strict=True)


class PackedText(NamedTuple):
    """A text as token ids, the size of its documents in UTF-8 in bytes, and the number of documents."""

    ids: list[int]
    text_bytes: int
    documents: int


def packed_ids(
    tokenizer: Tokenizer,
    text: str,
    separators: Sequence[str],
    end_id: int | None,
    name: str = "text",
    *,
    chosen: bool = False,
) -> PackedText:
    """Return a text as `toynn prepare` encodes it.

    chosen: true if the user chose the separators; lines of other known separators are then text.

    If the text has separator lines, `end_id` is added after each document, also after the last one. A text without
    separator lines may be a part of a document, so no `end_id` is added.

    Raises TinyNNTypeError for a value that is not a str, or TinyNNValueError for a str that is not Unicode text. If
    chosen is false, TinyNNValueError is also raised for lines of a known separator that is neither in `separators` nor
    a token of the tokenizer.
    """
    check_text(text, name)
    markers = marker_lines(text, (*KNOWN_MARKERS, *separators))
    if not chosen:
        refuse_other_markers(markers, separators, added_tokens(tokenizer), name)
    end = [end_id] if end_id is not None and any(marker in separators for marker in markers) else []
    ids: list[int] = []
    text_bytes, documents = 0, 0
    for piece, of_piece in encoded(tokenizer, pieces([[text]], separators), name):
        ids += of_piece + end if piece.ends_document else of_piece
        text_bytes += len(piece.text.encode("utf-8"))
        documents = piece.document + 1
    return PackedText(ids, text_bytes, documents)


def prompt_ids(
    tokenizer: Tokenizer, prompt: str, separators: Sequence[str], end_id: int | None, name: str = "prompt"
) -> list[int]:
    """Return the token ids of a prompt. Each separator line becomes `end_id`. The last document gets no `end_id`.

    Raises TinyNNTypeError for a value that is not a str, or TinyNNValueError for a str that is not Unicode text.
    """
    check_text(prompt, name)
    if not marker_lines(prompt, separators):
        return token_ids(tokenizer, [prompt.removeprefix(BYTE_ORDER_MARK)], name)[0]
    all_lines = [line for line, _ in lines([prompt])]
    end = [] if end_id is None else [end_id]
    ids = list(end) if marker_in(all_lines[0], separators) else []
    for piece, of_piece in encoded(tokenizer, pieces([[prompt]], separators), name):
        ids += of_piece + end if piece.ends_document else of_piece
    return ids if marker_in(all_lines[-1], separators) or not end else ids[:-1]


def refuse_other_markers(
    found: Mapping[str, int], separators: Sequence[str], tokens: Collection[str], name: str
) -> None:
    """Raise TinyNNValueError if a text has lines of a known separator that would be encoded as ordinary text.

    found, tokens: as in `other_markers`.
    name: the name of the text in the message.
    """
    if other := other_markers(found, separators, tokens):
        marker = max(other, key=lambda one: other[one])
        n_lines = f"{other[marker]} {'line' if other[marker] == 1 else 'lines'}"
        now = " or ".join(map(repr, separators)) or "none"
        raise TinyNNValueError(
            f"{name} has {n_lines} {marker!r}, but the separator is {now}; set separator to {marker!r} if these lines "
            f"separate documents, or to {separators[0] if separators else ''!r} if they are ordinary text"
        )


def other_markers(found: Mapping[str, int], separators: Sequence[str], tokens: Collection[str]) -> dict[str, int]:
    """Return the known separators that are neither in `separators` nor in `tokens`, with the number of their lines.

    found: for each marker, the number of lines that are equal to it.
    tokens: the special tokens of the tokenizer, which are not encoded as ordinary text.
    """
    return {one: n for one, n in found.items() if one in KNOWN_MARKERS and one not in separators and one not in tokens}
