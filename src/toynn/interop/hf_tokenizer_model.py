"""Turn the tokenizer.model of a Hugging Face folder without tokenizer.json into a tokenizer.json."""

from __future__ import annotations

import base64
import re
from typing import Any

from toynn.errors import FileFormatError
from toynn.interop.bpe_json import written
from toynn.interop.gguf_numbers import TokenType
from toynn.interop.hf_settings import added_tokens_of
from toynn.interop.sentencepiece_bpe import (
    DOUBLE,
    ESCAPE,
    SPACE,
    SentencePieceBpe,
    described_sentencepiece,
    metaspace,
    sequence,
)
from toynn.interop.sentencepiece_model import BPE, SentencePieceModel, parsed_model
from toynn.text.rule_lists import flat_rules

# If remove_extra_whitespaces is set, SentencePiece removes spaces at both ends, and all but one of consecutive spaces.
# At the end of a text, it also removes the character that stands for a space.
_REMOVE_SPACES = [
    {"type": "Replace", "pattern": {"Regex": rf"\A +|[ {SPACE}]+\z"}, "content": ""},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
]


def converted_model(content: bytes, config: dict[str, Any], added: dict[str, Any], vocab: int) -> bytes:
    """Return the tokenizer.json of a tokenizer.model.

    The tokenizer.json gives each text the same ids as the sentencepiece library, and as transformers with the class
    TokenizersBackend.

    config, added: the content of tokenizer_config.json and added_tokens.json; {} if there is no such file. Special
    tokens divide a text into parts, and a space is put before each part. If `legacy` is false, a space is put only
    before the whole text. A begin token is added unless `add_bos_token` is false, and an end token is added if
    `add_eos_token` is true.

    Raises FileFormatError if the file is damaged or has a setting that the tokenizers library cannot apply.
    """
    model = parsed_model(content, vocab)
    _check_supported(model)
    symbols = [token for token, kind in zip(model.tokens, model.kinds, strict=True) if kind == TokenType.USER_DEFINED]
    lists = _lists(model, config, added, vocab)
    described = described_sentencepiece(lists, by_text=False)
    normalizers = [_described_charsmap(model.charsmap)] * bool(model.charsmap) + _REMOVE_SPACES * model.removes_spaces
    if symbols and model.prefix:
        _keep_whole(described, symbols, lists.prefix)
    if normalizers:
        described["normalizer"] = sequence("normalizers", [*normalizers, *flat_rules(described["normalizer"])])
    if not model.byte_fallback:
        described["model"]["byte_fallback"] = False
    return written(described)


def _check_supported(model: SentencePieceModel) -> None:
    """Raise FileFormatError for a setting that the tokenizers library cannot apply; the message names it."""
    if model.model_type != BPE:
        kind = {1: "unigram", 3: "word", 4: "char"}.get(model.model_type, str(model.model_type))
        raise FileFormatError(
            f"the model_type is {kind}, but toynn reads only bpe; save the tokenizer with transformers, which "
            "writes a tokenizer.json"
        )
    for name, value, only in (
        ("treat_whitespace_as_suffix", model.suffix, False),
        ("escape_whitespaces", model.escapes, True),
    ):
        if value != only:
            raise FileFormatError(f"the setting {name} is {value}, but toynn supports only {only}")
    # unlike SentencePiece, the tokenizers library maps the two characters CR LF together
    if model.charsmap and not model.removes_spaces:
        raise FileFormatError(
            "the model has a precompiled_charsmap without remove_extra_whitespaces, but toynn does not support this "
            "combination; save the tokenizer with transformers, which writes a tokenizer.json"
        )
    if TokenType.UNUSED in model.kinds:
        unused = model.tokens[model.kinds.index(TokenType.UNUSED)]
        raise FileFormatError(f"the piece {unused!r:.60} is of the type UNUSED, which toynn does not support")


def _described_charsmap(content: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode("ascii")}


