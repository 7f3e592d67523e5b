"""Read the header of a GGUF file that may be damaged or hostile.

The reader of the gguf library trusts its input: it maps the file, allocates as many bytes as the counts say and follows
the offsets. A damaged file then causes an IndexError, a loop over 2**60 entries, or views of the wrong bytes. The
library parses in its constructor, so checks cannot be added from outside. Therefore this module reads the header
itself, and compares each count and size with the size of the file before it allocates anything. The format is: the
magic "GGUF", the version and the counts of tensors and values; then the values and the descriptions of the tensors;
then the data, which starts at the next multiple of the alignment.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from toynn import tinynn as nn
from toynn.errors import FileFormatError
from toynn.interop.gguf_numbers import ValueType

MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # versions 2 and 3 have the same layout, but version 1 had 32-bit counts
_LONGEST_NAME = 65535  # the largest length of a key or a tensor name in bytes, as the format defines it
_MOST_DIMENSIONS = 4  # the largest number of dimensions in ggml
_LARGEST_ALIGNMENT = 1 << 20
_LEAST_VALUE = 8 + 4 + 1  # number of bytes of the smallest key-value pair: length of the key, type, value
# Bytes of the smallest description of a tensor: length of the name, number of dimensions, one dimension, type, offset.
_LEAST_TENSOR = 8 + 4 + 8 + 4 + 8

_BLOCK = 1 << 20  # number of bytes that are read at once
_LENGTH = struct.Struct("<Q").unpack_from  # reads the length of a string; faster than a slice and int.from_bytes

_SCALARS = {
    ValueType.UINT8: "<u1",
    ValueType.INT8: "<i1",
    ValueType.UINT16: "<u2",
    ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
    ValueType.UINT64: "<u8",
    ValueType.INT64: "<i8",
    ValueType.FLOAT64: "<f8",
    ValueType.BOOL: "u1",
}


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a GGUF file.

    shape: row-major.
    type: ggml's number of the type.
    offset: position of the tensor's first byte in the file.
    part: number of the file in a split model, from 0.
    """

    shape: tuple[int, ...]
    type: int
    offset: int
    nbytes: int
    part: int = 0


class GgufValues:
    """The key-value pairs of a header. Each method reads a key whose value must have a certain type.

    Each method raises FileFormatError if the value has another type, or if the key is missing and there is no default.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> list[str]:
        return list(self._values)

    def _take(self, key: str, kinds: type | tuple[type, ...], kind: str, default: Any) -> Any:
        if key not in self._values:
            if default is None:
                raise FileFormatError(f"the key {key} is missing")
            return default
        value = self._values[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds in (int, (float, int))):
            raise FileFormatError(f"{key} must be {kind}, got {_described(value)}")
        return value

    def any(self, key: str) -> int | float | bool | str:
        """Return a single value of any type."""
        value: int | float | bool | str = self._take(key, (int, float, bool, str), "one value", None)
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value: int = self._take(key, int, "one integer", default)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return float(self._take(key, (float, int), "one number", default))

    def flag(self, key: str, default: bool | None = None) -> bool:
        value: bool = self._take(key, bool, "true or false", default)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value: str = self._take(key, str, "a string", default)
        return value

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        value: list[str] = self._take(key, list, "an array of strings", default)
        return value

    def wholes(self, key: str) -> list[int]:
        value = self._take(key, np.ndarray, "an array of integers", None)
        if value.dtype.kind not in "iu":
            raise FileFormatError(f"{key} must be an array of integers, got {_described(value)}")
        result: list[int] = value.tolist()
        return result

    def numbers(self, key: str) -> list[float]:
        value = self._take(key, np.ndarray, "an array of numbers", None)
        if value.dtype.kind not in "iuf":
            raise FileFormatError(f"{key} must be an array of numbers, got {_described(value)}")
        result: list[float] = value.astype(np.float64).tolist()
        return result


def shortest(number: float) -> float:
    """Return the shortest decimal number that rounds to the same float32: 1e-05 for 9.99999974737875e-06."""
    return float(str(np.float32(number)))


@dataclass(frozen=True)
class GgufHeader:
    """The parsed header: key-value pairs, and the tensors by name."""

    values: GgufValues
    tensors: dict[str, GgufTensor]


def _described(value: Any) -> str:
    if isinstance(value, list):
        return f"an array of {len(value)} strings"
    if isinstance(value, np.ndarray):
        return f"an array of {value.size} {value.dtype}"
    return f"{value!r:.60}"


class _Bytes:
    """The part of a file that was not read yet. No read goes beyond the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.at = 0
        self.size = size

    def need(self, count: int, each: int, what: str) -> None:
        """Raise FileFormatError unless `count` items of at least `each` bytes fit into the rest of the file."""
        if count * each > self.size - self.at:
            raise FileFormatError(
                f"the file is cut off or damaged: {count} {what} do not fit after byte {self.at} of {self.size}; use "
                "an intact copy of the file"
            )

    def take(self, n: int, what: str) -> bytes:
        self.need(n, 1, f"bytes of {what}")
        content = self._file.read(n)
        if len(content) != n:
            raise FileFormatError(
                f"the file became shorter while it was read: it has {self.at + len(content)} instead of {self.size} "
                "bytes; try again"
            )
        self.at += n
        return content

    def u32(self, what: str) -> int:
        value: int = struct.unpack("<I", self.take(4, what))[0]
        return value

    def u64(self, what: str) -> int:
        value: int = struct.unpack("<Q", self.take(8, what))[0]
        return value

    def text(self, what: str, longest: int | None = None) -> str:
        n = self.u64(what)
        if longest is not None and n > longest:
            raise FileFormatError(f"{what} is {n} bytes long, but the limit is {longest}")
        content = self.take(n, what)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise FileFormatError(f"{what} is not valid UTF-8: {content[:30]!r}") from None

    def texts(self, n: int, what: str) -> list[str]:
        """Return the next n strings. Whole blocks of the file are read, because a tokenizer has many short strings."""
        found: list[str] = []
        while len(found) < n:
            parts = _strings_in(self._file.read(min(_BLOCK, self.size - self.at)), n - len(found))
            texts = _decoded(parts)
            found += texts
            self.at += sum(map(len, parts[: len(texts)])) + 8 * len(texts)
            self._file.seek(self.at)
            if not texts:  # the next string is damaged, or longer than a block
                found.append(self.text(what))
        return found


