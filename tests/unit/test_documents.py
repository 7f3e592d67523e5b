"""All commands and functions divide texts into documents in the same way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from toynn import TinyNNValueError
from toynn.data import texts_to_learn
from toynn.data.bpe_process import WORDS
from toynn.data.texts import Texts, survey
from toynn.errors import FileFormatError
from toynn.storage.json_files import read_json
from toynn.storage.text_files import decoded, read_text, text_parts
from toynn.text import documents as dividing
from toynn.text.documents import (
    END_OF_TEXT,
    Piece,
    documents_of,
    encoded,
    lines,
    packed_ids,
    pieces,
    prompt_ids,
    separators_of,
)
from toynn.text.tokenizer_json import token_ids
from toynn.text.word_borders import BETWEEN_WORDS, parts_of, separates_words_as_gpt2
from toynn.training.toml_config import read_config

pytestmark = pytest.mark.quick

LATIN = "".join(f"The lamp in room {i} is lit at dusk.\n" for i in range(200))
CYRILLIC = "".join(f"\u041b\u0430\u043c\u043f\u0430 {i} \u0433\u043e\u0440\u0438\u0442.\n" for i in range(200))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_documents_are_the_same_with_every_line_end(end: str) -> None:
    text = end.join(["<|endoftext|>", "a", "b", "<|endoftext|>", "<|endoftext|>", "", "c", "<|endoftext|>"])
    assert documents_of(text, [END_OF_TEXT]) == [f"a{end}b{end}", f"{end}c{end}"]


def test_a_byte_order_mark_is_dropped_and_does_not_hide_a_separator() -> None:
    assert documents_of("\ufeff<|endoftext|>\na\n", [END_OF_TEXT]) == ["a\n"]
    assert documents_of("a\n\ufeff<|endoftext|>\nb\n", [END_OF_TEXT]) == ["a\n", "b\n"]


def test_lines_do_not_depend_on_the_parts_that_a_text_is_read_in() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(rng.choice("ab\r\n ") for _ in range(rng.randint(0, 12)))
        cuts = sorted(rng.randint(0, len(text)) for _ in range(3))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        whole = list(lines([text]))
        assert list(lines(parts)) == whole
        assert "".join(line for line, _ in whole) == text


def test_pieces_count_bytes_without_separators() -> None:
    found = list(pieces([["\u00e9\n<|endoftext|>\nb\n"], ["c"]], [END_OF_TEXT]))
    assert [(piece.document, piece.start, piece.text) for piece in found] == [
        (0, 0, "\u00e9\n"),
        (1, 3, "b\n"),
        (2, 5, "c"),
    ]


def test_the_separator_and_the_end_token_are_two_settings() -> None:
    assert separators_of(None, END_OF_TEXT) == (END_OF_TEXT,)
    assert separators_of(None, "</s>") == ("</s>", END_OF_TEXT)
    assert separators_of(None, "") == (END_OF_TEXT,)
    assert separators_of("---", "</s>") == ("---",)
    assert separators_of("", "</s>") == ()
    for wrong in ("a\nb", "a\rb"):
        with pytest.raises(TinyNNValueError, match="separator must be one line"):
            separators_of(wrong, None)


@pytest.fixture
def letters() -> Tokenizer:
    """Return a tokenizer whose ids are bytes, with <|endoftext|> as 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def text_of(tokenizer: Tokenizer, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


def test_a_text_with_separators_is_packed_as_documents(letters: Tokenizer) -> None:
    ids, n_bytes, n = packed_ids(letters, "one\n<|endoftext|>\ntwo\n", [END_OF_TEXT], 256)
    assert n == 2
    assert text_of(letters, ids) == "one\n<|endoftext|>two\n<|endoftext|>"
    assert n_bytes == len("one\ntwo\n")
    ids, n_bytes, n = packed_ids(letters, "one\ntwo", [END_OF_TEXT], 256)
    assert n == 1
    assert text_of(letters, ids) == "one\ntwo", "a text without separators may be a part of a document"
    ids, _, _ = packed_ids(letters, "one\n---\ntwo\n", ["---"], None)
    assert text_of(letters, ids) == "one\ntwo\n", "there is no end token"


def test_lines_of_another_known_separator_are_not_scored_as_text(letters: Tokenizer) -> None:
    with pytest.raises(TinyNNValueError, match=r"text has 1 line '</s>', but the separator is .*set separator"):
        packed_ids(letters, "one\n</s>\ntwo\n", [END_OF_TEXT], 256)
    letters.add_special_tokens(["</s>"])
    ids, _, _ = packed_ids(letters, "one\n</s>\ntwo\n", [END_OF_TEXT], 256)
    assert 257 in ids


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("one", "one"),
        ("one\n<|endoftext|>\ntwo", "one\n<|endoftext|>two"),
        ("one\n<|endoftext|>\n", "one\n<|endoftext|>"),
        ("<|endoftext|>\none", "<|endoftext|>one"),
        ("\ufeffone", "one"),
        ("<|endoftext|>", "<|endoftext|>"),
    ],
)
def test_separator_lines_of_a_prompt_become_the_end_token(letters: Tokenizer, prompt: str, text: str) -> None:
    assert text_of(letters, prompt_ids(letters, prompt, [END_OF_TEXT], 256)) == text


