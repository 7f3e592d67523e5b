"""Parse JSON and refuse what other programs could read in another way: duplicate keys, NaN, and deep nesting."""

from __future__ import annotations

import json
import re
from typing import Any

from toynn.errors import TinyNNValueError

_DEEPEST = 100  # largest number of lists and objects inside each other
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def parsed(content: bytes) -> Any:
    """Return the value of a JSON text in UTF-8. Raises TinyNNValueError, whose message says what is wrong."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TinyNNValueError(f"byte {error.start} is {content[error.start]:#04x}, which is not UTF-8") from None
    if text.count("[") + text.count("{") > _DEEPEST:
        _check_depth(text)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise TinyNNValueError(f"the text is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None
    except TinyNNValueError:
        raise
    except ValueError as error:  # the text contains an integer with too many digits
        raise TinyNNValueError(f"toynn cannot read this JSON: {' '.join(str(error).split()):.100}") from None


def _check_depth(text: str) -> None:
    depth = 0
    for part in _PARTS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part[0], 0)
        if depth > _DEEPEST:
            raise _too_deep()


def _too_deep() -> TinyNNValueError:
    return TinyNNValueError(f"lists and objects are nested more than {_DEEPEST} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise TinyNNValueError(f"the key {twice!r:.60} occurs more than once in an object")
    return found


def _refused(constant: str) -> None:
    raise TinyNNValueError(f"{constant} is not a JSON number; use a finite number or null")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refused)
