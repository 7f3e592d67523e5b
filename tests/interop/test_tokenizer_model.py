"""A tokenizer.model in a Hugging Face folder gives the ids of sentencepiece, transformers and llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer

from interop_models import TEXTS
from llama_cpp import LlamaCpp
from sentencepiece_models import SPECIAL, lists_of, model_of, parsed, random_texts, trained
from toynn import load
from toynn.interop import export_gguf, export_hf, import_gguf, import_hf
from toynn.interop.hf_tokenizer_model import converted_model
from toynn.interop.sentencepiece_model import parsed_model

pytestmark = [pytest.mark.other_programs, pytest.mark.oracle_torch]

PLAIN = [text for text in [*TEXTS[:-3], *random_texts(200, special=False)] if text and "<0x41>" not in text]
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma": {"add_dummy_prefix": False, "user_defined_symbols": ("\n", "\n\n", "\t", "[A]")},
    "symbols": {"user_defined_symbols": ("<|x|>", "[A]", "\n")},
    "removed spaces": {"remove_extra_whitespaces": True},
    "normalized": {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    "no bytes": {"byte_fallback": False, "vocab_size": 500},
}


def folder(path: Path, content: bytes, config: dict[str, Any] | None = None, vocab: int = 710) -> Path:
    """Write a folder with a tokenizer.model and without a tokenizer.json."""
    model = model_of(lists_of(trained()), vocab=vocab)
    export_hf(model, path)
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").unlink()
    (path / "tokenizer.model").write_bytes(content)
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", MODELS)
def test_the_ids_are_those_of_sentencepiece_and_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    content = trained(**MODELS[name])
    path = folder(tmp_path / "hf", content)
    model = import_hf(path)
    ours = Tokenizer.from_str((model.tokenizer or b"").decode())
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    third = AutoTokenizer.from_pretrained(str(path))
    for text in PLAIN:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text), text
        if not (
            name in ("removed spaces", "normalized") and "\u2581" in text
        ):  # transformers does not remove "\u2581" at the end of a text
            assert ids == third.encode(text, add_special_tokens=False), text
    for text in random_texts(200):
        ids = ours.encode(text, add_special_tokens=False).ids
        if not ("<0x41>" in text or (name in ("removed spaces", "normalized") and "\u2581" in text)):
            assert ids == third.encode(text, add_special_tokens=False), text
    assert ours.encode("cat").ids[0] == 1, "a begin token is the default"
    export_hf(model, tmp_path / "again")
    again = AutoTokenizer.from_pretrained(str(tmp_path / "again"))
    assert import_hf(tmp_path / "again").tokenizer == model.tokenizer
    for text in [*PLAIN, *random_texts(100)]:
        assert again.encode(text) == ours.encode(text).ids, text


@pytest.mark.parametrize("legacy", [True, False])
def test_settings_of_tokenizer_config_have_the_effect_they_have_in_transformers(legacy: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = {
        "legacy": legacy, "add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": "<|im_end|>",
        "unk_token": "<unk>", "added_tokens_decoder": {
            "700": {"content": "<|im_start|>", "special": True, "normalized": False},
            "701": {"content": "<|im_end|>", "special": True, "normalized": False},
            "702": {"content": "<think>", "special": False, "normalized": False},
        },
    }  # fmt: skip
    path = folder(tmp_path / "hf", trained(), config)
    third = AutoTokenizer.from_pretrained(str(path))
    with load(path, n_threads=1) as ours:
        for text in [*PLAIN, *random_texts(50), "a<|im_start|>user\nb <think> c<|im_end|> <s>d"]:
            ids = ours.encode(text, special_tokens=True)
            assert ids == third.encode(text), text
            assert (ids[0], ids[-1]) == (1, 701)


def test_a_folder_with_a_tokenizer_model_becomes_a_gguf_file(tmp_path: Path) -> None:
    model = import_hf(folder(tmp_path / "hf", trained(), {"tokenizer_class": "LlamaTokenizer", "legacy": True}, 700))
    assert model.tokenizer == model_of(lists_of(trained())).tokenizer
    assert "tokenizer_class" not in model.foreign.tokenizer_config
    assert export_gguf(model, tmp_path / "m.gguf").notes == ()
    assert import_gguf(tmp_path / "m.gguf").tokenizer == model.tokenizer
    theirs = sentencepiece.SentencePieceProcessor(model_proto=trained())
    with LlamaCpp(tmp_path / "m.gguf") as third:
        for text in PLAIN[:100]:
            if not any(token in text for token in (*SPECIAL, "<|endoftext|>")):
                assert third.tokenize(text) == [1, *theirs.encode(text)]


def test_the_fields_are_those_that_the_schema_of_sentencepiece_reads() -> None:
    for options in ({"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True}, *MODELS.values()):
        content = trained(**options)
        ours, theirs = parsed_model(content, 1000), parsed(content)
        assert ours.tokens == [piece.piece for piece in theirs.pieces]
        assert ours.scores == [piece.score for piece in theirs.pieces]
        assert ours.kinds == [piece.type for piece in theirs.pieces]
        spec, rules = theirs.trainer_spec, theirs.normalizer_spec
        assert (ours.model_type, ours.byte_fallback, ours.suffix, ours.bos_id, ours.eos_id) == (
            spec.model_type, spec.byte_fallback, spec.treat_whitespace_as_suffix, spec.bos_id, spec.eos_id,
        )  # fmt: skip
        assert (ours.prefix, ours.removes_spaces, ours.escapes, ours.charsmap) == (
            rules.add_dummy_prefix, rules.remove_extra_whitespaces, rules.escape_whitespaces,
            rules.precompiled_charsmap,
        )  # fmt: skip


def changed(field: str, value: object) -> bytes:
    model = parsed(trained())
    *parents, last = field.split(".")
    owner = model
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, last, value)
    written: bytes = model.SerializeToString()
    return written


def with_kind(kind: int) -> bytes:
    model = parsed(trained())
    model.pieces[400].type = kind
    written: bytes = model.SerializeToString()
    return written


def with_damaged_charsmap() -> bytes:
    model = parsed(changed("normalizer_spec.remove_extra_whitespaces", True))
    model.normalizer_spec.precompiled_charsmap = b"\xff" * 8
    written: bytes = model.SerializeToString()
    return written


@pytest.mark.parametrize(
    ("content", "mentions"),
    [
        (lambda: b"", "it contains no pieces"),
        (lambda: b"\xff" * 20, "the integer at byte 0 of a message has no end"),
        (lambda: b"\x0a\xff\x01abc", "the field 1 needs 255 bytes, but 3 are left"),
        (lambda: b"\x0b", "the field 1 has the unknown wire type 3"),
        (lambda: b"\x08\x01", "a piece is an integer"),
        (lambda: b"\x0a\x04\x0a\x02\xff\xfe", "the piece 0 is not UTF-8"),
        (lambda: b"\x0a\x03\x0a\x01a" * 701, "the file has more than 700 pieces"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "wire type|no end|bytes"),
        (lambda: changed("trainer_spec.model_type", 1), "the model_type is unigram, but toynn reads only bpe"),
        (lambda: changed("normalizer_spec.escape_whitespaces", False), "escape_whitespaces is False"),
        (lambda: changed("trainer_spec.treat_whitespace_as_suffix", True), "treat_whitespace_as_suffix is True"),
        (with_damaged_charsmap, "precompiled_charsmap is damaged"),
        (lambda: trained(normalization_rule_name="nmt_nfkc"), "precompiled_charsmap without remove_extra_whitespaces"),
        (lambda: with_kind(5), "is of the type UNUSED"),
    ],
)  # fmt: skip
def test_a_tokenizer_model_that_cannot_be_used_is_refused_with_the_reason(content: Any, mentions: str) -> None:
    with pytest.raises(ValueError, match=mentions):
        converted_model(content(), {}, {}, 700)


@pytest.mark.parametrize(
    ("config", "added", "mentions"),
    [
        ({"add_bos_token": 1}, {}, "add_bos_token must be true or false, got 1"),
        ({"bos_token": "<q>"}, {}, "bos_token is '<q>', but tokenizer.model has no such token"),
        (
            {"added_tokens_decoder": {"800": {"content": "x"}}},
            {},
            "a key of added_tokens_decoder must be an id from 0 to 709, got '800'",
        ),
        ({"added_tokens_decoder": {"700": 5}}, {}, "added_tokens_decoder.700 must have the text of a token, got 5"),
        ({"added_tokens_decoder": {"700": {"content": "x", "rstrip": True}}}, {}, "700 sets rstrip"),
        ({"added_tokens_decoder": []}, {"x": 800}, "added_tokens.json must be an integer from 0 to 709, got 800"),
        ({}, {"x": "5"}, "the id of 'x' in added_tokens.json must be an integer from 0 to 709, got '5'"),
        ({}, {"the": 705, "<s>": 706}, "both the token"),
    ],
)
def test_added_tokens_that_do_not_fit_are_refused(config: Any, added: Any, mentions: str) -> None:
    with pytest.raises(ValueError, match=mentions):
        converted_model(trained(), config, added, 710)