def _strings_in(block: bytes, most: int) -> list[bytes]:
    """Return the strings of a block, at most `most`. A string that does not end in the block is left out."""
    found: list[bytes] = []
    at, end = 0, len(block)
    while len(found) < most and at + 8 <= end:
        at += 8
        stop = at + _LENGTH(block, at - 8)[0]
        if stop > end:
            break
        found.append(block[at:stop])
        at = stop
    return found


def _decoded(parts: list[bytes]) -> list[str]:
    """Return the texts of UTF-8 strings, up to the first string that is not valid."""
    try:
        text = b"\0".join(parts).decode("utf-8")  # decoding all strings in one call is faster
        if parts and text.count("\0") == len(parts) - 1:
            return text.split("\0")
    except UnicodeDecodeError:
        pass
    return [text for text in itertools.takewhile(lambda text: text is not None, map(_text, parts)) if text is not None]


def _text(part: bytes) -> str | None:
    """Return the text of a UTF-8 string, or None if the string is not valid."""
    try:
        return part.decode("utf-8")
    except UnicodeDecodeError:
        return None


def read_header(file: BinaryIO, size: int, part: int = 0) -> GgufHeader:
    """Return the header of an open GGUF file of `size` bytes. The file is read from its start, without tensor data.

    Raises FileFormatError (without the name of the file) if the file violates the format: it is damaged, a name occurs
    twice, or tensors overlap or lie beyond the end of the file. Also raises FileFormatError for a type of tensor that
    ggml cannot convert.
    """
    left = _Bytes(file, size)
    if left.size < 4 or left.take(4, "the magic") != MAGIC:
        raise FileFormatError("this is not a GGUF file, because it does not begin with GGUF")
    version = left.u32("the version")
    if version not in _VERSIONS:
        if version.to_bytes(4, "little")[:2] == b"\0\0":
            raise FileFormatError("the file is big-endian GGUF, but toynn reads only little-endian files")
        raise FileFormatError(f"the GGUF version is {version}, but toynn reads only {_VERSIONS[0]} and {_VERSIONS[1]}")
    n_tensors, n_values = left.u64("the tensor count"), left.u64("the value count")
    left.need(n_tensors, _LEAST_TENSOR, "tensors")
    left.need(n_values, _LEAST_VALUE, "values")
    values: dict[str, Any] = {}
    for _ in range(n_values):
        key = left.text("a key", _LONGEST_NAME)
        if key in values:
            raise FileFormatError(f"the key {key!r:.80} occurs twice, but must occur only once")
        values[key] = _value(left, key)
    found = GgufValues(values)
    alignment = found.whole("general.alignment", 32)
    if not 8 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise FileFormatError(f"general.alignment must be a power of two from 8 to 2^20, got {alignment}")
    tensors: dict[str, GgufTensor] = {}
    for _ in range(n_tensors):
        name = left.text("a tensor name", _LONGEST_NAME)
        if name in tensors:
            raise FileFormatError(f"the tensor {name!r:.80} occurs twice, but must occur only once")
        tensors[name] = _tensor(left, name, alignment, part)
    return GgufHeader(found, _placed(tensors, -(-left.at // alignment) * alignment, size))


def _value(left: _Bytes, key: str) -> Any:
    kind = left.u32(f"the type of {key!r:.80}")
    if kind == ValueType.STRING:
        return left.text(f"the value of {key!r:.80}")
    if kind != ValueType.ARRAY:
        return _scalars(left, key, kind, 1).item()
    of, n = left.u32(f"the type of {key!r:.80}"), left.u64(f"the length of {key!r:.80}")
    if of == ValueType.STRING:
        left.need(n, 8, f"strings of {key!r:.80}")
        return left.texts(n, f"a string of {key!r:.80}")
    return _scalars(left, key, of, n)


def _scalars(left: _Bytes, key: str, kind: int, n: int) -> np.ndarray[Any, Any]:
    if kind not in _SCALARS:
        what = "is an array of arrays" if kind == ValueType.ARRAY else f"has the unknown type {kind}"
        raise FileFormatError(
            f"the key {key!r:.80} {what}, but a value must be a number, a boolean, a string or a flat array of these"
        )
    dtype = np.dtype(_SCALARS[ValueType(kind)])
    left.need(n, dtype.itemsize, f"values of {key!r:.80}")
    array = np.frombuffer(left.take(n * dtype.itemsize, f"{key!r:.80}"), dtype)
    if kind != ValueType.BOOL:
        return array
    if array.size and array.max() > 1:
        raise FileFormatError(f"the boolean {key!r:.80} must be 0 or 1, got {int(array.max())}")
    return array.astype(np.bool_)


def _tensor(left: _Bytes, name: str, alignment: int, part: int) -> GgufTensor:
    """Return the description of a tensor. Its offset is relative to the start of the data, not of the file."""
    n_dimensions = left.u32(f"the number of dimensions of {name!r:.80}")
    if not 1 <= n_dimensions <= _MOST_DIMENSIONS:
        raise FileFormatError(
            f"the tensor {name!r:.80} has {n_dimensions} dimensions, but 1 to {_MOST_DIMENSIONS} are allowed"
        )
    shape = tuple(reversed([left.u64(f"the shape of {name!r:.80}") for _ in range(n_dimensions)]))
    kind, offset = left.u32(f"the type of {name!r:.80}"), left.u64(f"the offset of {name!r:.80}")
    type_name = nn.tnn_type_name(kind) if kind < 2**31 else None
    if type_name is None:
        from gguf import GGMLQuantizationType  # importing the library takes long, and only this message needs it

        known = GGMLQuantizationType(kind).name if kind in list(GGMLQuantizationType) else str(kind)
        raise FileFormatError(
            f"the tensor {name!r:.80} has type {known}, which ggml cannot convert to f32; convert the model to F32, "
            "F16, BF16 or a quantized type"
        )
    if offset % alignment:
        raise FileFormatError(
            f"the tensor {name!r:.80} has offset {offset}, which is not a multiple of the alignment {alignment}"
        )
    block, block_bytes = nn.tnn_type_block_size(kind), nn.tnn_type_block_nbytes(kind)
    if min(shape) < 1 or shape[-1] % block:
        raise FileFormatError(
            f"the tensor {name!r:.80} has shape {shape}: all sizes must be at least 1, and the last size must be a "
            f"multiple of {block} for the type {type_name}"
        )
    return GgufTensor(shape, kind, offset, math.prod(shape) // block * block_bytes, part)


def _placed(tensors: dict[str, GgufTensor], start: int, size: int) -> dict[str, GgufTensor]:
    """Return the tensors with offsets from the start of the file.

    Raises FileFormatError if a tensor overlaps another or lies beyond the end of the file.
    """
    end, before = start, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        offset = start + tensor.offset
        if offset < end:
            raise FileFormatError(
                f"the file is damaged: the tensors {before!r:.80} and {name!r:.80} overlap; use an intact copy of the "
                "file"
            )
        end, before = offset + tensor.nbytes, name
        if end > size:
            raise FileFormatError(
                f"the file is cut off or damaged: the tensor {name!r:.80} ends at byte {end}, but the file has {size} "
                "bytes; use an intact copy of the file"
            )
    return {name: dataclasses.replace(tensor, offset=start + tensor.offset) for name, tensor in tensors.items()}


def is_adapter(values: GgufValues) -> bool:
    """Return whether a file with these keys is an adapter instead of a model."""
    return values.text("general.type", "model") == "adapter"
