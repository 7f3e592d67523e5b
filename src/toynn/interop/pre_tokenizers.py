"""The pre-tokenizers that have a name in llama.cpp: how tokenizer.json describes each.

A GGUF file carries only the name; llama.cpp has the rules in its own code. So a tokenizer leaves only if its rules are
those of a name, to the letter, and comes back with the rules of its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toynn.errors import TinyNNValueError

# What the fields are is of no consequence to ids: offsets are not used.
_NO_MATTER = ("trim_offsets",)


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split_first(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False)]}


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    """rules: tokenizer.json's "pre_tokenizer". ignore_merges: a word that is a token is taken without merging.
    normalizer: tokenizer.json's, where the family has one (llama.cpp applies none)."""

    rules: dict[str, Any]
    ignore_merges: bool = False
    normalizer: dict[str, Any] | None = None


PRE_TOKENIZERS = {
    # GPT-2's own regex: what `toynn prepare` makes.
    "gpt-2": PreTokenizer(_byte_level(True)),
    # SmolLM and SmolLM2: digits one by one, then GPT-2's.
    "smollm": PreTokenizer(
        {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)]}
    ),
    # Llama 3: digits in threes.
    "llama-bpe": PreTokenizer(
        _split_first(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"),
        ignore_merges=True,
    ),
    # Qwen 2: Llama 3's with digits one by one, and a normalizer.
    "qwen2": PreTokenizer(_split_first(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"), normalizer={"type": "NFC"}),
}

_OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm", "refact": "smollm"}


def by_name(name: str) -> PreTokenizer:
    """What llama.cpp calls so. Raises TinyNNValueError for a name that is none of ours."""
    known = PRE_TOKENIZERS.get(_OTHER_NAMES.get(name, name))
    if known is None:
        raise TinyNNValueError(
            f"its pre-tokenizer is {name!r:.60}, toynn knows {', '.join(PRE_TOKENIZERS)}; "
            "import the model's Hugging Face folder instead, which carries the rules themselves"
        )
    return known


def name_of(rules: Any, ignore_merges: bool, normalizer: Any) -> str:
    """llama.cpp's name of a tokenizer.json's rules. Raises TinyNNValueError where it has none."""
    wanted = _what_matters(rules)
    for name, known in PRE_TOKENIZERS.items():
        if _what_matters(known.rules) != wanted:
            continue
        if known.ignore_merges != ignore_merges:
            raise TinyNNValueError(
                f"its pre-tokenizer is that of {name!r}, for which llama.cpp takes ignore_merges to be "
                f"{known.ignore_merges}, but the tokenizer has {ignore_merges}"
            )
        if normalizer not in (None, known.normalizer):
            raise TinyNNValueError(
                f"it has a normalizer ({_kind(normalizer)}), and llama.cpp applies none; remove it and train anew"
            )
        return name
    raise TinyNNValueError(
        f"its pre-tokenizer ({_kind(rules)}) is none that llama.cpp has a name for: {', '.join(PRE_TOKENIZERS)}; "
        "export a Hugging Face folder instead, which carries the rules themselves"
    )


def _what_matters(rules: Any) -> Any:
    if isinstance(rules, dict):
        return {key: _what_matters(value) for key, value in rules.items() if key not in _NO_MATTER}
    if isinstance(rules, list):
        return [_what_matters(value) for value in rules]
    return rules


def _kind(rules: Any) -> str:
    if rules is None:
        return "none at all"
    parts = rules.get("pretokenizers") or rules.get("normalizers")
    if parts:
        return f"{rules.get('type')} of {', '.join(str(part.get('type')) for part in parts)}"
    return str(rules.get("type"))