# ---- files ----


@pytest.mark.parametrize("text", [LATIN, CYRILLIC])
@pytest.mark.parametrize(
    ("encoding", "hint"),
    [
        ("utf-16", "it is UTF-16"),
        ("utf-16-le", "as in UTF-16"),
        ("utf-16-be", "as in UTF-16"),
        ("utf-32", "it is UTF-32"),
        ("utf-32-le", "as in UTF-32"),
        ("utf-32-be", "as in UTF-32"),
    ],
)
def test_the_error_names_another_unicode_encoding(text: str, encoding: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(text.encode(encoding))
    for read in (read_text, lambda path: list(text_parts(path))):
        with pytest.raises(FileFormatError, match=f"is not UTF-8: .*{hint}.*save it as UTF-8"):
            read(tmp_path / "t")


@pytest.mark.parametrize(
    ("start", "hint"),
    [(b"\x1f\x8b\x08\0", "a gzip file: unpack it first"), (b"PK\x03\x04\xff", "a zip archive"), (b"BZh9\xff", "bzip2")],
)
def test_the_error_names_the_compression_of_a_file(start: bytes, hint: str) -> None:
    with pytest.raises(FileFormatError, match=hint):
        decoded(start, "t")


def test_texts_that_only_resemble_other_formats_are_read() -> None:
    for text in ("BZh is how bzip2 files begin", "PK\x03\x04", "a\0b\0" * 3, "\0" * 500):
        assert decoded(text.encode(), "t") == text


@pytest.mark.parametrize(
    ("content", "read"),
    [("[train]\nsteps = 5\n", read_config), ('{"a": 1}', read_json), ("text", read_text)],
)
def test_every_text_file_drops_a_leading_byte_order_mark(
    content: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text(content, encoding="utf-8")
    (tmp_path / "marked").write_text(content, encoding="utf-8-sig")
    assert read(tmp_path / "marked") == read(tmp_path / "plain")


# ---- long lines ----


def test_a_long_line_is_encoded_in_parts_to_the_same_tokens(
    letters: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "The  lamp is\tlit, at \u4f60\u597d\uff0c 12 o'clock. " * 40
    (whole,) = encoded(letters, [Piece(0, 0, text, True)])
    given: list[int] = []

    def watched(tokenizer: Tokenizer, texts: list[str], name: str) -> list[list[int]]:
        given.extend(map(len, texts))
        return token_ids(tokenizer, texts, name)

    monkeypatch.setattr(dividing, "token_ids", watched)
    monkeypatch.setattr(dividing, "PIECE", 50)
    monkeypatch.setattr(dividing, "_CUT", 100)
    (cut,) = encoded(letters, [Piece(0, 0, text, True)])
    assert cut == whole
    assert len(given) > 10
    assert max(given) < 100


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.add_special_tokens(["two words"]),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Metaspace()),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda t: setattr(t, "normalizer", normalizers.NFC()),
    ],
)
def test_a_text_is_not_cut_for_a_tokenizer_with_other_words(
    letters: Tokenizer, change: Callable[[Tokenizer], object]
) -> None:
    assert separates_words_as_gpt2(letters)
    change(letters)
    assert not separates_words_as_gpt2(letters)


