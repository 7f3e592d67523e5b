"""The real llama.cpp runs exported models and computes the same results as toynn.

Weights, activations and the cache are f32, so only the order of sums and the rounding of exp, sin and cos differ. The
largest logits are about 9; docs/interop.md has the measured differences.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from interop_models import (
    END_OF_TEXT,
    SHAPES,
    TEXTS,
    VOCAB,
    decoder_of,
    logits_of,
    make,
    split_revealing,
    tokenizer,
)
from llama_cpp import LlamaCpp
from toynn import Sampling, generate
from toynn.interop import export_gguf, import_gguf
from toynn.interop.pre_tokenizers import PRE_TOKENIZERS

pytestmark = pytest.mark.other_programs

F32_BOUND = 5e-4  # allowed difference of logits; the largest measured difference is 2.3e-4
# allowed difference with GELU, because ggml rounds the arguments and results of GELU to F16; the largest measured
# difference is 4.3e-3
GELU_BOUND = 0.02
# With f16, bf16 and q8_0 weights llama.cpp also rounds the activations before each product, and random weights magnify
# the error. The bounds are for the root mean square of the difference, divided by the root mean square of the logits.
# The largest measured values are 0.0059, 0.049 and 0.15.
BOUNDS = {"f16": 0.01, "bf16": 0.08, "q8_0": 0.25}
# longer than the 64 positions of the original context in llama3 scaling
IDS = np.random.default_rng(0).integers(0, VOCAB, 200).tolist()

each_shape = pytest.mark.parametrize("name", SHAPES)
each_pre = pytest.mark.parametrize("pre", PRE_TOKENIZERS)


@each_shape
def test_logits_agree_at_every_position(name: str, tmp_path: Path) -> None:
    model = make(name)
    export_gguf(model, tmp_path / "m.gguf")
    ours = logits_of(model, IDS)
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        logits = theirs.feed(IDS)
    assert logits.shape == ours.shape == (200, VOCAB)
    assert np.abs(ours).max() > 5, "the logits are too small for a meaningful comparison"
    np.testing.assert_allclose(logits, ours, rtol=0, atol=GELU_BOUND if model.shape.has_gelu else F32_BOUND)


@each_shape
def test_greedy_generation_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    model = make(name)
    export_gguf(model, tmp_path / "m.gguf")
    prompt = IDS[:5]
    with decoder_of(model) as ours:
        expected = list(generate(ours, prompt, Sampling.greedy(), 150))
    assert len(expected) == 150
    assert len(set(expected)) > 30, "the text has too few different tokens for a meaningful comparison"
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert theirs.greedy(prompt, 150) == expected


@each_shape
@pytest.mark.parametrize("dtype", BOUNDS)
def test_logits_of_smaller_dtypes_are_close(name: str, dtype: str, tmp_path: Path) -> None:
    model = make(name)
    export_gguf(model, tmp_path / "m.gguf", dtype)
    rounded = import_gguf(tmp_path / "m.gguf")
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        logits = theirs.feed(IDS).astype(np.float64)
    for ours in (logits_of(model, IDS).astype(np.float64), logits_of(rounded, IDS).astype(np.float64)):
        away = float(np.sqrt(np.mean((logits - ours) ** 2) / np.mean(ours**2)))
        assert away < BOUNDS[dtype]


def test_without_the_permutation_of_q_and_k_the_logits_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp also loads a file without the permutation, so only the logits show that the permutation is missing."""
    monkeypatch.setattr("toynn.interop.gguf_export.to_interleaved", lambda rows, n_heads: rows)
    model = make("qkv_bias")
    export_gguf(model, tmp_path / "m.gguf")
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert np.abs(theirs.feed(IDS) - logits_of(model, IDS)).max() > 1


# ---- the tokenizer ----


Both = tuple[Tokenizer, LlamaCpp]


