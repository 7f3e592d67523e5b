"""The pre-tokenizers that llama.cpp knows by name, as tokenizer.json describes them.

A GGUF file contains only the name of a pre-tokenizer, and the code of llama.cpp contains its rules. So a tokenizer can
be exported only if its rules are exactly those of a known name, and an import creates the rules from the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toynn.errors import FileFormatError, TinyNNValueError

# Fields that do not affect token ids: they change only the offsets of tokens, which are not used.
_IGNORED = ("trim_offsets",)


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(*patterns: str) -> dict[str, Any]:
    """Return rules that split a text at each match of the first pattern, then the parts at the second, and so on."""
    splits = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
              for pattern in patterns]  # fmt: skip
    return {"type": "Sequence", "pretokenizers": [*splits, _byte_level(False)]}


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_PUNCTUATED = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
DEFAULT = "default"  # the name that llama.cpp uses if the file has none


@dataclass(frozen=True)
class PreTokenizer:
    """The rules that belong to a name.

    rules: the value of "pre_tokenizer" in tokenizer.json.
    ignore_merges: if a word is a token itself, no merges are applied.
    normalizer: the value of "normalizer" in tokenizer.json, or None. llama.cpp never applies a normalizer.
    adds_bos: True if llama.cpp begins a prompt with the bos token when the file does not say whether to do so.
    """

    rules: dict[str, Any]
    ignore_merges: bool = False
    normalizer: dict[str, Any] | None = None
    adds_bos: bool = False


PRE_TOKENIZERS = {
    # The regular expression of GPT-2. Tokenizers that `toynn prepare` learns have it too.
    "gpt-2": PreTokenizer(_byte_level(True)),
    # SmolLM and SmolLM2: digits are split one by one, then the rules of GPT-2 apply.
    "smollm": PreTokenizer(
        {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)]}
    ),
    # Llama 3: digits are split into groups of up to three.
    "llama-bpe": PreTokenizer(
        _split(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"),
        ignore_merges=True,
        adds_bos=True,
    ),
    # DBRX and Smaug: the rules of Llama 3, but merges are applied even to a word that is a token.
    "dbrx": PreTokenizer(_split(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}")),
    # Qwen 2 and 3: the rules of Llama 3, but digits are split one by one and there is a normalizer.
    "qwen2": PreTokenizer(_split(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}"), normalizer={"type": "NFC"}),
    # Tekken of Mistral: a capital letter begins a new word.
    "tekken": PreTokenizer(
        _split(
            rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
        ),
        ignore_merges=True,
        adds_bos=True,
    ),
    "deepseek-v3": PreTokenizer(
        _split(
            r"\p{N}{1,3}",
            _CJK,
            rf"{_PUNCTUATED}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
        )
    ),
    # The rules that llama.cpp uses for a file without the name of a pre-tokenizer, such as a file written before May
    # 2024.
    DEFAULT: PreTokenizer(_split(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}

# Names for other models whose rules and begin token are those of a pre-tokenizer above.
_OTHER_NAMES = {
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), "llama-bpe"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "smollm"),
    **dict.fromkeys(("phi-2", "mpt", "olmo", "jais", "exaone4", "trillion"), "gpt-2"),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan"), "qwen2"),
    **dict.fromkeys(("smaug-bpe", "chatglm-bpe", "glm4"), "dbrx"),
}


def by_name(name: str) -> PreTokenizer:
    """Return the pre-tokenizer with this name in llama.cpp. Raises FileFormatError for an unknown name."""
    known = PRE_TOKENIZERS.get(_OTHER_NAMES.get(name, name))
    if known is None:
        raise FileFormatError(
            f"the pre-tokenizer {name!r:.60} is unknown to toynn, which supports {', '.join(PRE_TOKENIZERS)}; import "
            "the Hugging Face folder of the model instead, which contains the rules themselves"
        )
    return known


def adds_bos(name: str) -> bool:
    """Return whether llama.cpp begins a prompt with the bos token if the file has no tokenizer.ggml.add_bos_token."""
    known = PRE_TOKENIZERS.get(_OTHER_NAMES.get(name, name))
    return known is not None and known.adds_bos


def name_of(rules: Any, ignore_merges: bool, normalizer: Any) -> str:
    """Return the name of the rules in llama.cpp. Raises TinyNNValueError if llama.cpp has no name for them."""
    wanted = _without_ignored(rules)
    same = {name: known for name, known in PRE_TOKENIZERS.items() if _without_ignored(known.rules) == wanted}
    for name, known in same.items():
        if known.ignore_merges != ignore_merges and len(same) == 1:
            raise TinyNNValueError(
                f"the tokenizer's pre-tokenizer is {name!r}, for which llama.cpp uses ignore_merges = "
                f"{known.ignore_merges}, but the tokenizer has ignore_merges = {ignore_merges}; export a Hugging Face "
                "folder instead"
            )
        if known.ignore_merges != ignore_merges:
            continue
        if normalizer not in (None, known.normalizer):
            raise TinyNNValueError(
                f"the tokenizer has a normalizer ({_kind(normalizer)}), but llama.cpp does not apply a normalizer; "
                "train a tokenizer without a normalizer"
            )
        return name
    raise TinyNNValueError(
        f"the tokenizer's pre-tokenizer ({_kind(rules)}) has no name in llama.cpp (toynn knows "
        f"{', '.join(PRE_TOKENIZERS)}); "
        "export a Hugging Face folder instead, which contains the rules themselves"
    )


def _without_ignored(rules: Any) -> Any:
    if isinstance(rules, dict):
        return {key: _without_ignored(value) for key, value in rules.items() if key not in _IGNORED}
    if isinstance(rules, list):
        return [_without_ignored(value) for value in rules]
    return rules


def _kind(rules: Any) -> str:
    if rules is None:
        return "none"
    parts = rules.get("pretokenizers") or rules.get("normalizers")
    if parts:
        return f"{rules.get('type')} of {', '.join(str(part.get('type')) for part in parts)}"
    return str(rules.get("type"))
