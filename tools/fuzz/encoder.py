"""Encode calls of tinynn.h as an input of the fuzz target; decoder.c and array_calls.c decode it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from read_header import HEADER
from write_calls import calls_of, is_generated, table

_DECLARED = HEADER.read_text(encoding="utf-8")
CALLS = {call.name: call for call in calls_of(_DECLARED)}
NUMBERS = {name: number for number, name in enumerate(table(_DECLARED))}

_SMALL = 192  # a smaller integer is encoded as one byte
_WORD = 255  # the next eight bytes are the value
_TENSORS = 96  # a smaller byte selects a live handle by its position
_NO_TENSOR = 224  # this byte encodes the handle 0
_AS_MANY = 0  # this byte encodes an array that is as long as its tensor

# Styles of arrays; see floats_of and ints_of in decoder.c.
RANDOM, HYPER_PARAMETERS, COUNTING = 5, 192, 128


@dataclass(frozen=True)
class Handle:
    """A tensor that an earlier call returned. persistent: tnn_reset_for_rebuild keeps it."""

    number: int
    persistent: bool


class Program:
    """A list of calls on the first session, encoded as bytes. Each call must succeed."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._live: list[Handle] = []
        self._made = 0

    def __bytes__(self) -> bytes:
        return bytes(self._bytes)

    def call(self, name: str, *arguments: Handle | float | None) -> Handle:
        """Add a generated call. The arguments follow the session: handles (None for the handle 0), integers, floats."""
        kinds = [one.type for one in CALLS[name].arguments[CALLS[name].of_session :]]
        if not is_generated(CALLS[name]) or len(kinds) != len(arguments):
            raise ValueError(f"{name} takes {kinds}, got {arguments}")
        parts = [self._argument(kind, value) for kind, value in zip(kinds, arguments, strict=True)]
        return self.raw(name, *parts, gives=CALLS[name].result == "tnn_tensor")

    def raw(self, name: str, *parts: bytes, gives: bool = False) -> Handle:
        """Add a call whose arguments are already encoded. gives: the call returns a new tensor."""
        self._bytes += bytes([NUMBERS[name], *b"".join(parts)])
        handle = Handle(self._made, "_persistent" in name or name in ("tnn_kv_cache", "tnn_rope_freq_factors_alloc"))
        if gives:
            if len(self._live) == _TENSORS:
                raise ValueError(f"a program can have at most {_TENSORS} live tensors")
            self._live.append(handle)
            self._made += 1
        return handle

    def reset(self) -> None:
        self.raw("tnn_reset_for_rebuild")
        self._live = [one for one in self._live if one.persistent]

    def linear(
        self, x: Handle, weights: Sequence[Handle], biases: Sequence[Handle] = (), add: Handle | None = None
    ) -> Handle:
        listed = b"".join(map(self.tensor, weights)), b"".join(map(self.tensor, biases))
        extra = bytes([1]) + self.tensor(add) if add is not None else bytes([0])
        return self.raw(
            "tnn_fused_linear", self.tensor(x), bytes([len(weights)]), listed[0], bytes([1 if biases else 0]),
            listed[1], extra, gives=True,
        )  # fmt: skip

    def listed(self, name: str, tensors: Sequence[Handle], last: bytes, *, length_first: bytes = b"") -> Handle:
        """Add tnn_concat_n or tnn_fused_grad_norm.

        length_first: the dim of tnn_concat_n, which is written after the number of tensors and before the tensors.
        """
        parts = b"".join(map(self.tensor, tensors))
        return self.raw(name, bytes([len(tensors)]), length_first, parts, last, gives=True)

    def upload(self, t: Handle, style: int, *, integers: bool = False) -> None:
        name = "tnn_upload_from_int_array" if integers else "tnn_upload_from_float_array"
        self.raw(name, self.tensor(t), bytes([_AS_MANY, style]))

    def download(self, t: Handle, *, integers: bool = False) -> None:
        name = "tnn_download_to_int_array" if integers else "tnn_download"
        self.raw(name, self.tensor(t), bytes([_AS_MANY, 0]))

    def train_step(
        self, ids: Handle, targets: Handle, hp: Handle, loss: Handle, norm: Handle | None, mode: int = 0
    ) -> None:
        last = bytes([1]) + self.tensor(norm) if norm is not None else bytes([0])
        arrays = bytes([_AS_MANY, _AS_MANY, 2, 3, HYPER_PARAMETERS, mode, 0])
        self.raw("tnn_train_step", *map(self.tensor, (ids, targets, hp, loss)), last, arrays)

    def begin_step(self, ids: Handle, targets: Handle, hp: Handle, loss: Handle, accumulate: int) -> None:
        arrays = bytes([_AS_MANY, _AS_MANY, 2, 3, HYPER_PARAMETERS, accumulate])
        self.raw("tnn_begin_step", *map(self.tensor, (ids, targets, hp, loss)), bytes([0]), arrays)

    def tensor(self, t: Handle | None) -> bytes:
        return bytes([_NO_TENSOR if t is None else self._live.index(t)])

    def _argument(self, kind: str, value: Handle | float | None) -> bytes:
        if value is None or isinstance(value, Handle):
            return self.tensor(value)
        if kind == "float":
            return bytes([_WORD]) + struct.pack(">fI", value, 0)
        return integer(int(value))


def integer(value: int) -> bytes:
    return bytes([value]) if 0 <= value < _SMALL else bytes([_WORD]) + struct.pack(">q", value)
