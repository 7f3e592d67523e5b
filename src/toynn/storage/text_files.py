"""Read text files in UTF-8, as a whole or in parts. A leading byte-order mark is removed.

toynn reads every text with this module. So it refuses a compressed file, or a file in another encoding, with the same
message everywhere.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from toynn.errors import FileFormatError
from toynn.storage.regular_files import open_regular, read_regular

BYTE_ORDER_MARK = "\ufeff"
_READ = 1 << 20  # bytes
# A file with many NUL bytes counts as UTF-16 or UTF-32 without a byte-order mark. At least _FEWEST_NULS bytes, and at
# least the share _LEAST_SHARE of all bytes, must be NUL. At least the share _AT_THEIR_PLACE of the NUL bytes must be at
# the same positions within the 2 or 4 bytes of a character.
_FEWEST_NULS, _LEAST_SHARE, _AT_THEIR_PLACE = 16, 0.01, 0.99

_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
# The first bytes of files that users often take for text files, with the reason and the remedy in the message.
_STARTS = (
    (b"\xff\xfe\0\0", "it is UTF-32: save it as UTF-8"),
    (b"\0\0\xfe\xff", "it is UTF-32: save it as UTF-8"),
    (b"\xff\xfe", "it is UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16: save it as UTF-8"),
    (b"\x1f\x8b", "it is a gzip file: unpack it first"),
    (b"BZh", "it is a bzip2 file: unpack it first"),
    (b"\xfd7zXZ\0", "it is an xz file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is a Zstandard file: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7z archive: unpack it first"),
    (b"PK\x03\x04", "it is a zip archive, or a document stored as one: unpack it, or save it as plain text in UTF-8"),
    (b"PAR1", "it is a Parquet file: write its texts to a UTF-8 file"),
    (b"%PDF-", "it is a PDF file: save it as plain text in UTF-8"),
)
_START = max(len(start) for start, _ in _STARTS)


def read_text(path: Path, largest: int | None = None) -> str:
    """Return the text of a file, without a leading byte-order mark.

    Raises FileFormatError for a file that is not UTF-8, not regular, or larger than `largest` bytes, or OSError if the
    file cannot be read.
    """
    return decoded(read_regular(path, largest), str(path))


def decoded(content: bytes, name: str) -> str:
    """Decode UTF-8 and remove a leading byte-order mark. name: the origin of the content, for messages.

    Raises FileFormatError if the content is not UTF-8, with the reason.
    """
    _refuse_wide_characters(content[:_READ], name)
    try:
        return content.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise _not_utf8(error, name, 0, content) from None


def text_parts(path: Path) -> Iterator[str]:
    """Yield the text of a file in parts of about one megabyte, without a leading byte-order mark.

    Raises the errors of `read_text`. The parts before the wrong byte are yielded first.
    """
    with open_regular(path) as file:
        yield from decoded_parts(iter(lambda: file.read(_READ), b""), str(path))


def decoded_parts(parts: Iterable[bytes], name: str) -> Iterator[str]:
    """Decode UTF-8 and remove a leading byte-order mark. parts: the content of a file, in parts that are not empty.

    name: the name of the file in messages. Raises FileFormatError if the content is not UTF-8, with the reason.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, start = 0, b""
    for chunk in itertools.chain(parts, [b""]):
        if at == 0:
            start = chunk[:_START]
            _refuse_wide_characters(chunk, name)
        try:
            part = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise _not_utf8(error, name, at - (len(error.object) - len(chunk)), start) from None
        if part:
            yield part.removeprefix(BYTE_ORDER_MARK) if at == 0 else part
        at += len(chunk)


def _not_utf8(error: UnicodeDecodeError, name: str, at: int, content: bytes) -> FileFormatError:
    """Return the exception for a file that is not UTF-8.

    error: the error that decoding a part of the file raised. at: the position of this part in the file. content: the
        start of the file.
    """
    byte = error.object[error.start]
    hints = (hint for start, hint in _STARTS if content.startswith(start))
    return FileFormatError(
        f"{name} is not UTF-8: byte {at + error.start} is {byte:#04x}; {next(hints, 'save it as UTF-8')}"
    )


def _refuse_wide_characters(head: bytes, name: str) -> None:
    """Raise FileFormatError for UTF-16 and UTF-32 without a byte-order mark. Such text can be valid UTF-8 with NULs."""
    if head.startswith(_WIDE_MARKS):
        return  # decoding fails at this byte-order mark, with a message that names the encoding
    for width, what in ((4, "UTF-32"), (2, "UTF-16")):
        if _has_wide_characters(head, width):
            raise FileFormatError(
                f"{name} is not UTF-8: {head.count(0)} of its first {len(head)} bytes are NUL, as in {what} without a "
                "byte-order mark; save it as UTF-8"
            )


def _has_wide_characters(head: bytes, width: int) -> bool:
    """Return whether the NUL bytes show a text with `width` bytes per character, most of them Latin letters.

    In UTF-16 nearly all NULs are at even positions, or nearly all at odd positions. In UTF-32 the two upper bytes of
    each character are NUL, and the lowest byte is not.
    """
    nuls = [head[place::width].count(0) for place in range(width)]
    in_all = sum(nuls)
    if in_all < max(_FEWEST_NULS, _LEAST_SHARE * len(head)):
        return False
    if width == 2:
        return max(nuls) >= _AT_THEIR_PLACE * in_all
    per_place = len(head) / 4
    upper = min(nuls[2:]) if nuls[0] < nuls[3] else min(nuls[:2])
    return upper >= _AT_THEIR_PLACE * per_place and min(nuls) <= (1 - _AT_THEIR_PLACE) * per_place
