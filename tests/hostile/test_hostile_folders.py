"""Damaged or hostile data folders are refused with the reason.

toynn does not wait for a pipe or read an endless device.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processes import run_with_toynn
from toynn import TinyNNTypeError, TinyNNValueError
from toynn.data import DataMeta, PackedTokens, Split, TokenizerFile, load_meta
from toynn.data.prepare import prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a data folder with 100 training tokens and no validation tokens."""
    raw = np.arange(100, dtype="<u2").tobytes()
    (tmp_path / "train.bin").write_bytes(raw)
    (tmp_path / "validation.bin").write_bytes(b"")
    splits = {
        "train": Split("train.bin", 100, 100, hashlib.sha256(raw).hexdigest()),
        "validation": Split("validation.bin", 0, 0, hashlib.sha256(b"").hexdigest()),
    }
    (tmp_path / "meta.json").write_text(
        DataMeta("uint16", 100, splits, TokenizerFile("tokenizer.json", "0" * 64), None, None, []).to_json()
    )
    return tmp_path


def replaced(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink()
    make(path)


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pipe": (os.mkfifo, "is not a regular file"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    "a folder": (lambda path: path.mkdir(), "is not a regular file|cannot be read"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
    "a link to nothing": (lambda path: path.symlink_to(path.with_name("nothing")), "has no|is missing"),
}


@pytest.mark.parametrize("file", ["meta.json", "train.bin"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_not_a_regular_file_is_refused_at_once(folder: Path, file: str, name: str) -> None:
    make, mentions = HOSTILE[name]
    replaced(folder / file, make)
    with pytest.raises(TinyNNValueError, match=mentions):
        PackedTokens.open(folder, "train")


def test_a_link_to_a_regular_file_is_accepted(folder: Path) -> None:
    (folder / "train.bin").rename(folder / "elsewhere")
    (folder / "train.bin").symlink_to(folder / "elsewhere")
    assert len(PackedTokens.open(folder, "train")) == 100
    assert len(PackedTokens.open(folder, "validation")) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_without_read_permission_is_refused(folder: Path) -> None:
    (folder / "train.bin").chmod(0)
    with pytest.raises(TinyNNValueError, match="cannot be read"):
        PackedTokens.open(folder, "train")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 200_000, b'{"version": ' + b"9" * 5000 + b"}", b"", b"NaN", b"\0"]
)
def test_a_meta_file_that_is_not_valid_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "meta.json").write_bytes(content)
    with pytest.raises(TinyNNValueError, match=r"meta\.json"):
        load_meta(folder)


def test_a_meta_file_that_is_too_large_is_refused(folder: Path) -> None:
    with (folder / "meta.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(TinyNNValueError, match="larger than"):
        load_meta(folder)


@pytest.mark.parametrize("path", [None, 3, b"\xff", ["a"], object()])
def test_the_error_for_a_folder_that_is_not_a_path_names_it(path: Any) -> None:
    with pytest.raises(TinyNNTypeError, match=r"^folder"):
        load_meta(path)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, ""])
def test_a_path_that_does_not_exist_is_refused(path: str) -> None:
    with pytest.raises(TinyNNValueError, match=r"meta\.json"):
        load_meta(Path(path))


def test_open_tokens_do_not_change_when_their_file_is_replaced(folder: Path) -> None:
    packed = PackedTokens.open(folder, "train")
    (folder / "new").write_bytes(bytes(200))
    (folder / "new").replace(folder / "train.bin")
    assert packed.tokens.tolist() == list(range(100))
    with pytest.raises(TinyNNValueError, match="damaged"):
        PackedTokens.open(folder, "train")


def test_a_file_that_changes_while_it_is_opened_does_not_crash_the_process(folder: Path) -> None:
    """The file grows and shrinks all the time. toynn either opens it in a complete state or refuses it."""
    meta = json.loads((folder / "meta.json").read_text())
    raw = np.zeros(400_000, dtype="<u2").tobytes()
    meta["splits"]["train"].update(tokens=400_000, sha256=hashlib.sha256(raw).hexdigest())
    (folder / "meta.json").write_text(json.dumps(meta))
    out = run_with_toynn(f"""
        from pathlib import Path
        from toynn.data import PackedTokens
        path, raw = Path({str(folder)!r}) / "train.bin", bytes(800_000)
        path.write_bytes(raw)
        stop = threading.Event()
        def change():
            while not stop.is_set():
                os.truncate(path, 100)
                path.write_bytes(raw)
        t = threading.Thread(target=change)
        t.start()
        seen = set()
        for _ in range(300):
            try:
                PackedTokens.open(path.parent, "train")
                seen.add("opened")
            except TinyNNValueError as error:
                seen.add("refused")
        stop.set()
        t.join()
        print(*sorted(seen))
    """)
    assert "refused" in out


