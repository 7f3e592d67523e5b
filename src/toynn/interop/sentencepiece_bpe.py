"""Convert a SentencePiece BPE tokenizer between tokenizer.json and the lists that a GGUF file contains."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.bpe_json import described_bpe, written
from toynn.interop.gguf_numbers import TokenType
from toynn.interop.sentencepiece_merges import LONGEST_PIECE, merges_by_score, scores_of
from toynn.interop.token_lists import added_token, by_id, unique_ids
from toynn.text.rule_lists import flat_rules
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import parsed_tokenizer

SPACE = "\u2581"  # SentencePiece writes a space as this character
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))

# ---- the rules that put a space before a text ----

ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}
DOUBLE = {"type": "Replace", "pattern": {"Regex": rf"\A{SPACE}"}, "content": SPACE * 2}
_AFTER_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def metaspace(scheme: str) -> dict[str, Any]:
    """Return the pre-tokenizer, as in tokenizer.json, that puts a space before a text.

    scheme: the value of prepend_scheme.
    """
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}


# The places where a space is put: "each" part of the text between special tokens, as llama.cpp and SentencePiece do;
# "first" only at the start of the text; "always" before each part that does not begin with a space; "none" nowhere.
_RULES: dict[str, tuple[list[Any], list[Any]]] = {
    "each": ([_PREPEND, ESCAPE], []),
    "first": ([], [metaspace("first")]),
    "always": ([], [metaspace("always")]),
    "none": ([ESCAPE], []),
}
PREFIXES = tuple(_RULES)
# llama.cpp treats these texts as special tokens, whatever type they have in the file.
_ENDS: frozenset[str] = frozenset(
    (
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
        "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
        "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "[e~[",
    )
)  # fmt: skip
_ADDED = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
# Other forms of the same rules, which transformers writes.
_OTHER_RULES: list[tuple[str, list[Any], list[Any]]] = [
    ("each", [ESCAPE, DOUBLE], [metaspace("always")]),
    ("first", [ESCAPE], [metaspace("first")]),
    ("always", [ESCAPE], [metaspace("always")]),
    ("none", [ESCAPE], [_AFTER_SPACES]),
    ("none", [ESCAPE], [metaspace("never")]),
    ("none", [], [metaspace("never")]),
]
_UNESCAPE = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


@dataclass(frozen=True)
class SentencePieceBpe:
    """A SentencePiece BPE tokenizer in the form of a GGUF file.

    tokens, scores, kinds: the text, the score and the TokenType of each token, by id.
    prefix: where a space is put before a text, one of PREFIXES.
    before, after: the tokens that the tokenizer puts before and after a text.
    normalized: the ids of the added tokens that are searched for in normalized text.
    """

    tokens: list[str]
    scores: list[float]
    kinds: list[int]
    prefix: str = "each"
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    normalized: list[int] = field(default_factory=list)


def read_sentencepiece(content: bytes, vocab: int) -> SentencePieceBpe:
    """Return the tokenizer of a tokenizer.json, padded with unused tokens to `vocab` tokens.

    Raises TinyNNValueError if llama.cpp would tokenize differently; the message names the option.
    """
    tokenizer = parsed_tokenizer(content)
    described = json.loads(tokenizer.to_str())
    model = described["model"]
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(option):
            raise TinyNNValueError(
                f"the tokenizer's {option} is {model[option]!r:.60}, which llama.cpp does not support; export a "
                "Hugging Face folder instead"
            )
    prefix = _prefix_of(described["normalizer"], described["pre_tokenizer"])
    _check_decoder(described["decoder"])
    vocabulary: dict[str, int] = model["vocab"]
    added = {token["content"] for token in described["added_tokens"]}
    if (token := _missing_byte(vocabulary)) is not None:
        raise TinyNNValueError(
            f"the tokenizer has no token {token}, but llama.cpp needs a token for each byte; export a Hugging Face "
            "folder instead"
        )
    merges = [(left, right) for left, right in model["merges"]]
    scores = scores_of(merges, vocabulary.keys() - added)
    tokens, kinds = by_id(vocabulary, described["added_tokens"], vocab)
    for i, token in enumerate(tokens):
        if token == model["unk_token"]:
            kinds[i] = int(TokenType.UNKNOWN)
        elif token in BYTE_TOKENS and token not in added:
            kinds[i] = int(TokenType.BYTE)
    numbers = [scores.get(token, 0.0) if kind == TokenType.NORMAL else 0.0
               for token, kind in zip(tokens, kinds, strict=True)]  # fmt: skip
    normalized = [token["id"] for token in described["added_tokens"] if token["normalized"]]
    return SentencePieceBpe(tokens, numbers, kinds, prefix, *tokens_around(tokenizer), normalized)


def write_sentencepiece(spm: SentencePieceBpe) -> bytes:
    """Return the tokenizer.json of a tokenizer from a GGUF file. Raises the errors of `described_sentencepiece`."""
    return written(described_sentencepiece(spm))


def described_sentencepiece(spm: SentencePieceBpe, *, by_text: bool = True) -> dict[str, Any]:
    """Return the content of the tokenizer.json of a tokenizer, without unused tokens that never occur in a text.

    by_text: tokens with certain texts, such as </s>, are special tokens whatever their type, as in llama.cpp.

    Raises FileFormatError if the lists do not describe a SentencePiece BPE tokenizer, or if tokens have equal scores.
    """
    vocabulary = unique_ids(enumerate(spm.tokens))
    vocabulary.pop("", None)  # llama.cpp ignores a token without text
    ends = _ENDS if by_text else frozenset()
    added, unknown = _added(spm, vocabulary, ends)
    pieces = _pieces(spm, vocabulary, ends)
    has_bytes = _missing_byte(pieces) is None
    _name_bytes(vocabulary, pieces)
    merges = merges_by_score(pieces)
    joined = {left + right for left, right in merges}
    for i, (token, kind) in enumerate(zip(spm.tokens, spm.kinds, strict=True)):
        if kind == TokenType.UNUSED and vocabulary.get(token) == i and len(token) > 1 and token not in joined:
            del vocabulary[token]
    normalizers, pre_tokenizers = _RULES[spm.prefix]
    return described_bpe(
        tokens=spm.tokens,
        before=spm.before,
        after=spm.after,
        added=added,
        normalizer=sequence("normalizers", normalizers),
        pre_tokenizer=sequence("pretokenizers", pre_tokenizers),
        decoder=decoder(strips=spm.prefix != "none"),
        vocabulary=vocabulary,
        merges=merges,
        unknown=unknown,
        fuse_unknown=True,
        byte_fallback=has_bytes,
    )


def _added(
    spm: SentencePieceBpe, vocabulary: dict[str, int], ends: frozenset[str]
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the added tokens, as in tokenizer.json, and the token for unknown characters."""
    added = []
    unknown: str | None = None
    for token, i in vocabulary.items():
        kind = spm.kinds[i]
        if kind not in list(TokenType):
            raise FileFormatError(f"the token {i}, {token!r:.60}, has the unknown type {kind}")
        if kind == TokenType.UNKNOWN:
            if unknown is not None:
                raise FileFormatError(
                    f"the tokens {unknown!r:.60} and {token!r:.60} are both of the type UNKNOWN, but only one "
                    "token may have this type"
                )
            unknown = token
        if kind in _ADDED or token in ends:
            special = kind != TokenType.USER_DEFINED
            added.append(added_token(i, token, special=special, normalized=i in spm.normalized))
    return added, unknown


