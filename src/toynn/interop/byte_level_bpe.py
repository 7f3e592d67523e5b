"""A byte-level BPE tokenizer, between a tokenizer.json and the lists that GGUF keeps of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gguf import TokenType
from tokenizers import pre_tokenizers

from toynn.errors import TinyNNValueError
from toynn.interop.pre_tokenizers import by_name, name_of
from toynn.text.tokenizer_json import parsed_tokenizer

_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())  # a character for each byte


@dataclass(frozen=True)
class ByteLevelBpe:
    """tokens by id, each of one of gguf's TokenTypes (an id that no text has is UNUSED); merges, the first first, as
    "left right"; pre: llama.cpp's name of the pre-tokenizer."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    pre: str


def read_tokenizer(content: bytes, vocab: int) -> ByteLevelBpe:
    """What GGUF keeps of a tokenizer.json, filled up with unused tokens to `vocab`.

    Raises TinyNNValueError for what llama.cpp would do otherwise than this tokenizer: by name, with what to do.
    """
    described = json.loads(parsed_tokenizer(content).to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise TinyNNValueError(
            f"it is a {model['type']} model, toynn exports byte-level BPE; train one with `toynn prepare`"
        )
    for option in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise TinyNNValueError(f"its {option} is {model[option]!r:.60}, which llama.cpp has not")
    if (decoder := (described["decoder"] or {}).get("type")) != "ByteLevel":
        raise TinyNNValueError(f"its decoder is {decoder}, not ByteLevel")
    pre = name_of(described["pre_tokenizer"], bool(model.get("ignore_merges")), described["normalizer"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if not merges:
        raise TinyNNValueError("it has no merges, without which llama.cpp loads none; train one of 258 tokens or more")
    tokens, kinds = _by_id(model["vocab"], described["added_tokens"], vocab)
    return ByteLevelBpe(tokens, kinds, merges, pre)


def _by_id(vocabulary: dict[str, int], added: list[dict[str, Any]], vocab: int) -> tuple[list[str], list[int]]:
    known: dict[int, tuple[str, int]] = {i: (token, TokenType.NORMAL) for token, i in vocabulary.items()}
    for entry in added:
        token = entry["content"]
        for option in ("lstrip", "rstrip", "single_word"):
            if entry[option]:
                raise TinyNNValueError(f"its token {token!r} has {option}, which llama.cpp has not")
        known[entry["id"]] = (token, TokenType.CONTROL if entry["special"] else TokenType.USER_DEFINED)
    if known and max(known) >= vocab:
        raise TinyNNValueError(f"it has the token id {max(known)}, the model's vocabulary only {vocab} tokens")
    for i, (token, kind) in known.items():
        if not token or (kind == TokenType.NORMAL and not _ALPHABET.issuperset(token)):
            raise TinyNNValueError(f"its token {i}, {token!r:.60}, is not written in the byte-level alphabet")
    texts = {token for token, _ in known.values()}
    if len(texts) < len(known):
        raise TinyNNValueError("it has a token with two ids")
    tokens, kinds = [], []
    for i in range(vocab):
        token, kind = known.get(i) or (_filler(i, texts), TokenType.UNUSED)
        tokens.append(token)
        kinds.append(int(kind))
    return tokens, kinds


def _filler(i: int, taken: set[str]) -> str:
    """What llama.cpp's own converter calls an id without a token."""
    filler = f"[PAD{i}]"
    while filler in taken:
        filler = f"[{filler}]"
    return filler


def write_tokenizer(bpe: ByteLevelBpe) -> bytes:
    """The tokenizer.json of what GGUF keeps; UNUSED tokens are left out.

    Raises TinyNNValueError where no tokenizer is like that.
    """
    rules = by_name(bpe.pre)
    vocabulary: dict[str, int] = {}
    added = []
    for i, (token, kind) in enumerate(zip(bpe.tokens, bpe.kinds, strict=True)):
        if kind == TokenType.UNUSED:
            continue
        if kind not in (TokenType.NORMAL, TokenType.CONTROL, TokenType.USER_DEFINED):
            raise TinyNNValueError(f"its token {i}, {token!r:.60}, is of type {kind}, which a byte-level BPE has not")
        if token in vocabulary:
            raise TinyNNValueError(f"its tokens {vocabulary[token]} and {i} are both {token!r:.60}")
        vocabulary[token] = i
        if kind != TokenType.NORMAL:
            added.append({"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": kind == TokenType.CONTROL})  # fmt: skip
    merges = [merge.split(" ") for merge in bpe.merges]
    for i, merge in enumerate(merges):
        if len(merge) != 2:
            raise TinyNNValueError(f"its merge {i}, {bpe.merges[i]!r:.60}, is not of two tokens")
    described = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": rules.normalizer,
        "pre_tokenizer": rules.rules,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": rules.ignore_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    text: str = parsed_tokenizer(json.dumps(described).encode("utf-8")).to_str(pretty=True)
    return text.encode("utf-8")
