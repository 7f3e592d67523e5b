"""The header of a GGUF file: read strictly, believing nothing.

The gguf library reads files that are taken for good: it maps them, allocates what their counts say and follows their
offsets, so a damaged one ends in an IndexError, in endless loops over 2**60 entries or in views of the wrong bytes. Its
checks cannot be added from outside, since it parses in its constructor. So the header is read here, each count and
size held against the bytes that the file really has before anything is made of it; the library's tables of types are
used as they are. The format: magic "GGUF", version, counts of tensors and values; then the values, the tensors'
descriptions, and from the next multiple of the alignment on, their data.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from toynn.errors import TinyNNValueError

MAGIC = b"GGUF"
READ_TYPES = (
    GGMLQuantizationType.F32,
    GGMLQuantizationType.F16,
    GGMLQuantizationType.BF16,
    GGMLQuantizationType.Q8_0,
)
_VERSIONS = (2, 3)  # the same layout; version 1 had 32-bit counts
_LONGEST_NAME = 65535  # bytes of a key or a tensor's name: the format's limit
_MOST_DIMENSIONS = 4  # ggml's
_LARGEST_ALIGNMENT = 1 << 20
_LEAST_VALUE = 8 + 4 + 1  # bytes of an entry: the length of its key, its type, its value
_LEAST_TENSOR = 8 + 4 + 8 + 4 + 8  # the length of its name, dimensions, one of them, its type, its offset

_SCALARS = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT64: "<f8",
    GGUFValueType.BOOL: "u1",
}


@dataclass(frozen=True)
class GgufTensor:
    """shape: row-major. offset: of its first byte in the file."""

    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    nbytes: int


class GgufValues:
    """The key-value pairs of a header, taken by key and kind.

    Each call raises TinyNNValueError for a key that is missing (and has no default) or of another kind.
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
                raise TinyNNValueError(f"it has no {key}")
            return default
        value = self._values[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds in (int, (float, int))):
            raise TinyNNValueError(f"its {key} must be {kind}, got {_described(value)}")
        return value

    def any(self, key: str) -> int | float | bool | str:
        """One value of whatever kind."""
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
            raise TinyNNValueError(f"its {key} must be an array of integers, got {_described(value)}")
        result: list[int] = value.tolist()
        return result


@dataclass(frozen=True)
class GgufHeader:
    values: GgufValues
    tensors: dict[str, GgufTensor]


def _described(value: Any) -> str:
    if isinstance(value, list):
        return f"an array of {len(value)} strings"
    if isinstance(value, np.ndarray):
        return f"an array of {value.size} {value.dtype}"
    return f"{value!r:.60}"