def test_parts_between_words_have_the_words_of_the_whole_text() -> None:
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    rng = random.Random(3)
    for _ in range(300):
        alphabet = "aB1 '.,\n\t-\u4f60\u3042\uff0c\u00e9"
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 80)))
        parts = list(parts_of(text, 5, BETWEEN_WORDS))
        assert "".join(parts) == text
        of_parts = [word for part in parts for word, _ in words.pre_tokenize_str(part)]
        assert of_parts == [word for word, _ in words.pre_tokenize_str(text)], parts
    assert [len(part) for part in parts_of("a" * 1000, 100, BETWEEN_WORDS, longest=300)] == [300, 300, 300, 100]


def learned_from(texts: Texts) -> str:
    return "".join(texts_to_learn.texts_to_learn(texts, lambda *_: None, 1))


def test_a_tokenizer_is_learned_from_a_limited_part_of_a_large_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.txt").write_text("".join(f"Line {i} of the text.\n" for i in range(40_000)))
    texts = survey([tmp_path / "t.txt"], [END_OF_TEXT], END_OF_TEXT)
    assert learned_from(texts) == (tmp_path / "t.txt").read_text()
    monkeypatch.setattr(texts_to_learn, "_TEXT", texts.text_bytes // 4)
    some = learned_from(texts)
    assert len(some) == pytest.approx(texts.text_bytes / 4, rel=0.35)
    assert "Line 1 of" in some
    assert "Line 39" in some, "not only the beginning"


@pytest.mark.parametrize(
    ("word", "different"),
    [
        (lambda i: f"word{i}x", True),
        (lambda i: f"word{i % 100}x", False),
        (lambda i: "".join(chr(0x4E00 + i * 7919 % 9973 * n % 9941) for n in range(1, 5)), True),
        (lambda i: "a" + "".join("\t\u3000"[i >> n & 1] for n in range(16)), True),
        (lambda i: "".join("_-"[i >> n & 1] for n in range(16)), True),
    ],
    ids=["latin", "latin, few words", "without spaces", "white space", "punctuation"],
)
def test_a_tokenizer_is_learned_from_a_limited_number_of_different_words(
    word: Callable[[int], str], different: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning needs memory for each different word, so the limit counts words as the tokenizer divides them."""
    (tmp_path / "t.txt").write_text(" ".join(word(i) for i in range(60_000)))
    texts = survey([tmp_path / "t.txt"], [END_OF_TEXT], END_OF_TEXT)
    limit = 64_000
    monkeypatch.setattr(texts_to_learn, "_DIFFERENT_WORDS", limit)
    monkeypatch.setattr(texts_to_learn, "_TEXT", 1 << 20)
    monkeypatch.setattr(texts_to_learn, "PIECE", 4096)
    some = learned_from(texts)
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    found = {one.removeprefix(" ") for one, _ in words.pre_tokenize_str(some)}
    n_bytes = sum(len(one.encode()) for one in found)
    if different:
        assert n_bytes < 1.6 * limit
        assert texts.text_bytes / 60 < len(some.encode()) < texts.text_bytes / 2
    else:
        assert some == (tmp_path / "t.txt").read_text()
    assert learned_from(texts) == some


def test_the_bytes_of_different_words_are_estimated_well() -> None:
    few, many = texts_to_learn.DifferentWords(), texts_to_learn.DifferentWords()
    few.add(texts_to_learn.words_in("one two\ttwo, three"))
    few.add(texts_to_learn.words_in("three four"))
    assert few.bytes == len("onetwo,threefour")
    for start in range(0, 400_000, 10_000):
        many.add({f"{i:08}".encode() for i in range(start, start + 20_000)})
    assert many.bytes == pytest.approx(8 * 410_000, rel=0.03)
