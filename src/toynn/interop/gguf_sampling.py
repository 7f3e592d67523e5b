"""Sampling defaults: the keys of generation_config.json that GGUF has too, with the names that llama.cpp reads."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from toynn.interop.gguf_header import GgufValues, shortest

if TYPE_CHECKING:
    from gguf import GGUFWriter

_PREFIX = "general.sampling."
_WHOLE = ("top_k", "penalty_last_n", "mirostat")
_NUMBERS = (
    "top_p", "min_p", "xtc_probability", "xtc_threshold", "temp", "penalty_repeat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip
_SEQUENCE = "sequence"  # a key whose value is a text: the order of the samplers
_NAMES = {"temp": "temperature"}  # keys that have another name in generation_config.json


def read_sampling(values: GgufValues) -> str:
    """Return the sampling defaults in a header as the text of a generation_config.json; "" if there are none.

    Raises FileFormatError if a value has another type.
    """
    found: dict[str, Any] = {}
    for key in (*_WHOLE, *_NUMBERS, _SEQUENCE):
        if (name := _PREFIX + key) not in values:
            continue
        if key in _WHOLE:
            found[_NAMES.get(key, key)] = values.whole(name)
        elif key == _SEQUENCE:
            found[key] = values.text(name)
        elif math.isfinite(number := values.number(name)):
            found[_NAMES.get(key, key)] = shortest(number)
    return json.dumps(found) if found else ""


def write_sampling(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """Write those values of a generation_config.json that llama.cpp uses. A value of another type is left out."""
    for key in (*_WHOLE, *_NUMBERS, _SEQUENCE):
        value = config.get(_NAMES.get(key, key))
        if isinstance(value, bool):
            continue
        if key in _WHOLE and isinstance(value, int) and -(2**31) <= value < 2**31:
            writer.add_int32(_PREFIX + key, value)
        elif key in _NUMBERS and isinstance(value, (int, float)) and abs(value) < 1e30:
            writer.add_float32(_PREFIX + key, value)
        elif key == _SEQUENCE and isinstance(value, str):
            writer.add_string(_PREFIX + key, value)
