"""Look through texts before they are packed: how many documents they have, and what in them may be a mistake."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toynn.errors import TinyNNValueError
from toynn.storage.text_files import text_parts
from toynn.text.documents import KNOWN_MARKERS, PIECE, Piece, marker_lines, other_markers, pieces, refuse_other_markers

_JSON_LINES = 5  # first lines of a file that are parsed to find out whether it is JSON lines
_LONGEST_JSON = 1 << 20  # characters


@dataclass
class Texts:
    """Text files that were read once, and what is in them.

    called: how messages call them, or None for the paths. documents, text_bytes: their number and size, without
    separators. markers: lines in the documents that are equal to a known separator or to eos. inside: how often eos and
    the separators occur inside other lines. nuls: NUL characters. json_lines: files of JSON lines.
    """

    paths: Sequence[Path]
    separators: Sequence[str]
    called: str | None = None
    documents: int = 0
    text_bytes: int = 0
    markers: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    nuls: int = 0
    json_lines: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How messages call the texts: the file, or the first one and the number of the others."""
        if self.called is not None:
            return self.called
        others = len(self.paths) - 1
        return f"{self.paths[0]} and {others} other texts" if others else str(self.paths[0])

    def pieces(self, size: int = PIECE) -> Iterator[Piece]:
        """Read the texts and yield their documents in pieces, as `toynn.text.documents.pieces` does."""
        return pieces((text_parts(path) for path in self.paths), self.separators, size)


def survey(paths: Sequence[Path], separators: Sequence[str], eos: str, name: str | None = None) -> Texts:
    """Read the texts once. Raises TinyNNValueError if there is no text, FileFormatError, OSError."""
    found = Texts(paths, separators, name)
    ends = tuple(dict.fromkeys((eos, *separators) if eos else separators))
    for path in paths:
        before = found.documents
        for piece in Texts([path], separators).pieces():
            if piece.start == 0 and _is_json_lines(piece.text):
                found.json_lines.append(path)
            found.documents = before + piece.document + 1
            found.text_bytes += len(piece.text.encode("utf-8"))
            found.nuls += piece.text.count("\0")
            lines = marker_lines(piece.text, (*KNOWN_MARKERS, *ends))
            found.markers += lines
            for end in ends:
                found.inside[end] += piece.text.count(end) - lines[end]
    if found.text_bytes == 0:
        raise TinyNNValueError("texts: the files contain no text")
    return found


def notes_on(texts: Texts, eos: str, tokens: Collection[str], *, chosen: bool) -> list[str]:
    """Return sentences about what may be a mistake in the texts.

    tokens: the tokenizer's added tokens. chosen: the user named the separator.

    Raises TinyNNValueError if the user named no separator, and lines of a known separator would be taken for text.
    """
    if not chosen:
        refuse_other_markers(texts.markers, texts.separators, tokens, texts.name)
    notes = []
    other = other_markers(texts.markers, texts.separators, tokens)
    for marker, n in texts.markers.items():
        means = "taken for text" if marker in other else "encoded as that token"
        notes.append(
            f"{texts.name} has {n} {'line' if n == 1 else 'lines'} {marker!r}, {means}; the separator is "
            f"{' or '.join(map(repr, texts.separators)) or 'none'}"
        )
    for marker, n in texts.inside.items():
        if n > 0:
            means = "encoded as the end of a document" if marker == eos else "taken for text"
            notes.append(
                f"{texts.name} has {marker!r} inside of lines, {n} times: it separates no documents there and is "
                f"{means}; a separator must be alone on its line"
            )
    if texts.nuls:
        notes.append(f"{texts.name} has {texts.nuls} NUL characters, which texts usually do not have")
    notes += [
        f"{path} is JSON lines, whose braces and keys are learned as text; extract the texts first"
        for path in texts.json_lines
    ]
    return notes


def _is_json_lines(text: str) -> bool:
    """Return whether the first lines of a text are JSON objects or arrays, each on one line."""
    lines = [line for line in text[:_LONGEST_JSON].splitlines() if line.strip()][:_JSON_LINES]
    try:
        return bool(lines) and all(isinstance(json.loads(line), dict | list) for line in lines)
    except (ValueError, RecursionError):
        return False
