"""Tokenizers in GGUF files: round trips, and errors for tokenizers that llama.cpp would apply differently."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gguf import TokenType
from tokenizers import Tokenizer

from interop_models import END_OF_TEXT, TRAINED_ON, VOCAB, tokenizer
from toynn import TinyNNValueError
from toynn.interop import bpe_json
from toynn.interop.byte_level_bpe import ByteLevelBpe, read_tokenizer, write_tokenizer
from toynn.interop.pre_tokenizers import PRE_TOKENIZERS

pytestmark = pytest.mark.quick


def described(pre: str = "gpt-2") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(tokenizer(pre))
    return content


def changed(**changes: Any) -> bytes:
    """Return the usual tokenizer with changed values. A keyword a__b changes the key b inside a."""
    content = described()
    for key, value in changes.items():
        where, _, inner = key.partition("__")
        if inner:
            content[where][inner] = value
        else:
            content[where] = value
    return json.dumps(content).encode()


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": False}


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_a_tokenizer_gives_the_same_ids_after_a_round_trip(pre: str) -> None:
    content = tokenizer(pre)
    bpe = read_tokenizer(content, VOCAB)
    assert bpe.pre == pre
    assert len(bpe.tokens) == len(bpe.kinds) == VOCAB
    back = write_tokenizer(bpe)
    ours, theirs = Tokenizer.from_str(content.decode()), Tokenizer.from_str(back.decode())
    assert ours.get_vocab() == theirs.get_vocab()
    for text in [*TRAINED_ON, f"a{END_OF_TEXT} b <name>c 12345"]:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids, skip_special_tokens=False)
        assert theirs.decode(ids) == ours.decode(ids), "both must treat the same tokens as special"
    assert read_tokenizer(back, VOCAB) == bpe


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_a_tokenizer_that_is_built_is_the_one_that_its_json_describes(
    pre: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vocabulary and the merges are given to the library directly; parsing their JSON must give the same bytes."""
    bpe = read_tokenizer(tokenizer(pre), VOCAB)
    built = write_tokenizer(bpe)
    refused: list[Any] = []
    monkeypatch.setattr(bpe_json, "_built", refused.append)
    assert write_tokenizer(bpe) == built
    assert len(refused) == 1


def test_a_tokenizer_of_prepare_has_the_same_bytes_after_a_round_trip() -> None:
    assert write_tokenizer(read_tokenizer(tokenizer(), VOCAB)) == tokenizer()


def test_merges_in_the_older_notation_give_the_same_tokenizer() -> None:
    merges = [" ".join(merge) for merge in described()["model"]["merges"]]
    assert read_tokenizer(changed(model__merges=merges), VOCAB) == read_tokenizer(tokenizer(), VOCAB)


def test_ids_without_a_token_become_unused_tokens() -> None:
    vocabulary = {**described()["model"]["vocab"], "zz": 450, "[PAD449]": 451}
    bpe = read_tokenizer(changed(model__vocab=vocabulary), VOCAB)
    assert (bpe.tokens[450], bpe.kinds[450]) == ("zz", TokenType.NORMAL)
    assert (bpe.tokens[449], bpe.kinds[449]) == ("[[PAD449]]", TokenType.UNUSED)
    assert len(set(bpe.tokens)) == VOCAB
    assert Tokenizer.from_str(write_tokenizer(bpe).decode()).token_to_id("zz") == 450


