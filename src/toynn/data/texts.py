"""Read texts before they are encoded, to count their documents and to find possible mistakes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toynn.data.sources.compressed import parts_of_file
from toynn.errors import TinyNNValueError
from toynn.storage.text_files import decoded_parts
from toynn.text.documents import KNOWN_MARKERS, PIECE, Piece, marker_lines, other_markers, pieces, refuse_other_markers

_JSON_LINES = 5  # number of first lines of a file; if all are JSON, the file counts as JSON lines
_LONGEST_JSON = 1 << 20  # characters


@dataclass
class Texts:
    """Text files, and the facts that `survey` found about them.

    separators: the lines that separate documents.
    called: the name of the texts in messages; None for their paths.
    documents: the number of documents.
    document_ends: for each file, the number of documents in this file and in all files before it.
    text_bytes: the size of all documents in UTF-8, without separator lines.
    markers: for each known separator and eos, the number of lines in the documents that are equal to it.
    inside: for each separator and eos, the number of times that it occurs inside a longer line.
    nuls: the number of NUL characters.
    json_lines: the files that contain JSON lines.
    """

    paths: Sequence[Path]
    separators: Sequence[str]
    called: str | None = None
    documents: int = 0
    document_ends: list[int] = field(default_factory=list)
    text_bytes: int = 0
    markers: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    nuls: int = 0
    json_lines: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the texts in messages: the path of the first file, and how many other files there are."""
        if self.called is not None:
            return self.called
        others = len(self.paths) - 1
        return f"{self.paths[0]} and {others} other texts" if others else str(self.paths[0])

    def pieces(self, size: int = PIECE) -> Iterator[Piece]:
        """Read the texts and yield their documents in pieces: see `toynn.text.documents.pieces`."""
        return pieces((decoded_parts(parts_of_file(path), str(path)) for path in self.paths), self.separators, size)


def survey(paths: Sequence[Path], separators: Sequence[str], eos: str, name: str | None = None) -> Texts:
    """Read the texts once and return what they contain.

    separators: the lines that separate documents. eos: the text of the end token, which is searched for in the texts.
    name: the name of the texts in messages; None: their paths.

    Raises TinyNNValueError if there is no text; FileFormatError if a file is not UTF-8; or OSError if a file cannot be
    read.
    """
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
        found.document_ends.append(found.documents)
    if found.text_bytes == 0:
        raise TinyNNValueError("texts: the files contain no text; give files with text")
    return found


def notes_on(texts: Texts, eos: str, tokens: Collection[str], *, chosen: bool) -> list[str]:
    """Return a sentence about each possible mistake in the texts.

    tokens: the special tokens of the tokenizer.
    chosen: true if the user chose the separator.

    Raises TinyNNValueError if chosen is false and the texts have lines of a known separator that is not used here.
    """
    if not chosen:
        refuse_other_markers(texts.markers, texts.separators, tokens, texts.name)
    notes = []
    other = other_markers(texts.markers, texts.separators, tokens)
    for marker, n in texts.markers.items():
        means = "as ordinary text" if marker in other else "as the token of this name"
        separator = " or ".join(map(repr, texts.separators))
        why = f"the separator is {separator}" if separator else "no separator is set"
        notes.append(f"{texts.name} has {_times(n, 'line')} {marker!r}, encoded {means}, because {why}")
    for marker, n in texts.inside.items():
        if n > 0:
            means = "as the end of a document" if marker == eos else "as ordinary text"
            notes.append(
                f"{texts.name} has {marker!r} inside lines, {_times(n, 'time')}: it does not separate documents there, "
                f"and is encoded {means}; a separator must be alone on its line"
            )
    if texts.nuls:
        notes.append(f"{texts.name} has {_times(texts.nuls, 'NUL character')}; remove them if they are not intended")
    notes += [
        f"{path} contains JSON lines, so the model would learn braces and keys as text; "
        "to read JSON objects as samples, leave out the format 'plain'"
        for path in texts.json_lines
    ]
    return notes


def _times(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _is_json_lines(text: str) -> bool:
    """Return whether each of the first lines of a text is a JSON object or array."""
    lines = [line for line in text[:_LONGEST_JSON].splitlines() if line.strip()][:_JSON_LINES]
    try:
        return bool(lines) and all(isinstance(json.loads(line), dict | list) for line in lines)
    except (ValueError, RecursionError):
        return False