@pytest.mark.parametrize("name", ["a pipe", "an endless device", "a folder"])
def test_texts_that_are_not_regular_files_are_refused_at_once(tmp_path: Path, name: str) -> None:
    HOSTILE[name][0](tmp_path / "text")
    with pytest.raises(TinyNNValueError, match=r"^texts: .* is (not a regular file|a folder; name the files in it)"):
        prepare([tmp_path / "text"], tmp_path / "out", vocab_size=300)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a pipe", "an endless device", "a folder"])
def test_a_tokenizer_that_is_not_a_regular_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    HOSTILE[name][0](tmp_path / "tokenizer.json")
    (tmp_path / "text").write_text("some words\n" * 50)
    with pytest.raises(TinyNNValueError, match=r"^tokenizer: .* is not a regular file"):
        prepare([tmp_path / "text"], tmp_path / "out", tokenizer=tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("texts", "out", "options", "mentions"),
    [
        (["a\0b"], "out", {}, r"^texts\[0\] must not contain a NUL"),
        (["text"], "a\0b", {}, "^out must not contain a NUL"),
        (["text"], "out\ud800", {}, "^out must be a path that the file system can represent"),
        (["text"], "out", {"vocab_size": None, "tokenizer": "a\0b"}, "^tokenizer must not contain a NUL"),
        (["text"], "out", {"eos": "<\ud800>"}, "^eos cannot be encoded as UTF-8"),
        (["text"], "out", {"eos": "\udcff"}, "^eos cannot be encoded as UTF-8"),
        (["text"], "out", {"separator": "\udcff"}, "^separator cannot be encoded as UTF-8"),
    ],
)
def test_names_that_are_impossible_for_files_or_tokens_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Any, out: Any, options: dict[str, Any], mentions: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("some words\n" * 50)
    with pytest.raises(TinyNNValueError, match=mentions):
        prepare(texts, out, **{"vocab_size": 300, **options})
    assert not Path("out").exists()


def test_the_error_for_a_wrong_split_lists_the_splits(folder: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"^split must be one of train, validation"):
        PackedTokens.open(folder, np.array(["train", "b"]))  # type: ignore[arg-type]


@pytest.mark.parametrize(("lines", "name"), [(5000, "train.bin"), (400, "tokenizer.json")])
def test_the_error_for_a_full_disk_names_the_file(tmp_path: Path, lines: int, name: str) -> None:
    (tmp_path / "text").write_text("".join(f"some words {i}\n" for i in range(lines)))
    out = run_with_toynn(f"""
        from pathlib import Path
        from toynn.data.prepare import prepare
        folder = Path({str(tmp_path)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            prepare([folder / "text"], folder / "out", vocab_size=300, separator="", validation=0.5)
        except OSError as error:
            print(error.filename)
    """)
    assert out.strip() == str(tmp_path / "out" / name)
    assert not (tmp_path / "out" / "meta.json").exists()


@pytest.mark.parametrize(
    ("texts", "out", "options", "name"),
    [
        ("text", "out", {}, "texts"),
        (None, "out", {}, "texts"),
        ([3], "out", {}, r"texts\[0\]"),
        (["text"], None, {}, "out"),
        (["text"], "out", {"eos": None}, "eos"),
        (["text"], "out", {"separator": b"-"}, "separator"),
        (["text"], "out", {"progress": 5}, "progress"),
        (["text"], "out", {"vocab_size": None, "tokenizer": 5}, "tokenizer"),
    ],
)
def test_errors_of_prepare_name_the_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: Any, out: Any, options: dict[str, Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("some words\n" * 50)
    with pytest.raises(TinyNNTypeError, match=f"^{name} must be"):
        prepare(texts, out, **{"vocab_size": 300, **options})
