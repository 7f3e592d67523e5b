"""Files of packed token ids, with and without the header TOYC, are read as written; wrong files are refused."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toynn import FileFormatError, TinyNNTypeError, TinyNNValueError, prepare_ids
from toynn.data import DataFolder, PackedTokens
from toynn.data.token_file import open_token_file, write_token_file

pytestmark = pytest.mark.quick


def toyc(ids: list[int], vocab: int = 50, version: int = 1, reserved: int = 0, magic: bytes = b"TOYC") -> bytes:
    """Return the bytes of a file with the header, by its definition."""
    return magic + struct.pack("<III", version, vocab, reserved) + flat(ids)


def flat(ids: list[int]) -> bytes:
    return struct.pack(f"<{len(ids)}i", *ids)


def written(folder: Path, content: bytes, name: str = "ids.bin") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# ---- the file ----


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 49), min_size=1, max_size=60), header=st.booleans())
def test_ids_are_read_as_they_were_written(
    ids: list[int], header: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("ids"), toyc(ids) if header else flat(ids))
    with open_token_file("paths", path) as file:
        assert (file.vocab, file.n) == (50 if header else None, len(ids))
        (piece,) = file.pieces(50)
        assert piece.dtype == np.int32
        assert piece.tolist() == ids
        assert file.read(len(ids) - 1, 1, 50).tolist() == ids[-1:]
    own = path.with_name("own.bin")
    write_token_file(own, ids, 50 if header else None)
    assert own.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "at least one id"),
        (toyc([]), "at least one id"),
        (b"TOYC", "header must have 16 bytes, but the file has only 4"),
        (toyc([1])[:15], "header must have 16 bytes, but the file has only 15"),
        (toyc([1])[:-1], "3 bytes of ids are not a multiple of 4"),
        (flat([1, 2])[:-1], "7 bytes of ids are not a multiple of 4"),
        (toyc([1], version=2), "the version of the header is 2, but toynn reads only 1"),
        (toyc([1], reserved=7), "the reserved number in the header must be 0, got 7"),
        (toyc([1], vocab=0), "the vocabulary in the header must have 1 to 2147483647 ids, got 0"),
        (toyc([1], vocab=2**32 - 1), "the vocabulary in the header must have 1 to 2147483647 ids, got 4294967295"),
        (toyc([3, 50]), "the id 50 at position 1 is outside the vocabulary, 0 to 49"),
        (toyc([3, 4, -1]), "the id -1 at position 2 is outside the vocabulary, 0 to 49"),
        (flat([1, 2]), "has no header with the size of the vocabulary"),
        (b"a text, not token ids", "21 bytes of ids are not a multiple of 4"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is only a Git LFS pointer"),
        (toyc([3]), "1 id cannot be divided"),
    ],
)
def test_a_wrong_file_is_refused_by_name_as_training_data(content: bytes, says: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(TinyNNValueError) as caught:
        DataFolder.open(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, error in ((tmp_path / "pipe", FileFormatError), (tmp_path / "none", FileNotFoundError)):
        with pytest.raises(error), open_token_file("paths", path):
            pass
    with pytest.raises(TinyNNTypeError, match="paths must be a path"), open_token_file("paths", 3):
        pass


def test_wrong_ids_are_not_written(tmp_path: Path) -> None:
    for ids, vocab, says in (
        ([-1], None, "ids must be from 0 to 2147483646, got -1 to -1"),
        ([5], 5, "ids must be from 0 to 4, got 5 to 5"),
        ([[1]], None, "ids must be a flat sequence"),
        ([1], 0, "vocab must be an integer from 1"),
    ):
        with pytest.raises(TinyNNValueError, match=says):
            write_token_file(tmp_path / "ids.bin", ids, vocab)
    assert list(tmp_path.iterdir()) == []


# ---- data ----


def test_a_file_with_a_header_is_training_data_with_its_end_for_validation(tmp_path: Path) -> None:
    ids = [i * 7 % 50 for i in range(100)]
    data = DataFolder.open(written(tmp_path, toyc(ids)))
    assert data.train.tokens.tolist() == ids[:95]
    assert data.validation.tokens.tolist() == ids[95:]
    assert (data.meta.vocab_size, data.tokenizer, data.meta.eos_id) == (50, None, None)
    (tmp_path / "ids.bin").write_bytes(b"")  # the ids are in memory: the file may be changed
    assert data.train.tokens[:3].tolist() == ids[:3]
    other = DataFolder.open(written(tmp_path, toyc([*ids[:-1], ids[-1] + 1]), "other.bin"))
    assert other.meta.splits["train"].sha256 == data.meta.splits["train"].sha256
    assert other.meta.splits["validation"].sha256 != data.meta.splits["validation"].sha256


def test_files_become_a_data_folder_in_their_order(tmp_path: Path) -> None:
    a, b = [i % 50 for i in range(37)], [49 - i % 50 for i in range(23)]
    paths = [written(tmp_path, toyc(a), "a.bin"), written(tmp_path, flat(b), "b.bin")]
    prepared = prepare_ids(paths, tmp_path / "data", validation=0.5)
    assert prepared.tokens == {"train": 30, "validation": 30}
    assert (prepared.vocab_size, prepared.documents) == (50, None)
    split = {name: PackedTokens.open(tmp_path / "data", name).tokens.tolist() for name in ("train", "validation")}
    assert split["train"] + split["validation"] == a + b
    meta = json.loads((tmp_path / "data" / "meta.json").read_text())
    assert (meta["dtype"], meta["tokenizer"], meta["splits"]["train"]["documents"]) == ("uint16", None, None)
    assert [source["name"] for source in meta["sources"]] == ["a.bin", "b.bin"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["meta.json", "train.bin", "validation.bin"]
    assert DataFolder.open(tmp_path / "data").tokenizer is None


def test_a_vocabulary_of_more_than_two_bytes_is_kept(tmp_path: Path) -> None:
    ids = [0, 70_000, 65_536, 3]
    prepared = prepare_ids(written(tmp_path, flat(ids)), tmp_path / "data", vocab_size=70_001, validation=0)
    assert prepared.meta.dtype == "uint32"
    assert PackedTokens.open(tmp_path / "data", "train").tokens.tolist() == ids
    assert prepared.tokens["validation"] == 0


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (flat([1, 2]), {}, "vocab_size: .* has no header with the size of the vocabulary"),
        (toyc([1, 2]), {"vocab_size": 51}, "vocab_size = 51 differs from 50, the size in the header"),
        (flat([1, 2]), {"vocab_size": 2}, "the id 2 at position 1 is outside the vocabulary, 0 to 1"),
        (flat([1, 2]), {"vocab_size": 0}, "vocab_size must be an integer from 1"),
        (toyc([1, 2]), {"validation": 1.0}, "validation must be at least 0 and below 1"),
        (toyc([1, 2]), {"eos": "<end>"}, "eos: the id of '<end>' is not known without a tokenizer"),
        (toyc([1]), {}, "validation: 1 id cannot be divided"),
    ],
)
def test_a_wrong_file_or_option_leaves_no_folder(
    content: bytes, options: dict[str, object], says: str, tmp_path: Path
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(TinyNNValueError, match=says):
        prepare_ids(path, tmp_path / "data", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_files_whose_headers_differ_are_refused(tmp_path: Path) -> None:
    paths = [written(tmp_path, toyc([1, 2]), "a.bin"), written(tmp_path, toyc([1, 2], vocab=60), "b.bin")]
    with pytest.raises(TinyNNValueError, match=r"vocab_size = 50 differs from 60, .*b\.bin"):
        prepare_ids(paths, tmp_path / "data")