@pytest.mark.parametrize(
    ("content", "mentions"),
    [
        (b"{}", "it is not a tokenizer.json"),
        (b"\xff", "it is not a tokenizer.json"),
        (changed(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}), "model is WordLevel, but only"),
        (changed(model__dropout=0.1), "the dropout is 0.1"),
        (changed(model__unk_token=END_OF_TEXT), "unk_token is '<|endoftext|>', which llama.cpp does not support"),
        (changed(model__continuing_subword_prefix="##"), "continuing_subword_prefix is|not a tokenizer.json"),
        (changed(model__byte_fallback=True), "byte_fallback is True"),
        (changed(model__ignore_merges=True), "'gpt-2', for which llama.cpp uses ignore_merges = False"),
        (changed(model__merges=[]), "the tokenizer has no merges"),
        (changed(decoder=None), "decoder is None, but llama.cpp supports only ByteLevel"),
        (changed(normalizer={"type": "NFC"}), r"the tokenizer has a normalizer \(NFC\), but llama.cpp does not apply"),
        (changed(pre_tokenizer=None), r"pre-tokenizer \(none\) has no name in llama.cpp"),
        (changed(pre_tokenizer={**BYTE_LEVEL, "add_prefix_space": True}), r"pre-tokenizer \(ByteLevel\)"),
        (changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, BYTE_LEVEL]}),
         r"\(Sequence of Whitespace, ByteLevel\) has no name .* gpt-2, smollm, .*, default\); export a Hug"),
        (changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [DIGITS, BYTE_LEVEL]}),
         r"\(Sequence of Digits, ByteLevel\) has no name"),
        (changed(added_tokens=[{**described()["added_tokens"][0], "lstrip": True}]), r"'<\|endoftext\|>' sets lstrip"),
        (changed(added_tokens=[{**described()["added_tokens"][0], "single_word": True}]), "sets single_word"),
        (changed(model__vocab={**described()["model"]["vocab"], "zz": VOCAB}),
         "the tokenizer's largest token id is 512, but the model has only 512 tokens"),
        (changed(model__vocab={**described()["model"]["vocab"], "\u4f60": 400}), "token 400, '\u4f60', contains"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_llama_cpp_would_apply_differently_is_refused_by_name(content: bytes, mentions: str) -> None:
    with pytest.raises(TinyNNValueError, match=mentions):
        read_tokenizer(content, VOCAB)


def test_rules_with_two_names_are_told_apart_by_ignore_merges() -> None:
    assert read_tokenizer(tokenizer("llama-bpe"), VOCAB).pre == "llama-bpe"
    assert read_tokenizer(tokenizer("dbrx"), VOCAB).pre == "dbrx"


def test_truncation_and_padding_are_allowed_because_toynn_ignores_them() -> None:
    truncation = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    assert read_tokenizer(changed(truncation=truncation), VOCAB) == read_tokenizer(tokenizer(), VOCAB)


@pytest.mark.parametrize(("name", "rules"), [("llama3", "llama-bpe"), ("starcoder", "smollm"), ("refact", "smollm"),
                                             ("deepseek-r1-qwen", "qwen2"), ("smaug-bpe", "dbrx")])  # fmt: skip
def test_other_names_of_the_same_rules_are_accepted(name: str, rules: str) -> None:
    bpe = read_tokenizer(tokenizer(rules), VOCAB)
    other = ByteLevelBpe(bpe.tokens, bpe.kinds, bpe.merges, name)
    assert write_tokenizer(other) == write_tokenizer(bpe)


GOOD = read_tokenizer(tokenizer(), VOCAB)


@pytest.mark.parametrize(
    ("bpe", "mentions"),
    [
        (
            ByteLevelBpe(GOOD.tokens, GOOD.kinds, GOOD.merges, "kimi-k2"),
            "the pre-tokenizer 'kimi-k2' is unknown to toynn, which supports gpt-2",
        ),
        (ByteLevelBpe(GOOD.tokens, [6, *GOOD.kinds[1:]], GOOD.merges, "gpt-2"), "has type 6"),
        (
            ByteLevelBpe(["a", *GOOD.tokens[1:]], GOOD.kinds, GOOD.merges, "gpt-2"),
            "the ids 0 and 65 are both the token 'a'",
        ),
        (ByteLevelBpe(GOOD.tokens, GOOD.kinds, ["ab"], "gpt-2"), "the merge 0 must consist of two tokens, got 'ab'"),
        (ByteLevelBpe(GOOD.tokens, GOOD.kinds, ["zz zz"], "gpt-2"), "it is not a tokenizer.json: .*out of vocabulary"),
    ],
)
def test_impossible_token_lists_are_refused(bpe: ByteLevelBpe, mentions: str) -> None:
    with pytest.raises(TinyNNValueError, match=mentions):
        write_tokenizer(bpe)
