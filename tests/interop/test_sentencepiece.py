"""SentencePiece tokenizers in GGUF files give the ids of llama.cpp and of sentencepiece."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from gguf import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from interop_models import END_OF_TEXT, TEXTS
from llama_cpp import LlamaCpp
from sentencepiece_models import PARTS, SPECIAL, lists_of, model_of, parsed, random_texts, trained
from toynn import load, prepare, train
from toynn.interop import export_gguf, export_hf, import_gguf, import_hf
from toynn.interop.sentencepiece_bpe import SentencePieceBpe, read_sentencepiece, write_sentencepiece
from toynn.text.tokenizer_json import parsed_tokenizer

pytestmark = [pytest.mark.other_programs, pytest.mark.oracle_torch]

RUNS = [" " * n + "x" + " " * (n // 2) + "\t" * (n % 5) for n in range(40)]
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "with symbols": {"user_defined_symbols": ("<|x|>", "\n", "\n\n", "[A]"), "control_symbols": ("<pad>",)},
    "pieces across words": {"split_by_whitespace": False, "split_by_unicode_script": False, "vocab_size": 900},
    "few characters": {"character_coverage": 0.98, "vocab_size": 500},
}


def spaces_of_equal_scores(lists: SentencePieceBpe, longest: int = 16) -> SentencePieceBpe:
    """Return the lists with runs of spaces that share one low score, as in the vocabularies of Llama and Mistral."""
    runs = ["\u2581" * n for n in (2, 4, 8, *range(3, longest + 1)) if "\u2581" * n not in lists.tokens]
    scores = [
        -1e9 if set(token) == {"\u2581"} else score for token, score in zip(lists.tokens, lists.scores, strict=True)
    ]
    runs = list(dict.fromkeys(runs))
    return dataclasses.replace(lists, tokens=lists.tokens + runs, scores=scores + [-1e9] * len(runs),
                               kinds=lists.kinds + [int(TokenType.NORMAL)] * len(runs))  # fmt: skip


@pytest.mark.parametrize("prefix", ["each", "none"])
@pytest.mark.parametrize("name", [*MODELS, "equal scores"])
def test_a_gguf_file_gives_the_ids_of_llama_cpp(name: str, prefix: str, tmp_path: Path) -> None:
    lists = lists_of(trained(**MODELS.get(name, {})), prefix=prefix)
    if name == "equal scores":
        lists = spaces_of_equal_scores(lists)
    model = model_of(lists)
    export_gguf(model, tmp_path / "m.gguf")
    back = import_gguf(tmp_path / "m.gguf")
    assert back.tokenizer == model.tokenizer
    assert (back.bos_id, back.eos_id) == (1, 2)
    ours = Tokenizer.from_str((back.tokenizer or b"").decode())
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert theirs.adds_bos
        for text in [*TEXTS, *RUNS, *random_texts(200)]:
            ids = theirs.tokenize(text)
            assert ours.encode(text).ids == ids, text
            if not any(token in text for token in (*SPECIAL, END_OF_TEXT)):
                whole = theirs.text_of(ids[1:]).decode()
                assert ours.decode(ids, skip_special_tokens=True) == whole.removeprefix(" " if prefix == "each" else "")


@pytest.mark.parametrize("name", [name for name in MODELS if name != "with symbols"])
def test_the_ids_are_those_of_sentencepiece(name: str) -> None:
    content = trained(**MODELS[name])
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    ours = Tokenizer.from_str(write_sentencepiece(lists_of(content)).decode())
    for text in [*TEXTS[:-3], *RUNS, *random_texts(200, special=False)]:
        if "<0x41>" not in text and END_OF_TEXT not in text and text:  # sentencepiece finds no special tokens in text
            assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text), text


any_text = st.lists(
    st.one_of(st.sampled_from([*PARTS, *SPECIAL]), st.characters(exclude_categories=["Cs"])), max_size=30
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, LlamaCpp]:
    model = model_of(spaces_of_equal_scores(lists_of(trained(**MODELS["pieces across words"]))))
    path = tmp_path_factory.mktemp("both") / "m.gguf"
    export_gguf(model, path)
    return Tokenizer.from_str((model.tokenizer or b"").decode()), LlamaCpp(path)


@settings(max_examples=300, deadline=None)
@given(parts=any_text)
def test_random_text_has_the_same_ids(both: tuple[Tokenizer, LlamaCpp], parts: list[str]) -> None:
    ours, theirs = both
    text = "".join(parts).replace("\0", "")
    assert ours.encode(text).ids == theirs.tokenize(text)


def test_an_exported_folder_gives_the_ids_in_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    export_gguf(model_of(lists_of(trained())), tmp_path / "m.gguf")
    model = import_gguf(tmp_path / "m.gguf")
    export_hf(model, tmp_path / "hf")
    assert import_hf(tmp_path / "hf").tokenizer == model.tokenizer
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "hf"))
    with load(tmp_path / "m.gguf", n_threads=1) as ours, LlamaCpp(tmp_path / "m.gguf") as third:
        for text in [*TEXTS, *RUNS, *random_texts(200)]:
            ids = ours.encode(text, special_tokens=True)
            assert theirs(text)["input_ids"] == ids == third.tokenize(text), text
            assert ours.decode(ids) == theirs.decode(ids)


def test_a_model_is_trained_on_text_and_exported_again(tmp_path: Path) -> None:
    model = model_of(lists_of(trained()))
    export_gguf(model, tmp_path / "m.gguf")
    (tmp_path / "t.txt").write_text("The cat sat on the mat, \U0001f600 isn't it?\n<|endoftext|>\n" * 200)
    (tmp_path / "tokenizer.json").write_bytes(model.tokenizer or b"")
    prepare([tmp_path / "t.txt"], tmp_path / "data", tokenizer=tmp_path / "tokenizer.json", eos="</s>",
            separator="<|endoftext|>")  # fmt: skip
    train(tmp_path / "data", tmp_path / "run", init=tmp_path / "m.gguf", steps=2, batch=1, t_seq=16, progress=False)
    with load(tmp_path / "run", n_threads=1) as trained_model:
        whole = trained_model.generate("The cat", greedy=True, max_tokens=20)
        pieces = list(trained_model.stream("The cat", greedy=True, max_tokens=20))
        assert "".join(pieces) == whole
        trained_model.save(tmp_path / "again.gguf")
    again = import_gguf(tmp_path / "again.gguf")
    assert (again.tokenizer, again.bos_id, again.end_ids) == (model.tokenizer, 1, (2,))


# ---- the rules of other tokenizer.json files ----


def changed(**parts: Any) -> bytes:
    return json.dumps({**json.loads(write_sentencepiece(lists_of(trained()))), **parts}).encode()


AFTER_SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def metaspace(scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "prefix"),
    [
        (None, metaspace("first"), "first"),
        (None, metaspace("always"), "always"),
        (ESCAPE, metaspace("never"), "none"),
        (ESCAPE, AFTER_SPACES, "none"),
        (
            {"type": "Sequence", "normalizers": [
                ESCAPE, {"type": "Replace", "pattern": {"Regex": "\\A\u2581"}, "content": "\u2581\u2581"}]},
            {"type": "Sequence", "pretokenizers": [metaspace("always")]},
            "each",
        ),
    ],
)  # fmt: skip
def test_other_rules_are_restored_after_gguf(normalizer: Any, pre_tokenizer: Any, prefix: str, tmp_path: Path) -> None:
    content = changed(normalizer=normalizer, pre_tokenizer=pre_tokenizer)
    assert read_sentencepiece(content, 700).prefix == prefix
    model = dataclasses.replace(model_of(lists_of(trained())), tokenizer=content)
    notes = export_gguf(model, tmp_path / "m.gguf").notes
    assert ("puts a space only before" in " ".join(notes)) is (prefix in ("first", "always"))
    ours = Tokenizer.from_str(content.decode())
    back = Tokenizer.from_str((import_gguf(tmp_path / "m.gguf").tokenizer or b"").decode())
    for text in [*TEXTS, *random_texts(100)]:
        assert back.encode(text).ids == ours.encode(text).ids
    if prefix in ("each", "none"):
        with LlamaCpp(tmp_path / "m.gguf") as theirs:
            for text in [*TEXTS, *random_texts(100)]:
                assert theirs.tokenize(text) == ours.encode(text).ids


def without(*names: str) -> bytes:
    described = json.loads(changed())
    for name in names:
        del described["model"]["vocab"][name]
    return json.dumps(described).encode()


def with_model(**parts: Any) -> bytes:
    described = json.loads(changed())
    return json.dumps({**described, "model": {**described["model"], **parts}}).encode()


def merges() -> list[list[str]]:
    found: list[list[str]] = json.loads(changed())["model"]["merges"]
    return found


def torn_apart() -> list[list[str]]:
    """Return the merges in another order: two merges that give the same piece are the first and the last merge."""
    found = merges()
    one, other = next(pair for pair in itertools.pairwise(found) if "".join(pair[0]) == "".join(pair[1]))
    return [one, *(merge for merge in found if merge not in (one, other)), other]


@pytest.mark.parametrize(
    ("content", "mentions"),
    [
        (lambda: changed(normalizer={"type": "NFKC"}), r"normalizer and pre-tokenizer \(NFKC\) have no equivalent"),
        (lambda: changed(pre_tokenizer={"type": "Whitespace"}), r"\(Prepend, Replace, Whitespace\) have no equivalent"),
        (lambda: changed(decoder=None), r"decoder \(none\) differs from the decoder of SentencePiece models"),
        (lambda: without("<0xF0>"), "has no token <0xF0>, but llama.cpp needs a token for each byte"),
        (lambda: with_model(ignore_merges=True), "ignore_merges is True, which llama.cpp does not support"),
        (lambda: with_model(merges=merges()[1:]), r"join the pieces \('.*', '.*'\), but the tokenizer has no such"),
        (lambda: with_model(merges=[*merges()[5:20], *merges()[:5], *merges()[20:]]), None),
        (lambda: with_model(merges=torn_apart()), "equal scores are supported only for pieces"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_llama_cpp_would_apply_differently_is_refused(content: Any, mentions: str | None) -> None:
    if mentions is None:
        assert read_sentencepiece(content(), 700).tokens
        return
    with pytest.raises(ValueError, match=mentions):
        read_sentencepiece(content(), 700)


# ---- lists that are refused ----


def index(token: str) -> int:
    return lists_of(trained()).tokens.index(token)


def wrong(i: int | None = None, token: str | None = None, score: float | None = None, kind: int | None = None) -> Any:
    lists = lists_of(trained())
    at = len(lists.tokens) - 1 if i is None else i
    tokens, scores, kinds = list(lists.tokens), list(lists.scores), list(lists.kinds)
    tokens[at] = tokens[at] if token is None else token
    scores[at] = scores[at] if score is None else score
    kinds[at] = kinds[at] if kind is None else kind
    return dataclasses.replace(lists, tokens=tokens, scores=scores, kinds=kinds)


@pytest.mark.parametrize(
    ("lists", "mentions"),
    [
        (lambda: wrong(token="a"), "the ids .* are both the token 'a'; each token must have one id"),
        (lambda: wrong(kind=9), "has the unknown type 9"),
        (lambda: wrong(kind=2), "'<unk>' and .* are both of the type UNKNOWN"),
        (lambda: wrong(score=float("nan")), "is not a number"),
        (lambda: wrong(token="x" * 257), "has 257 characters, but the limit is 256"),
        (lambda: wrong(index("\u2167"), token="a\u8888"), "contains the character '.', which must be a token too"),
        (lambda: wrong(270, score=lists_of(trained()).scores[269]), "equal scores are supported only for pieces"),
    ],
)  # fmt: skip
def test_impossible_lists_are_refused(lists: Any, mentions: str) -> None:
    with pytest.raises(ValueError, match=mentions):
        write_sentencepiece(lists())


def test_many_groups_of_equal_scores_are_refused() -> None:
    tokens = [character * n for character in "abcdefghi" for n in (1, 2, 3)]
    scores = [-float(ord(token[0])) for token in tokens]
    lists = SentencePieceBpe(tokens, scores, [int(TokenType.NORMAL)] * len(tokens))
    with pytest.raises(ValueError, match=r"more than 8 groups .* with equal scores, but toynn supports at most 8"):
        write_sentencepiece(lists)
    fewer = SentencePieceBpe(tokens[:24], scores[:24], lists.kinds[:24])
    assert Tokenizer.from_str(write_sentencepiece(fewer).decode()).encode("aaaa").tokens[-2:] == ["aaa", "a"]


def test_a_piece_with_a_character_of_the_byte_tokens_is_joined_as_in_llama_cpp(tmp_path: Path) -> None:
    """The vocabulary of Gemma has pieces that consist of several tabs, but no piece for a single tab."""
    lists = wrong(index("\t"), token="\t\t\t", score=5.0)
    model = model_of(lists)
    described = json.loads(model.tokenizer or b"")
    assert described["model"]["vocab"]["\t"] == lists.tokens.index("<0x09>")
    export_gguf(model, tmp_path / "m.gguf")
    ours = parsed_tokenizer(model.tokenizer or b"")
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        for text in ("\t", "\t\t", "a\t\t\tb", "x\ty"):
            assert ours.encode(text).ids == theirs.tokenize(text)
    assert import_gguf(tmp_path / "m.gguf").tokenizer == model.tokenizer


def test_unused_tokens_stay_if_a_text_can_contain_them() -> None:
    lists = wrong(400, kind=int(TokenType.UNUSED))
    padded = dataclasses.replace(lists, tokens=[*lists.tokens, "[PAD700]"], scores=[*lists.scores, 0.0],
                                 kinds=[*lists.kinds, int(TokenType.UNUSED)])  # fmt: skip
    vocabulary = json.loads(write_sentencepiece(padded))["model"]["vocab"]
    assert lists.tokens[400] in vocabulary
    assert "[PAD700]" not in vocabulary
    assert read_sentencepiece(write_sentencepiece(padded), 701).tokens == padded.tokens


def test_the_texts_of_the_corpus_use_all_kinds_of_tokens() -> None:
    """The corpus of these tests contains bytes, pieces, unknown characters and special tokens."""
    ours = Tokenizer.from_str(write_sentencepiece(lists_of(trained())).decode())
    used = {token for text in [*TEXTS, *random_texts(200)] for token in ours.encode(text).ids}
    kinds = [parsed(trained()).pieces[token].type for token in used]
    assert {kinds.count(kind) > n for kind, n in ((1, 150), (6, 10), (3, 1), (2, 0))} == {True}
