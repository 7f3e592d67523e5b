"""Files and folders replace others only when they are complete."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toynn import TinyNNValueError
from toynn.storage.durable_files import replace_file, replacing_file, replacing_folder


class BrokenError(Exception):
    """An error that a test raises while it writes a file or folder."""


def write_and_break(path: Path) -> None:
    path.write_text("half")
    raise BrokenError


def test_a_file_appears_when_its_block_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replacing_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_an_error_that_names_no_file_gets_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "old").mkdir()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a'"):
        replace_file(tmp_path / "a", b"new")
    with pytest.raises(OSError, match=r"No space left on device: '.*/b'"), replacing_folder(tmp_path / "b"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("there", [True, False])
def test_after_an_error_the_old_file_is_unchanged(there: bool, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if there:
        path.write_text("old")
    with pytest.raises(BrokenError), replacing_file(path) as temporary:
        write_and_break(temporary)
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == ({"a": "old"} if there else {})
    with pytest.raises(FileNotFoundError), replacing_file(path):
        pass  # the block writes no file
    assert path.exists() == there


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_another_process_made_is_kept(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise PermissionError(self, target)

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", no_links)
    path = tmp_path / "a"
    with replacing_file(path, replace=False) as temporary:
        temporary.write_text("ours")
    assert path.read_text() == "ours"
    path.unlink()

    def write() -> None:
        with replacing_file(path, replace=False) as temporary:
            temporary.write_text("ours")
            path.write_text("theirs")

    with pytest.raises(TinyNNValueError, match=r"another process has created .*a in the meantime"):
        write()
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"a": "theirs"}


def test_a_folder_that_must_not_be_replaced_is_kept(tmp_path: Path) -> None:
    def check() -> None:
        raise TinyNNValueError("kept")

    def write() -> None:
        with replacing_folder(tmp_path / "a", check=check) as temporary:
            (temporary / "b").write_text("ours")
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "b").write_text("theirs")

    with pytest.raises(TinyNNValueError, match="kept"):
        write()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "b").read_text() == "theirs"


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a folder"])
def test_a_folder_appears_when_its_block_is_done(there: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if there != "nothing":
        path.mkdir()
    if there == "a folder":
        (path / "old").write_text("old")
    before = sorted(entry.name for entry in path.iterdir()) if path.exists() else None
    with pytest.raises(BrokenError), replacing_folder(path) as temporary:
        write_and_break(temporary / "half")
    assert before == (sorted(entry.name for entry in path.iterdir()) if path.exists() else None)
    with replacing_folder(path) as temporary:
        (temporary / "new").write_text("new")
        assert before == (sorted(entry.name for entry in path.iterdir()) if path.exists() else None)
    assert {entry.name: entry.read_text() for entry in path.iterdir()} == {"new": "new"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").write_text("old")
    rename = Path.rename

    def refuses(self: Path, target: Path) -> Path:
        if self.name.startswith(".tmp-"):
            raise BrokenError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(BrokenError), replacing_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert [entry.name for entry in path.iterdir()] == ["old"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


KILLED = """
import os, signal, sys
from pathlib import Path
from toynn.storage import durable_files
call = int(sys.argv[2])
seen = 0
def counted(function):
    def run(*args, **kwargs):
        global seen
        seen += 1
        if seen == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return run
for name in ("rename", "replace", "mkdir"):
    setattr(Path, name, counted(getattr(Path, name)))
os.fsync = counted(os.fsync)
durable_files.shutil.rmtree = counted(durable_files.shutil.rmtree)
with durable_files.replacing_folder(Path(sys.argv[1])) as temporary:
    (temporary / "a").write_text("new")
    (temporary / "b").write_text("new")
"""


def test_a_kill_at_any_time_leaves_the_old_or_the_new_folder_complete(tmp_path: Path) -> None:
    ends = set()
    for call in range(1, 30):
        folder = tmp_path / str(call)
        path = folder / "hf"
        path.mkdir(parents=True)
        for name in "ab":
            (path / name).write_text("old")
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(call)], check=False)
        whole = [
            {entry.name: entry.read_text() for entry in place.iterdir()} for place in folder.iterdir() if place.is_dir()
        ]
        assert {"a": "old", "b": "old"} in whole or {"a": "new", "b": "new"} in whole
        ends.add(path.exists())
        if done.returncode == 0:
            assert whole == [{"a": "new", "b": "new"}]
            break
        assert done.returncode == -signal.SIGKILL
    else:
        raise AssertionError("it never came to an end")
    assert call > 6, "the test must kill at several places"
    assert [entry.name for entry in folder.iterdir()] == ["hf"]
    assert True in ends


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_remains_of_killed_processes_are_removed_and_no_other_files(tmp_path: Path) -> None:
    mine = [".tmp-7-0123abcd-other", ".tmp-7-0123abcd-a.txt", ".tmp-notes-a", "tmp-7-0123abcd-a"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".tmp-7-0123abcd-a").mkdir()
    (tmp_path / ".tmp-7-0123abcd-a" / "half").write_text("half")
    (tmp_path / ".tmp-8-0123abcd-a").write_text("half")
    with replacing_folder(tmp_path / "a") as temporary:
        (temporary / "new").write_text("new")
    assert names_in(tmp_path) == sorted(["a", *mine])
    (tmp_path / ".tmp-7-0123abcd-b").write_text("half")
    replace_file(tmp_path / "b", b"new")
    assert names_in(tmp_path) == sorted(["a", "b", *mine])


def test_a_folder_that_was_moved_away_stays_until_a_new_one_is_complete(tmp_path: Path) -> None:
    for name in (".old-7-0123abcd-a", ".tmp-7-0123abcd-a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b").write_text(name)
    with pytest.raises(BrokenError), replacing_folder(tmp_path / "a") as temporary:
        write_and_break(temporary / "half")
    assert names_in(tmp_path) == [".old-7-0123abcd-a", ".tmp-7-0123abcd-a"]
    with replacing_folder(tmp_path / "a") as temporary:
        (temporary / "new").write_text("new")
    assert names_in(tmp_path) == ["a"]


def test_files_that_another_process_is_writing_are_not_removed(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "a") as theirs:
        (theirs / "b").write_text("theirs")
        script = "import sys; from pathlib import Path; from toynn.storage.durable_files import replacing_folder as r\n"
        script += "with r(Path(sys.argv[1])) as temporary: (temporary / 'b').write_text('ours')"
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=True)
        assert (theirs / "b").read_text() == "theirs"
        assert (tmp_path / "a" / "b").read_text() == "ours"
    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a" / "b").read_text() == "theirs"