@pytest.fixture(scope="module", params=[f"{kind} {pre}" for pre in PRE_TOKENIZERS for kind in ("trained", "revealing")])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Yield the same tokenizer in toynn and in llama.cpp: a trained tokenizer, or a tokenizer whose ids show where
    words end.
    """
    kind, pre = request.param.split()
    content, vocab = (tokenizer(pre), VOCAB) if kind == "trained" else split_revealing(pre)
    path = tmp_path_factory.mktemp("both") / "m.gguf"
    export_gguf(make("tied", tokens=content, vocab=vocab), path)
    with LlamaCpp(path) as theirs:
        yield Tokenizer.from_str(content.decode()), theirs


def has_other_letters(text: str) -> bool:
    """Return whether llama.cpp divides the text into other words than Tekken's own rules do.

    llama.cpp only knows the capital letters A to Z, and ends a word before a combining mark.
    """
    return any(not one.isascii() and unicodedata.category(one) in ("Lu", "Ll", "Lt", "Mn", "Mc", "Me") for one in text)


def agree(both: Both, text: str) -> None:
    ours, theirs = both
    if "{Lu}" in ours.to_str() and has_other_letters(text):
        return
    ids = theirs.tokenize(text)
    assert ids == ours.encode(text, add_special_tokens=False).ids
    assert theirs.text_of(ids).decode() == ours.decode(ids, skip_special_tokens=False) == text


def test_the_example_texts_have_the_same_tokens(both: Both) -> None:
    for text in TEXTS:
        agree(both, text)


def test_bytes_that_are_missing_in_the_vocabulary_are_dropped_by_both(tmp_path: Path) -> None:
    """Real vocabularies lack bytes that UTF-8 never contains.

    This vocabulary also lacks a letter, a space and a newline.
    """
    described = json.loads(tokenizer())
    lacking = ("\u00c3", "z", "\u0120", "\u010a")
    tokens = [token for token in described["model"]["vocab"] if not any(byte in token for byte in lacking)]
    merges = [merge for merge in described["model"]["merges"] if not any(byte in "".join(merge) for byte in lacking)]
    described["model"].update(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    content = json.dumps(described).encode()
    export_gguf(make("tied", tokens=content), tmp_path / "m.gguf")
    ours = Tokenizer.from_str(content.decode())
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        for text in ("caf\u00e9 zoo", "a z", "zzz", "\n\n", "the cat\nzebra na\u00efve \u00e9", "\u00e9"):
            assert theirs.tokenize(text) == ours.encode(text, add_special_tokens=False).ids, text


any_text = st.text(
    alphabet=st.one_of(
        st.characters(codec="ascii"),
        st.sampled_from(" \n\t\r'\u00a0\u3000aAeEst19"),
        st.characters(max_codepoint=0x3FF),
    ),
    max_size=60,
).map(lambda text: unicodedata.normalize("NFC", text))  # the normalizer of qwen2, which llama.cpp does not apply


@settings(max_examples=300, deadline=None)
@given(text=any_text)
def test_random_text_has_the_same_tokens(both: Both, text: str) -> None:
    agree(both, text)


# Characters of Unicode 16, for which the tables of llama.cpp and of the tokenizers library differ.
NEWEST = {0x897, 0x1C89, 0x1C8A, *range(0xA7CB, 0xA7CE), *range(0xA7DA, 0xA7DD)}


@each_pre
def test_every_character_splits_words_in_the_same_way(pre: str, tmp_path: Path) -> None:
    """The vocabulary joins any two bytes next to a letter, a digit or a space, so the ids show where words end.

    The characters are emoji and the characters of the Basic Multilingual Plane that NFC does not change. The
    test uses only a part of the large alphabets.
    """
    content, vocab = split_revealing(pre)
    model = make("tied", tokens=content, vocab=vocab)
    export_gguf(model, tmp_path / "m.gguf")
    ours = Tokenizer.from_str(content.decode())
    codes = [*range(1, 0x10000), *range(0x1D400, 0x1D500), *range(0x1F300, 0x1FB00)]
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        wrong = []
        for code in codes:
            character = chr(code)
            if unicodedata.category(character) in ("Cn", "Co", "Cs") or code in NEWEST:
                continue
            if (0x3400 < code < 0x9F00 or 0xAC00 < code < 0xD700) and code % 64:
                continue
            if pre == "tekken" and has_other_letters(character):
                continue
            text = f"a{character}a1{character}1 {character} !{character}! a"
            if unicodedata.normalize("NFC", text) != text:
                continue
            if theirs.tokenize(text) != ours.encode(text, add_special_tokens=False).ids:
                wrong.append(hex(code))
    assert wrong == []


def test_tekken_differs_in_capital_letters_beyond_ascii(tmp_path: Path) -> None:
    content, vocab = split_revealing("tekken")
    export_gguf(make("tied", tokens=content, vocab=vocab), tmp_path / "m.gguf")
    ours = Tokenizer.from_str(content.decode())
    words = ours.pre_tokenizer.pre_tokenize_str("\u00c9COLE \u00c9cole")
    assert [word for word, _ in words] == ["\u00c3\u012bCOLE", "\u0120\u00c3\u012bcole"]
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert theirs.tokenize("a\u00c9a") != ours.encode("a\u00c9a").ids


# ---- special tokens ----


def test_llama_cpp_uses_the_end_of_text_token_and_adds_no_first_token(tmp_path: Path) -> None:
    export_gguf(make("tied"), tmp_path / "m.gguf")
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        assert (theirs.bos, theirs.eos, theirs.adds_bos) == (0, 0, False)
        assert [token for token in range(VOCAB) if theirs.is_end(token)] == [0]
        assert theirs.tokenize(f"{END_OF_TEXT}The") == [0, *theirs.tokenize("The")]
        assert theirs.n_vocab == VOCAB


def test_without_an_end_of_text_an_unused_token_is_exported_or_a_note_names_the_token(tmp_path: Path) -> None:
    content = tokenizer(end="")
    n = Tokenizer.from_str(content.decode()).get_vocab_size()
    assert export_gguf(make("tied", tokens=content, vocab=n + 3), tmp_path / "a.gguf").notes == ()
    with LlamaCpp(tmp_path / "a.gguf") as theirs:
        assert [token for token in range(n + 3) if theirs.is_end(token)] == [n]
    notes = export_gguf(make("tied", tokens=content, vocab=n), tmp_path / "b.gguf").notes
    assert notes == ("the model has no end-of-text token, so llama.cpp will use token 11, ','",)
    with LlamaCpp(tmp_path / "b.gguf") as theirs:
        assert [token for token in range(n) if theirs.is_end(token)] == [11]


def test_llama_cpp_computes_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    model = make("gqa", tokens=None)
    written = export_gguf(model, tmp_path / "m.gguf")
    assert written.notes[0].startswith("the model has no tokenizer")
    with LlamaCpp(tmp_path / "m.gguf") as theirs:
        np.testing.assert_allclose(theirs.feed(IDS), logits_of(model, IDS), rtol=0, atol=F32_BOUND)
