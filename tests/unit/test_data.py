"""Packed tokens decode to the text, an epoch visits every window once, and damaged data is refused."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from commands import toynn
from toynn import TinyNNTypeError, TinyNNValueError
from toynn.data import PackedTokens, WindowBatcher, load_meta
from toynn.data import prepare as preparing
from toynn.data.prepare import prepare
from toynn.storage import text_files
from toynn.text import documents as dividing
from toynn.text.documents import END_OF_TEXT
from toynn.text.tokenizer_json import token_ids

STORY = "The cat sat on the mat. It was a warm day, and the cat was glad.\n"


def documents(n: int) -> list[str]:
    return [f"Story {i}. " + STORY * (1 + i % 3) + f"The end of {i}.\n" for i in range(n)]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text(f"{END_OF_TEXT}\n".join(texts), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a data folder of 20 documents."""
    prepare([write(tmp_path / "stories.txt", documents(20))], tmp_path / "data", vocab_size=300, validation=0.2)
    return tmp_path / "data"


def text_of(folder: Path, split: str) -> str:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = PackedTokens.open(folder, split).tokens.tolist()
    text: str = tokenizer.decode(ids, skip_special_tokens=False)
    return text


# ---- prepare ----


@pytest.mark.quick
def test_every_document_is_in_one_split_and_decodes_to_its_text(folder: Path) -> None:
    parts = {split: text_of(folder, split).split(END_OF_TEXT) for split in ("train", "validation")}
    assert parts["train"].pop() == parts["validation"].pop() == "", "each document must end with eos"
    assert len(parts["validation"]) == 4
    assert sorted(parts["train"] + parts["validation"]) == sorted(documents(20))


@pytest.mark.quick
def test_meta_json_describes_the_files(folder: Path) -> None:
    meta = load_meta(folder)
    assert meta.dtype == "uint16"
    assert meta.vocab_size == 300
    assert sum(split.bytes for split in meta.splits.values()) == sum(len(text) for text in documents(20))
    for name, split in meta.splits.items():
        assert split.tokens == len(PackedTokens.open(folder, name)) == (folder / split.file).stat().st_size // 2
    assert meta.eos_id == Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(END_OF_TEXT)
    assert [source.name for source in meta.sources] == ["stories.txt"]


@pytest.mark.quick
def test_the_same_texts_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    prepare([tmp_path / "stories.txt"], again, vocab_size=300, validation=0.2)
    for name in ("train.bin", "validation.bin", "tokenizer.json", "meta.json"):
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    other = tmp_path / "other"
    prepare([tmp_path / "stories.txt"], other, vocab_size=300, validation=0.2, seed=1)
    assert (folder / "validation.bin").read_bytes() != (other / "validation.bin").read_bytes()