def _keep_whole(described: dict[str, Any], symbols: list[str], prefix: str) -> None:
    """Make each user-defined piece of the model a token wherever it occurs in a text, without making it an added token.

    If the pieces were added tokens, they would first divide the text into parts. Then a space would be put before each
    part, and not only before the whole text.
    """
    described["added_tokens"] = [one for one in described["added_tokens"] if one["content"] not in symbols]
    pattern = "|".join(re.escape(symbol) for symbol in sorted(symbols, key=len, reverse=True))
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    described["normalizer"] = sequence("normalizers", [ESCAPE, DOUBLE] if prefix == "each" else [ESCAPE])
    scheme = "always" if prefix == "each" else "first"
    described["pre_tokenizer"] = sequence("pretokenizers", [metaspace(scheme), split])
    described["model"]["ignore_merges"] = True


def _lists(model: SentencePieceModel, config: dict[str, Any], added: dict[str, Any], vocab: int) -> SentencePieceBpe:
    """Return the pieces with the added tokens of the folder. An id without a token is unused."""
    tokens, scores, kinds = list(model.tokens), list(model.scores), list(model.kinds)
    found = _added_tokens(config, added, vocab)
    size = max([len(tokens), *(i + 1 for i in found)])
    for i in range(len(tokens), size):
        tokens.append(f"[PAD{i}]")
        scores.append(0.0)
        kinds.append(int(TokenType.UNUSED))
    for i, (text, kind) in found.items():
        if kinds[i] != TokenType.UNKNOWN:
            kinds[i] = kind
        tokens[i] = text
    around = [
        _token_around(tokens, config, "bos", adds=True, default=model.bos_id),
        _token_around(tokens, config, "eos", adds=False, default=model.eos_id),
    ]
    legacy = config.get("legacy", True)
    prefix = "none" if not model.prefix else "first" if legacy is False else "each"
    return SentencePieceBpe(tokens, scores, kinds, prefix, *around)


def _token_around(tokens: list[str], config: dict[str, Any], name: str, *, adds: bool, default: int) -> list[int]:
    """Return the id of the bos or eos token in a list, or an empty list if this token is not put around a text.

    default: the id of the token in the tokenizer.model.
    """
    wanted = config.get(f"add_{name}_token", adds)
    if not isinstance(wanted, bool):
        raise FileFormatError(f"add_{name}_token must be true or false, got {wanted!r:.60}")
    named = config.get(f"{name}_token")
    text = named.get("content") if isinstance(named, dict) else named
    if not wanted or (text is None and not 0 <= default < len(tokens)):
        return []
    if text is None:
        return [default]
    if text not in tokens:
        raise FileFormatError(f"{name}_token is {text!r:.60}, but tokenizer.model has no such token")
    return [tokens.index(text)]


def _added_tokens(config: dict[str, Any], added: dict[str, Any], vocab: int) -> dict[int, tuple[str, int]]:
    """Return the text and the type of each added token of the two files, by id."""
    found: dict[int, tuple[str, int]] = {}
    for text, i in added.items():
        if type(i) is not int or not 0 <= i < vocab:
            raise FileFormatError(
                f"the id of {text!r:.60} in added_tokens.json must be an integer from 0 to {vocab - 1}, got {i!r:.60}"
            )
        found[i] = (text, int(TokenType.USER_DEFINED))
    for key, i, one in added_tokens_of(config):
        if not 0 <= i < vocab:
            raise FileFormatError(f"a key of added_tokens_decoder must be an id from 0 to {vocab - 1}, got {key!r:.20}")
        described: dict[str, Any] = one if isinstance(one, dict) else {}
        content = described.get("content")
        if not isinstance(content, str) or not content:
            raise FileFormatError(f"added_tokens_decoder.{i} must have the text of a token, got {one!r:.60}")
        for option in ("lstrip", "rstrip", "single_word"):
            if described.get(option):
                raise FileFormatError(f"added_tokens_decoder.{i} sets {option}, which toynn does not support with a "
                                      "tokenizer.model; save the tokenizer with transformers, which writes a "
                                      "tokenizer.json")  # fmt: skip
        kind = TokenType.CONTROL if described.get("special") else TokenType.USER_DEFINED
        found[i] = (content, int(kind))
    return found
