"""Files of tensors: their bytes are those of the safetensors library, and their SHA-256 is returned."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from toynn.storage import hashed_files
from toynn.storage.tensor_files import write_half_tensors, write_tensors


def tensors(n: int) -> dict[str, npt.NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    return {
        "b.weight": draw.standard_normal((n, 3), dtype=np.float32),
        "a": np.float32(1.5) * np.ones(5, np.float32)[::2],  # this array is not contiguous
        "ü": draw.standard_normal((1, 1, 2), dtype=np.float32),
    }


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
@pytest.mark.parametrize("n", [1, 100_003])
@pytest.mark.parametrize("large", [False, True])
def test_the_bytes_are_those_of_the_library(
    metadata: dict[str, str] | None, n: int, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashed_files, "_LARGE", 1 if large else 1 << 40)
    monkeypatch.setattr(hashed_files, "_CHUNK", 3 << 12)  # the file is written in several chunks
    given = tensors(n)
    save_file({name: np.ascontiguousarray(values) for name, values in given.items()}, tmp_path / "want", metadata)
    want = (tmp_path / "want").read_bytes()
    assert write_tensors(tmp_path / "got", given, metadata) == hashlib.sha256(want).hexdigest()
    assert (tmp_path / "got").read_bytes() == want


def test_a_file_has_the_mode_of_a_new_file_and_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "new", tensors(1))
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "new", tensors(1))


def test_half_numbers_are_read_by_the_library(tmp_path: Path) -> None:
    write_half_tensors(tmp_path / "half", given := tensors(7), {"format": "pt"}, "f16")
    for name, values in load_file(tmp_path / "half").items():
        assert (values == given[name].astype(np.float16)).all()


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="the system has no O_DIRECT")
@pytest.mark.parametrize("failure", ["refused", "short"])
def test_a_disk_that_refuses_or_splits_a_direct_write_gets_the_same_bytes(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, pwrite, calls = tensors(9000), os.pwrite, []

    def failing(descriptor: int, data: memoryview, at: int) -> int:
        calls.append(len(data))
        if len(calls) == 2:
            if failure == "refused":
                raise OSError(errno.EINVAL, "Invalid argument")
            return pwrite(descriptor, data[:4096], at)
        return pwrite(descriptor, data, at)

    monkeypatch.setattr(hashed_files, "_LARGE", 1)
    monkeypatch.setattr(hashed_files, "_CHUNK", 4 << 12)
    want = write_tensors(tmp_path / "want", given)
    monkeypatch.setattr(os, "pwrite", failing)
    assert write_tensors(tmp_path / "got", given) == want
    assert (tmp_path / "got").read_bytes() == (tmp_path / "want").read_bytes()
    assert len(calls) > 3


def test_a_full_disk_is_an_oserror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hashed_files, "_LARGE", 1)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "got", tensors(1))


def test_a_file_without_tensors_has_only_a_header(tmp_path: Path) -> None:
    write_tensors(tmp_path / "empty", {})
    assert (tmp_path / "empty").read_bytes() == struct.pack("<Q", 8) + b"{}      "