def _pieces(spm: SentencePieceBpe, vocabulary: dict[str, int], ends: frozenset[str]) -> dict[str, float]:
    """Return the scores of the tokens that are pieces of text."""
    pieces = {}
    for token, i in vocabulary.items():
        if spm.kinds[i] in _ADDED or token in ends:
            continue
        if math.isnan(spm.scores[i]):
            raise FileFormatError(f"the score of the token {i}, {token!r:.60}, is not a number")
        if len(token) > LONGEST_PIECE:
            raise FileFormatError(
                f"the token {i}, {token!r:.60}, has {len(token)} characters, but the limit is {LONGEST_PIECE}"
            )
        pieces[token] = spm.scores[i]
    return pieces


def decoder(*, strips: bool) -> dict[str, Any]:
    """Return the decoder, as in tokenizer.json. strips: remove the space that was put before the text."""
    rules: list[Any] = [_UNESCAPE, {"type": "ByteFallback"}, {"type": "Fuse"}]
    return {"type": "Sequence", "decoders": rules + [_STRIP] * strips}


def _missing_byte(known: Container[str]) -> str | None:
    """Return the first byte token, like "<0x0A>", that is missing. For a byte below 0x80, a token with the character
    itself also counts.
    """
    for byte, token in enumerate(BYTE_TOKENS):
        if token not in known and not (byte < 0x80 and chr(byte) in known):
            return token
    return None


def _name_bytes(vocabulary: dict[str, int], pieces: dict[str, float]) -> None:
    """If a piece contains a character that is not a token, rename the byte token of the character to the character.

    SentencePiece can join any characters to a piece, but the tokenizers library can join only tokens. The token keeps
    its id.

    Raises FileFormatError if the character has several bytes.
    """
    characters = set().union(*pieces).difference(pieces)
    for piece in list(pieces) if characters else []:
        for i in range(1, len(piece)):
            missing = [one for one in (piece[:i], piece[i:]) if one not in pieces]
            if not missing or any(len(one) > 1 for one in missing):
                continue
            for one in dict.fromkeys(missing):
                name = f"<0x{ord(one):02X}>"
                if ord(one) >= 0x80 or name not in pieces or one in vocabulary:
                    raise FileFormatError(
                        f"the token {piece!r:.60} contains the character {one!r}, which must be a token too"
                    )
                vocabulary[one], pieces[one] = vocabulary.pop(name), pieces.pop(name)


def sequence(key: str, rules: Sequence[Any]) -> dict[str, Any] | None:
    """Return rules that are applied one after the other, as in tokenizer.json."""
    if len(rules) > 1:
        return {"type": "Sequence", key: list(rules)}
    return rules[0] if rules else None


def _prefix_of(normalizer: Any, pre_tokenizer: Any) -> str:
    """Return where the rules of a tokenizer.json put a space. Raises TinyNNValueError for any other rules."""
    found = flat_rules(normalizer), flat_rules(pre_tokenizer)
    for prefix, rules in _RULES.items():
        if found == rules:
            return prefix
    for prefix, *others in _OTHER_RULES:
        if found == tuple(others):
            return prefix
    kinds = ", ".join(str(rule.get("type")) for rule in (*found[0], *found[1])) or "none"
    raise TinyNNValueError(
        f"the tokenizer's normalizer and pre-tokenizer ({kinds}) have no equivalent in llama.cpp; export a Hugging "
        "Face folder instead, which contains the rules themselves"
    )


def _check_decoder(described: Any) -> None:
    rules = flat_rules(described)
    if rules[:2] != [_UNESCAPE, {"type": "ByteFallback"}] or any(
        rule not in ({"type": "Fuse"}, _STRIP) for rule in rules[2:]
    ):
        kinds = ", ".join(str(rule.get("type")) for rule in rules) or "none"
        raise TinyNNValueError(
            f"the tokenizer's decoder ({kinds}) differs from the decoder of SentencePiece models, but llama.cpp "
            "always uses the latter; export a Hugging Face folder instead"
        )
