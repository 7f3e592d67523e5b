"""Check a tokenizer.json before the tokenizers library reads it.

Some contents make the library abort the process or run without end. If a length in the file is too large, the library
tries to allocate this much memory, and aborts. If several rules make a text longer, the text may grow without a useful
limit. This module refuses such files. Contents that only make the library panic are not checked here, because a panic
becomes an exception where toynn calls the library.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from toynn.errors import FileFormatError

LARGEST_ID = (1 << 24) - 1  # the library allocates lists of all ids up to the largest id
# largest number of characters of a text or pattern in a rule; real rules have at most a few hundred
_LONGEST_RULE = 1 << 16
_MOST_RULES = 64  # largest number of rules in a part of a tokenizer; real tokenizers have at most a dozen
_MOST_GROWTH = 1 << 10  # largest factor by which rules may lengthen a text
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def check_tokenizer(content: bytes) -> None:
    """Raise FileFormatError if this tokenizer.json could make the library abort or run without end.

    Content that is not a JSON object is not refused here, because the library refuses it with its own message.
    """
    try:
        described = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(described, dict):
        check_described(described)


def check_described(described: dict[str, Any]) -> None:
    """Raise the errors of `check_tokenizer` for the parsed JSON of a tokenizer.json."""
    for part in _PARTS:
        rules: list[dict[str, Any]] = []
        _collect(described.get(part), rules)
        if len(rules) > _MOST_RULES:
            raise FileFormatError(f"the {part} must have at most {_MOST_RULES} rules, but has {len(rules)}")
        growth = 1.0
        for rule in rules:
            _check_rule(part, rule)
            growth *= _growth(rule)
        if growth > _MOST_GROWTH:
            raise FileFormatError(
                f"the {part} can make a text {growth:.3g} times as long, but the limit is {_MOST_GROWTH} times"
            )
    _check_ids(described)


def _collect(value: Any, found: list[dict[str, Any]]) -> None:
    """Add all rules of a part to `found`, also those inside sequences, in order. value: the JSON of the part."""
    if isinstance(value, list):
        for one in value:
            _collect(one, found)
    elif isinstance(value, dict):
        nested = [one for key in ("normalizers", "pretokenizers", "processors", "decoders") if (one := value.get(key))]
        if not nested:
            found.append(value)
        for one in nested:
            _collect(one, found)


def _check_rule(part: str, rule: dict[str, Any]) -> None:
    kind = rule.get("type")
    for key, value in rule.items():
        parts = [value, *value.values()] if isinstance(value, dict) and key == "pattern" else [value]
        for text in parts:
            if isinstance(text, str) and len(text) > _LONGEST_RULE and key != "precompiled_charsmap":
                raise FileFormatError(f"the {key} of the {part} {kind!s:.40} must have at most {_LONGEST_RULE} "
                                      f"characters, but has {len(text)}")  # fmt: skip
    if "precompiled_charsmap" in rule:
        _check_charsmap(rule["precompiled_charsmap"])
    if kind == "TemplateProcessing" and isinstance(pieces := rule.get("single"), list):
        texts = sum(isinstance(piece, dict) and "Sequence" in piece for piece in pieces)
        if texts != 1:
            raise FileFormatError(
                f"the template of the {part} must have exactly 1 place for a text (Sequence), but has {texts}"
            )
    if kind == "FixedLength" and rule.get("length") == 0:
        raise FileFormatError(f"the {part} FixedLength must have a length of at least 1, got 0")


def _growth(rule: dict[str, Any]) -> float:
    """Return the largest factor by which a rule can make a text longer."""
    content = rule.get("content")
    if "pattern" not in rule or not isinstance(content, str):
        return 1.0
    pattern = rule["pattern"]
    shortest = len(pattern["String"]) if isinstance(pattern, dict) and isinstance(pattern.get("String"), str) else 1
    return len(content) + 1 if shortest == 0 else max(1.0, len(content) / shortest)


def _check_ids(described: dict[str, Any]) -> None:
    model, added = described.get("model"), described.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = [i for i in vocabulary.values() if type(i) is int] if isinstance(vocabulary, dict) else []
    if isinstance(added, list):
        ids += [i for one in added if isinstance(one, dict) and type(i := one.get("id")) is int]
    if ids and max(ids) > LARGEST_ID:
        raise FileFormatError(f"the token ids must be at most {LARGEST_ID}, but the largest id is {max(ids)}")


# ---- the table of a Precompiled normalizer: u32 length of a trie in bytes, the trie, texts that end with NUL ----


def _check_charsmap(encoded: Any) -> None:
    """Raise FileFormatError if the size of the table is wrong or a position in it is out of range."""
    if not isinstance(encoded, str):
        return  # the library refuses this value with its own message
    what = "the precompiled_charsmap"
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FileFormatError(f"{what} is not base64: {error}") from None
    size = struct.unpack_from("<I", content)[0] if len(content) >= 4 else 1
    if size % 4 or size > len(content) - 4 or size == 0:
        raise FileFormatError(
            f"{what} is damaged: its table should have {size} bytes, but the whole charsmap has only "
            f"{len(content)} bytes; use an intact copy of the tokenizer"
        )
    try:
        content[4 + size :].decode("utf-8")
    except UnicodeDecodeError:
        raise FileFormatError(
            f"{what} is damaged: its texts are not UTF-8; use an intact copy of the tokenizer"
        ) from None
    _check_trie(np.frombuffer(content, "<u4", size // 4, 4).astype(np.int64), content[4 + size :], what)


def _check_trie(units: npt.NDArray[np.int64], texts: bytes, what: str) -> None:
    """Visit all nodes of the trie, a double array, and check each position that the library could read."""
    bytes_of_keys = np.arange(1, 256)
    places = _children(units, np.array([0]))
    seen = np.zeros(units.size, dtype=bool)
    while places.size:
        if (last := (places | 0xFF).max()) >= units.size:
            raise FileFormatError(
                f"{what} is damaged: it refers to entry {last} of its table, which has only {units.size} entries; use "
                "an intact copy of the tokenizer"
            )
        found = (places[:, None] ^ bytes_of_keys).ravel()
        labels = np.tile(bytes_of_keys, places.size)
        found = np.unique(found[(units[found] & 0x800000FF) == labels])
        found = found[~seen[found]]
        seen[found] = True
        leaves = found[(units[found] >> 8) & 1 == 1]
        starts = units[_children(units, leaves)] & 0x7FFFFFFF if leaves.size else np.array([], dtype=np.int64)
        if starts.size and (starts.max() >= len(texts) or not texts.endswith(b"\0")):
            raise FileFormatError(
                f"{what} is damaged: the text at byte {starts.max()} must end with a NUL character within the "
                f"{len(texts)} bytes of all texts; use an intact copy of the tokenizer"
            )
        places = np.unique(_children(units, found))


def _children(units: npt.NDArray[np.int64], nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return, for each node, the position from which the positions of its children are computed."""
    value = units[nodes]
    places: npt.NDArray[np.int64] = nodes ^ ((value >> 10) << ((value & 0x200) >> 6))
    return places