any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(any_text, min_size=1, max_size=6), size=st.sampled_from([1, 7, 64, 1 << 16]))
def test_any_text_in_any_pieces_decodes_to_itself(
    texts: list[str], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The texts have all kinds of line ends, rare characters and empty documents, and are read in very small pieces."""
    tmp_path = tmp_path_factory.mktemp("any")
    texts = [text for text in texts if text.strip() != END_OF_TEXT and END_OF_TEXT not in text]
    path = tmp_path / "text.txt"
    path.write_bytes("".join(f"{text}\n{END_OF_TEXT}\n" for text in texts).encode("utf-8"))
    usual = preparing.PIECE
    preparing.PIECE = size
    try:
        if not texts:
            with pytest.raises(TinyNNValueError, match="no text"):
                prepare([path], tmp_path / "data", vocab_size=257, validation=0)
            return
        prepare([path], tmp_path / "data", vocab_size=257, validation=0)
    finally:
        preparing.PIECE = usual
    assert text_of(tmp_path / "data", "train") == "".join(f"{text}\n{END_OF_TEXT}" for text in texts)


def test_a_very_long_line_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dividing, "_LONGEST_LINE", 100)
    monkeypatch.setattr(text_files, "_READ", 33)  # the pieces are so small that characters are cut in two
    text = "añ€😀" * 300
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    prepare([tmp_path / "long.txt"], tmp_path / "data", vocab_size=257, validation=0)
    assert text_of(tmp_path / "data", "train") == text + END_OF_TEXT


def test_cutting_a_long_line_between_words_gives_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long.txt").write_text(STORY.replace("\n", " ") * 50, encoding="utf-8")
    prepare([tmp_path / "long.txt"], tmp_path / "whole", vocab_size=300, validation=0)
    monkeypatch.setattr(dividing, "_LONGEST_LINE", 100)
    monkeypatch.setattr(text_files, "_READ", 33)
    prepare([tmp_path / "long.txt"], tmp_path / "cut", tokenizer=tmp_path / "whole/tokenizer.json", validation=0)
    assert (tmp_path / "whole/train.bin").read_bytes() == (tmp_path / "cut/train.bin").read_bytes()


def test_the_end_of_a_long_line_is_not_taken_for_a_separator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dividing, "_LONGEST_LINE", 100)
    monkeypatch.setattr(text_files, "_READ", 100)
    text = "x" * 100 + "---\nmore\n"
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    prepare([tmp_path / "long.txt"], tmp_path / "data", vocab_size=257, validation=0, separator="---", eos="")
    assert text_of(tmp_path / "data", "train") == text


def test_batches_of_pieces_have_a_limit_on_their_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If 64 lines of one megabyte each were encoded together, gigabytes of memory would be needed."""
    batches: list[int] = []

    def watched(model: Tokenizer, texts: list[str], name: str) -> list[list[int]]:
        batches.append(sum(map(len, texts)))
        return token_ids(model, texts, name)

    monkeypatch.setattr(dividing, "token_ids", watched)
    monkeypatch.setattr(dividing, "_BATCH_TEXT", 10_000)
    (tmp_path / "t.txt").write_text(("word " * 800 + "\n") * 30)
    prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=300)
    assert max(batches) < 20_000
    assert sum(batches) == 30 * 4001


def test_the_end_of_a_single_document_becomes_the_validation_split(tmp_path: Path) -> None:
    text = "".join(f"Line {i} of a long text.\n" for i in range(2000))
    (tmp_path / "one.txt").write_text(text, encoding="utf-8")
    meta = prepare([tmp_path / "one.txt"], tmp_path / "data", vocab_size=300, validation=0.1)
    train, held = text_of(tmp_path / "data", "train"), text_of(tmp_path / "data", "validation")
    assert train + held == text + END_OF_TEXT
    assert meta.splits["validation"].bytes == pytest.approx(len(text) * 0.1, rel=0.15)


def test_an_existing_tokenizer_is_used_unchanged(folder: Path, tmp_path: Path) -> None:
    meta = prepare([tmp_path / "stories.txt"], tmp_path / "b", tokenizer=folder / "tokenizer.json", validation=0.2)
    assert (tmp_path / "b" / "train.bin").read_bytes() == (folder / "train.bin").read_bytes()
    assert meta.vocab_size == 300


