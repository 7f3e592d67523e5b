"""Convert a byte-level BPE tokenizer between tokenizer.json and the lists that a GGUF file contains."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tokenizers import pre_tokenizers

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.bpe_json import described_bpe, written
from toynn.interop.gguf_numbers import TokenType
from toynn.interop.pre_tokenizers import by_name, name_of
from toynn.interop.token_lists import added_token, by_id, unique_ids
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import parsed_tokenizer

_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())  # the alphabet has one character for each byte


@dataclass(frozen=True)
class ByteLevelBpe:
    """A byte-level BPE tokenizer in the form of a GGUF file.

    tokens: the text of each token, by id.
    kinds: the TokenType of each token; UNUSED for an id that never occurs in text.
    merges: pairs "left right" in order of priority.
    pre: the name of the pre-tokenizer in llama.cpp.
    before, after: the tokens that the tokenizer puts before and after a text.
    normalizes: whether the tokenizer has the normalizer that belongs to `pre`.
    normalized: the ids of the added tokens that are searched for in normalized text.
    """

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    pre: str
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    normalizes: bool = True
    normalized: list[int] = field(default_factory=list)


def read_tokenizer(content: bytes, vocab: int) -> ByteLevelBpe:
    """Return the tokenizer of a tokenizer.json, padded with unused tokens to `vocab` tokens.

    Raises TinyNNValueError if llama.cpp would tokenize differently; the message names the option and a remedy.
    """
    tokenizer = parsed_tokenizer(content)
    described = json.loads(tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise TinyNNValueError(
            f"the tokenizer's model is {model['type']}, but only byte-level BPE and SentencePiece BPE can be exported "
            "to GGUF; export a Hugging Face folder instead"
        )
    for option in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise TinyNNValueError(
                f"the tokenizer's {option} is {model[option]!r:.60}, which llama.cpp does not support; export a "
                "Hugging Face folder instead"
            )
    if (decoder := (described["decoder"] or {}).get("type")) != "ByteLevel":
        raise TinyNNValueError(
            f"the tokenizer's decoder is {decoder}, but llama.cpp supports only ByteLevel; export a Hugging Face "
            "folder instead"
        )
    pre = name_of(described["pre_tokenizer"], bool(model.get("ignore_merges")), described["normalizer"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if not merges:
        raise TinyNNValueError(
            "the tokenizer has no merges, which llama.cpp needs; train a tokenizer with at least 258 tokens"
        )
    tokens, kinds = by_id(model["vocab"], described["added_tokens"], vocab, _ALPHABET)
    normalizes = by_name(pre).normalizer is None or described["normalizer"] is not None
    normalized = [token["id"] for token in described["added_tokens"] if token["normalized"]]
    return ByteLevelBpe(tokens, kinds, merges, pre, *tokens_around(tokenizer), normalizes, normalized)


def write_tokenizer(bpe: ByteLevelBpe) -> bytes:
    """Return the tokenizer.json of a tokenizer from a GGUF file, without its UNUSED tokens.

    Raises FileFormatError if the lists do not describe a byte-level BPE tokenizer.
    """
    rules, normalized = by_name(bpe.pre), set(bpe.normalized)
    added = []
    normal, unused = int(TokenType.NORMAL), int(TokenType.UNUSED)  # comparing enums takes longer
    fillers: set[int] = set()
    for i, kind in enumerate(bpe.kinds):
        if kind == normal:
            continue
        if kind == unused:
            fillers.add(i)
            continue
        token = bpe.tokens[i]
        if kind not in (TokenType.CONTROL, TokenType.USER_DEFINED):
            raise FileFormatError(
                f"the token {i}, {token!r:.60}, has type {kind}, but a token of byte-level BPE must have type "
                "1 (normal), 3 (control), 4 (user-defined) or 5 (unused)"
            )
        added.append(added_token(i, token, special=kind == TokenType.CONTROL, normalized=i in normalized))
    vocabulary = dict(zip(bpe.tokens, range(len(bpe.tokens)), strict=True))
    if fillers or len(vocabulary) < len(bpe.tokens):
        vocabulary = unique_ids((i, token) for i, token in enumerate(bpe.tokens) if i not in fillers)
    merges = [tuple(merge.split(" ")) for merge in bpe.merges]
    if {len(merge) for merge in merges} - {2}:
        i = next(i for i, merge in enumerate(merges) if len(merge) != 2)
        raise FileFormatError(f"the merge {i} must consist of two tokens, got {bpe.merges[i]!r:.60}")
    return written(
        described_bpe(
            tokens=bpe.tokens,
            before=bpe.before,
            after=bpe.after,
            added=added,
            normalizer=rules.normalizer if bpe.normalizes else None,
            pre_tokenizer=rules.rules,
            decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            vocabulary=vocabulary,
            merges=merges,
            ignore_merges=rules.ignore_merges,
        )
    )