class _Bytes:
    """What is left of a file, and no more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.at = 0
        self.size = size

    def need(self, count: int, each: int, what: str) -> None:
        """Raises TinyNNValueError unless so many things of at least so many bytes can follow."""
        if count * each > self.size - self.at:
            raise TinyNNValueError(
                f"it ends too early or is damaged: {count} {what} cannot follow byte {self.at} of {self.size}"
            )

    def take(self, n: int, what: str) -> bytes:
        self.need(n, 1, f"bytes of {what}")
        content = self._file.read(n)
        if len(content) != n:
            raise TinyNNValueError(f"it ended while it was read: at byte {self.at + len(content)} of {self.size}")
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
            raise TinyNNValueError(f"{what} is {n} bytes long, {longest} are allowed")
        content = self.take(n, what)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise TinyNNValueError(f"{what} is not UTF-8: {content[:30]!r}") from None


def read_header(file: BinaryIO, size: int) -> GgufHeader:
    """The header of a GGUF file of `size` bytes, open for reading at its start. No tensor's data is read.

    Raises TinyNNValueError, without the file's name, for anything that is not as the format says: damage, duplicate
    names, a tensor beyond the end of the file or over another, a type that is not read.
    """
    left = _Bytes(file, size)
    if left.size < 4 or left.take(4, "its magic") != MAGIC:
        raise TinyNNValueError("it is no GGUF file: it does not begin with GGUF")
    version = left.u32("its version")
    if version not in _VERSIONS:
        if version.to_bytes(4, "little")[:2] == b"\0\0":
            raise TinyNNValueError("it is a big-endian GGUF file; toynn reads little-endian ones")
        raise TinyNNValueError(f"it is of GGUF version {version}, toynn reads {_VERSIONS[0]} and {_VERSIONS[1]}")
    n_tensors, n_values = left.u64("its tensor count"), left.u64("its value count")
    left.need(n_tensors, _LEAST_TENSOR, "tensors")
    left.need(n_values, _LEAST_VALUE, "values")
    values: dict[str, Any] = {}
    for _ in range(n_values):
        key = left.text("a key", _LONGEST_NAME)
        if key in values:
            raise TinyNNValueError(f"it has {key!r:.80} twice")
        values[key] = _value(left, key)
    found = GgufValues(values)
    alignment = found.whole("general.alignment", 32)
    if not 8 <= alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise TinyNNValueError(f"its general.alignment must be a power of two from 8 up, got {alignment}")
    tensors: dict[str, GgufTensor] = {}
    for _ in range(n_tensors):
        name = left.text("a tensor's name", _LONGEST_NAME)
        if name in tensors:
            raise TinyNNValueError(f"it has the tensor {name!r:.80} twice")
        tensors[name] = _tensor(left, name, alignment)
    return GgufHeader(found, _placed(tensors, -(-left.at // alignment) * alignment, size))


def _value(left: _Bytes, key: str) -> Any:
    kind = left.u32(f"the type of {key!r:.80}")
    if kind == GGUFValueType.STRING:
        return left.text(f"the value of {key!r:.80}")
    if kind != GGUFValueType.ARRAY:
        return _scalars(left, key, kind, 1).item()
    of, n = left.u32(f"the type of {key!r:.80}"), left.u64(f"the length of {key!r:.80}")
    if of == GGUFValueType.STRING:
        left.need(n, 8, f"strings of {key!r:.80}")
        return [left.text(f"a string of {key!r:.80}") for _ in range(n)]
    return _scalars(left, key, of, n)


def _scalars(left: _Bytes, key: str, kind: int, n: int) -> np.ndarray[Any, Any]:
    if kind not in _SCALARS:
        what = "an array of arrays" if kind == GGUFValueType.ARRAY else f"of the unknown type {kind}"
        raise TinyNNValueError(f"its {key!r:.80} is {what}")
    dtype = np.dtype(_SCALARS[GGUFValueType(kind)])
    left.need(n, dtype.itemsize, f"values of {key!r:.80}")
    array = np.frombuffer(left.take(n * dtype.itemsize, f"{key!r:.80}"), dtype)
    if kind != GGUFValueType.BOOL:
        return array
    if array.size and array.max() > 1:
        raise TinyNNValueError(f"its {key!r:.80} is neither true nor false: {int(array.max())}")
    return array.astype(np.bool_)


def _tensor(left: _Bytes, name: str, alignment: int) -> GgufTensor:
    """A tensor's description; its offset still counts from the start of the data."""
    n_dimensions = left.u32(f"the dimensions of {name!r:.80}")
    if not 1 <= n_dimensions <= _MOST_DIMENSIONS:
        raise TinyNNValueError(f"the tensor {name!r:.80} has {n_dimensions} dimensions, 1 to {_MOST_DIMENSIONS} can be")
    shape = tuple(reversed([left.u64(f"the shape of {name!r:.80}") for _ in range(n_dimensions)]))
    kind, offset = left.u32(f"the type of {name!r:.80}"), left.u64(f"the offset of {name!r:.80}")
    if kind not in [int(known) for known in READ_TYPES]:
        known = GGMLQuantizationType(kind).name if kind in list(GGMLQuantizationType) else f"type {kind}"
        raise TinyNNValueError(
            f"the tensor {name!r:.80} is {known}; toynn reads {', '.join(t.name for t in READ_TYPES)}: take the model "
            "in one of these"
        )
    if offset % alignment:
        raise TinyNNValueError(f"the tensor {name!r:.80} begins at {offset}, no multiple of the alignment {alignment}")
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    if min(shape) < 1 or shape[-1] % block:
        raise TinyNNValueError(f"the tensor {name!r:.80} of {GGMLQuantizationType(kind).name} has shape {shape}")
    return GgufTensor(shape, GGMLQuantizationType(kind), offset, math.prod(shape) // block * block_bytes)


def _placed(tensors: dict[str, GgufTensor], start: int, size: int) -> dict[str, GgufTensor]:
    """The tensors with their offsets in the file. Raises TinyNNValueError for one over the end or over another."""
    end, before = start, ""
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        offset = start + tensor.offset
        if offset < end:
            raise TinyNNValueError(f"the tensors {before!r:.80} and {name!r:.80} lie over each other")
        end, before = offset + tensor.nbytes, name
        if end > size:
            raise TinyNNValueError(
                f"it ends too early or is damaged: the tensor {name!r:.80} ends at byte {end}, the file at {size}"
            )
    return {
        name: GgufTensor(tensor.shape, tensor.type, start + tensor.offset, tensor.nbytes)
        for name, tensor in tensors.items()
    }