def test_truncation_and_padding_of_a_tokenizer_are_ignored(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(100)
    tokenizer.enable_padding(pad_id=0, pad_token=END_OF_TEXT)
    tokenizer.save(str(tmp_path / "batching.json"))
    prepare([tmp_path / "stories.txt"], tmp_path / "b", tokenizer=tmp_path / "batching.json", validation=0.2)
    for name in ("train.bin", "validation.bin", "tokenizer.json"):
        assert (tmp_path / "b" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_tokenizer_with_random_results_is_refused(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["dropout"] = 0.1
    (tmp_path / "dropout.json").write_text(json.dumps(described))
    with pytest.raises(TinyNNValueError, match=r"dropout\.json cannot be used: the dropout is 0\.1"):
        prepare([tmp_path / "stories.txt"], tmp_path / "b", tokenizer=tmp_path / "dropout.json")


@pytest.mark.parametrize("eos", ["a", " ", "\u0120", "!", "the", "the end", "\u4f60\u597d"])
def test_an_eos_that_occurs_in_normal_text_is_refused(eos: str, tmp_path: Path) -> None:
    write(tmp_path / "t.txt", documents(3))
    with pytest.raises(TinyNNValueError, match=r"^eos: .* could occur in a text"):
        prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=300, eos=eos)


def test_an_eos_that_a_tokenizer_produces_from_text_is_refused(folder: Path, tmp_path: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    described["model"]["vocab"]["!!"] = 300
    described["model"]["merges"].append(["!", "!"])
    (tmp_path / "t.json").write_text(json.dumps(described))
    with pytest.raises(TinyNNValueError, match=r"^eos: '!!' is a token of ordinary text"):
        prepare([tmp_path / "stories.txt"], tmp_path / "b", tokenizer=tmp_path / "t.json", eos="!!")


def test_a_tokenizer_that_drops_characters_is_refused(tmp_path: Path) -> None:
    from tokenizers import models, pre_tokenizers, trainers

    model = Tokenizer(models.WordLevel(unk_token="?"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.train_from_iterator(["a b"], trainers.WordLevelTrainer(special_tokens=["?", END_OF_TEXT]))
    model.save(str(tmp_path / "words.json"))
    write(tmp_path / "t.txt", ["a  b\n"])
    with pytest.raises(TinyNNValueError, match=r"change the text of .*t\.txt.*byte-level"):
        prepare([tmp_path / "t.txt"], tmp_path / "data", tokenizer=tmp_path / "words.json")


@pytest.mark.parametrize(
    ("content", "changes", "mentions"),
    [
        (b"", {}, "contain no text"),
        (b"abc\n\xff\xfe\n", {}, "not UTF-8: byte 4 is 0xff"),
        (b"ok \xe2\x82", {}, "not UTF-8: byte 3 is 0xe2"),
        (b"text\n", {"vocab_size": 256}, "vocab_size"),
        (b"text\n", {"vocab_size": None}, "neither was given"),
        (b"text\n", {"validation": 1.0}, "validation"),
        (b"text\n", {"validation": float("nan")}, "validation"),
        (b"text\n", {"separator": "a\nb"}, "separator must be one line"),
        (b"text\n", {"seed": -1}, "seed"),
    ],
)
def test_wrong_input_of_prepare_is_named_and_leaves_no_files(
    content: bytes, changes: dict[str, Any], mentions: str, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(TinyNNValueError, match=mentions):
        prepare([tmp_path / "t.txt"], tmp_path / "data", **{"vocab_size": 300, **changes})
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_an_interrupted_preparation_leaves_no_files(tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, in_all: int) -> None:
        if stage == "encoding":
            raise KeyboardInterrupt

    text = write(tmp_path / "t.txt", documents(20))
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "a" / "data", tmp_path / "empty"):
        with pytest.raises(KeyboardInterrupt):
            prepare([text], out, vocab_size=300, progress=interrupt)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "t.txt"]


def test_a_folder_that_is_not_empty_stays_unchanged(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TinyNNValueError, match=r"not an empty folder; use another path, like .*data-2"):
        prepare([tmp_path / "stories.txt"], folder, vocab_size=300)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- reading ----


def spoil_meta(folder: Path, **changes: Any) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **changes}))


def spoil_split(folder: Path, **changes: Any) -> None:
    splits = json.loads((folder / "meta.json").read_text())["splits"]
    spoil_meta(folder, splits={**splits, "train": {**splits["train"], **changes}})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("damage", "mentions"),
    [
        (lambda f: (f / "meta.json").unlink(), "is not a data folder"),
        (lambda f: (f / "meta.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "meta.json").write_bytes(b"\xff"), "cannot be read"),
        (lambda f: (f / "meta.json").write_text("[" * 100_000), "cannot be read"),
        (lambda f: (f / "meta.json").write_text("[]"), "must have the format 'toynn-data', got None"),
        (lambda f: spoil_meta(f, version=2), "has version 2 of its format, but toynn .* reads only versions up to 1"),
        (lambda f: spoil_meta(f, version=0), "version must be 1 or above, got 0"),
        (lambda f: spoil_meta(f, format="gguf"), "format"),
        (lambda f: spoil_meta(f, dtype="int8"), "dtype"),
        (lambda f: spoil_meta(f, vocab_size=2**17), "vocab_size must be an integer from 1 to 65536"),
        (lambda f: spoil_meta(f, vocab_size=True), "vocab_size"),
        (lambda f: spoil_meta(f, vocab_size=260), "eos_id|contains the token id 299"),
        (lambda f: spoil_meta(f, eos_id=300), "eos_id must be an integer from 0 to 299, got 300"),
        (lambda f: spoil_meta(f, surprise=1), "unknown key 'surprise'"),
        (lambda f: spoil_meta(f, splits={}), "splits must have the keys train and validation, got none"),
        (lambda f: spoil_split(f, file="../x"), r"splits\.train\.file must be one of 'train\.bin', got '\.\./x'"),
        (lambda f: spoil_split(f, tokens=-1), r"splits\.train: tokens must be an integer from 0"),
        (lambda f: spoil_split(f, words=1), r"unknown key 'splits\.train\.words'"),
        (
            lambda f: spoil_meta(f, sources=[{"name": "a", "bytes": "3", "sha256": ""}]),
            r"sources\[0\]\.bytes must",
        ),
        (lambda f: spoil_meta(f, sources=[{"name": "a", "bytes": 3}]), r"the key 'sources\[0\]\.sha256' is missing"),
        (lambda f: (f / "train.bin").unlink(), "missing"),
        (lambda f: (f / "train.bin").write_bytes(b"abc"), "3 bytes"),
        (lambda f: flip(f / "train.bin"), "sha256"),
    ],
)
def test_damaged_data_is_refused_with_the_reason(folder: Path, damage: Any, mentions: str) -> None:
    damage(folder)
    with pytest.raises(TinyNNValueError, match=mentions):
        PackedTokens.open(folder, "train")


def test_only_the_two_splits_can_be_opened(folder: Path) -> None:
    with pytest.raises(TinyNNValueError, match="split must be one of train, validation"):
        PackedTokens.open(folder, "test")


# ---- windows ----

tokens_and_t = st.tuples(st.integers(2, 300), st.integers(1, 40)).filter(lambda pair: pair[0] > pair[1])


@settings(max_examples=100, deadline=None)
@given(shape=tokens_and_t, seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 3))
def test_an_epoch_visits_every_window_once_and_no_token_twice(shape: tuple[int, int], seed: int, epoch: int) -> None:
    n, t = shape
    tokens = np.arange(n, dtype=np.uint16)
    batcher = WindowBatcher(tokens, t, seed)
    per_epoch = (n - 1) // t
    seen: list[int] = []
    for i in range(epoch * per_epoch, (epoch + 1) * per_epoch):
        ids, targets = batcher.window(i)
        assert ids.dtype == targets.dtype == np.int32
        assert (targets == ids + 1).all(), "each target must be the next token"
        seen += ids.tolist()
    assert len(seen) == len(set(seen)) == per_epoch * t
    assert sorted(seen) == list(range(min(seen), min(seen) + per_epoch * t)), "windows must be adjacent"


@settings(max_examples=50, deadline=None)
@given(
    shape=tokens_and_t,
    seed=st.integers(0, 1000),
    start=st.integers(0, 500),
    sizes=st.lists(st.integers(1, 9), min_size=1),
)
def test_the_order_of_windows_does_not_depend_on_the_batches(
    shape: tuple[int, int], seed: int, start: int, sizes: list[int]
) -> None:
    n, t = shape
    tokens = np.random.default_rng(0).integers(0, 1000, n).astype(np.uint32)
    straight = WindowBatcher(tokens, t, seed)
    total = sum(sizes)
    ids, targets = straight.batch(start, total)
    cut = WindowBatcher(tokens, t, seed)
    parts, at = [], start
    for size in sizes:
        parts.append(cut.batch(at, size))
        at += size
    assert np.concatenate([part[0] for part in parts]).tobytes() == ids.tobytes()
    assert np.concatenate([part[1] for part in parts]).tobytes() == targets.tobytes()


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    tokens = np.arange(10_001, dtype=np.uint16)

    def starts(seed: int, epoch: int) -> list[int]:
        batcher = WindowBatcher(tokens, 100, seed)
        return [batcher.start_of(i) for i in range(epoch * 100, (epoch + 1) * 100)]

    assert starts(0, 0) != starts(0, 1)
    assert starts(0, 0) != starts(1, 0)
    assert starts(0, 5) == starts(0, 5)


@pytest.mark.quick
def test_a_batch_equals_its_windows_across_any_number_of_epochs() -> None:
    tokens = np.random.default_rng(0).integers(0, 60_000, 47).astype(np.uint16)
    for t_seq in (1, 5, 46):
        batcher = WindowBatcher(tokens, t_seq, 3)
        ids, targets = batcher.batch(7, 200)
        windows = [WindowBatcher(tokens, t_seq, 3).window(7 + i) for i in range(200)]
        assert ids.tobytes() == b"".join(window[0].tobytes() for window in windows)
        assert targets.tobytes() == b"".join(window[1].tobytes() for window in windows)
        starts = [batcher.start_of(7 + i) for i in range(200)]
        assert ids.tobytes() == np.concatenate([tokens[at : at + t_seq] for at in starts]).astype(np.int32).tobytes()


def test_a_batch_needs_as_much_memory_as_is_checked_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version made two arrays and a tuple for each window, and needed 27 times the checked memory."""
    import tracemalloc
    from contextlib import contextmanager

    asked: list[int] = []

    @contextmanager
    def watched(name: str, nbytes: int, what: str) -> Iterator[None]:
        asked.append(nbytes)
        yield

    monkeypatch.setattr("toynn.data.windows.memory_for", watched)
    batcher = WindowBatcher(np.arange(3000, dtype=np.uint16), 1, 0)
    batcher.batch(0, 10)
    asked.clear()
    tracemalloc.start()
    try:
        batcher.batch(0, 200_000)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < asked[0] + 200_000


def test_a_failed_draw_of_an_epoch_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an earlier version, a failed draw left the offset of the new epoch with the order of the old epoch."""
    from contextlib import contextmanager

    tokens = np.arange(1009, dtype=np.uint16)
    batcher = WindowBatcher(tokens, 10, 0)
    before = [batcher.start_of(i) for i in range(100)]

    @contextmanager
    def refused(name: str, nbytes: int, what: str) -> Iterator[None]:
        raise MemoryError
        yield

    with monkeypatch.context() as patch:
        patch.setattr("toynn.data.windows.memory_for", refused)
        for epoch in range(1, 9):
            with pytest.raises(MemoryError):
                batcher.start_of(100 * epoch)
    assert [batcher.start_of(i) for i in range(100)] == before


def test_threads_that_read_different_epochs_get_the_right_windows() -> None:
    tokens = np.arange(1009, dtype=np.uint16)
    expected = {i: WindowBatcher(tokens, 10, 0).start_of(i) for i in (3, 103, 203, 303)}
    shared = WindowBatcher(tokens, 10, 0)
    wrong: list[int] = []

    def read(i: int) -> None:
        wrong.extend(i for _ in range(2000) if shared.start_of(i) != expected[i])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=read, args=[i]) for i in expected]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


@pytest.mark.parametrize(
    ("tokens", "t_seq", "seed", "error", "mentions"),
    [
        (np.ma.masked_array(np.zeros(5, np.uint16), True), 2, 0, TinyNNTypeError, "plain numpy array, got MaskedArray"),
        (np.zeros(5, np.uint16), 5, 0, TinyNNValueError, "needs t_seq"),
        (np.zeros(5, np.float32), 2, 0, TinyNNValueError, "array of integers"),
        (np.zeros((2, 5), np.uint16), 2, 0, TinyNNValueError, "flat"),
        (np.zeros(5, np.uint16), 0, 0, TinyNNValueError, "t_seq"),
        (np.zeros(5, np.uint16), 2, -1, TinyNNValueError, "seed"),
        (np.zeros(5, np.uint16), 2.0, 0, TinyNNTypeError, "t_seq"),
    ],
)
def test_impossible_windows_are_refused(
    tokens: Any, t_seq: Any, seed: int, error: type[Exception], mentions: str
) -> None:
    with pytest.raises(error, match=mentions):
        WindowBatcher(tokens, t_seq, seed)


# ---- the command ----


def test_toynn_prepare_writes_the_data_and_reports_it(tmp_path: Path) -> None:
    text = write(tmp_path / "stories.txt", documents(10))
    done = toynn("prepare", text, "--vocab-size", "280", "--out", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["vocab_size"] == 280
    assert told["splits"]["train"]["tokens"] == len(PackedTokens.open(tmp_path / "data", "train"))
    again = toynn("prepare", text, "--vocab-size", "280", "--out", tmp_path / "data")
    assert again.returncode == 2
    assert again.stderr.startswith("toynn: --out: ")
    assert len(again.stderr.splitlines()) == 1
    shutil.rmtree(tmp_path / "data")
    plain = toynn("prepare", text, "--vocab-size", "280", "--out", tmp_path / "data")
    assert plain.returncode == 0
    assert max(map(len, plain.stdout.splitlines())) <= 80 or str(tmp_path) in plain.stdout
    assert plain.stdout.startswith("train")
