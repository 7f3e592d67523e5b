"""Read the log of strace: translate system calls into operations on the files of one folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from file_operations import ROOT, Link, Make, Operation, Remove, Rename, Report, Resize, Sync, Write

# -xx: paths and contents in hexadecimal, so that they cannot contain quotes or commas; -y: the path of each
# descriptor.
OPTIONS = ("-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", str(1 << 26), "-e", "signal=none")
# Calls that change files in a way that the model of the disk does not cover. They are refused if they name a path of
# the folder.
REFUSED = (
    "openat2", "pwritev", "pwritev2", "symlink", "symlinkat", "mknod", "mknodat", "fallocate",
    "sendfile", "copy_file_range", "splice", "sync_file_range", "syncfs", "sync", "msync", "io_uring_setup", "mmap",
)  # fmt: skip
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)(?P<rest>.*)$")
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
_DESCRIPTOR = re.compile(r"^(?P<number>\d+|AT_FDCWD)<(?P<path>[^>]*)>")
_BASE = re.compile(r'iov_base="([^"]*)"')


def _bytes(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal.replace("\\x", ""))


def _text(argument: str) -> str:
    """Return the path in an argument: a quoted path, or the path of a descriptor in angle brackets."""
    return os.fsdecode(
        _HEX.sub(lambda match: _bytes(match[0]).decode("latin-1"), argument.strip('"')).encode("latin-1")
    )


@dataclass
class _Open:
    """An open file. A file that is opened twice has two positions."""

    node: int
    position: int
    appends: bool


class _Reader:
    """Translate one call after another. Keep the number of each path and of each descriptor."""

    def __init__(self, folder: Path, reports: Path) -> None:
        self._folder, self._reports = str(folder), str(reports)
        self._nodes: dict[str, int] = {"": ROOT}
        self._sizes: dict[int, int] = {}
        self._open: dict[str, _Open] = {}  # the open files by the number of the descriptor
        self._last = ROOT

    def operations(self, name: str, arguments: list[str], result: int) -> Iterator[Operation]:
        """Yield the operations of a successful call."""
        if name in REFUSED:
            self._refuse(name, arguments)
        else:
            yield from _READERS[name](self, name, arguments, result)

    def _refuse(self, name: str, arguments: list[str]) -> None:
        shared = name != "mmap" or ("MAP_SHARED" in arguments[3] and "PROT_WRITE" in arguments[2])
        named = any(self._path(argument) is not None for argument in arguments if '"' in argument or "<" in argument)
        if name in ("sync", "io_uring_setup") or (shared and named):
            raise NotImplementedError(f"the program calls {name}, which is not modelled")

    @staticmethod
    def _absolute(first: str, second: str | None = None) -> str:
        """Return a path. first: a path or a descriptor. If `second` is given, it is relative to the folder `first`."""
        match = _DESCRIPTOR.match(first)
        path = _text(match["path"] if match else first)
        if second is not None:
            path = os.path.join(path, _text(second))  # noqa: PTH118  # keeps an absolute second path
        return os.path.normpath(path)

    def _path(self, first: str, second: str | None = None) -> str | None:
        """Return a path relative to the folder, "" for the folder itself, None for a path outside."""
        path = self._absolute(first, second)
        if path == self._folder:
            return ""
        return path[len(self._folder) + 1 :] if path.startswith(f"{self._folder}/") else None

    @staticmethod
    def _number(argument: str) -> str:
        match = _DESCRIPTOR.match(argument)
        return match["number"] if match else argument

    def _file(self, argument: str) -> _Open | None:
        """Return the open file of a descriptor, or None if the file is outside the folder."""
        path = self._path(argument)
        if path is None:
            return None
        file = self._open.get(self._number(argument))
        if file is None or (self._nodes.get(path) != file.node and not argument.endswith("(deleted)")):
            raise NotImplementedError(f"the program uses a descriptor of {path} that a call made which is not modelled")
        return file

    def _made(self, path: str, *, is_folder: bool) -> Make:
        self._last += 1
        self._nodes[path] = self._last
        self._sizes[self._last] = 0
        return Make(path, self._last, is_folder)

    def _resized(self, name: str, arguments: list[str], _: int) -> Iterator[Operation]:
        if name == "truncate":
            path = self._path(arguments[0])
            node = None if path is None else self._nodes[path]
        else:
            file = self._file(arguments[0])
            node = None if file is None else file.node
        if node is not None:
            self._sizes[node] = int(arguments[1])
            yield Resize(node, self._sizes[node])

    def _moved(self, _name: str, arguments: list[str], position: int) -> Iterator[Operation]:
        if (file := self._open.get(self._number(arguments[0]))) is not None:
            file.position = position
        return iter(())

    def _made_folder(self, name: str, arguments: list[str], _: int) -> Iterator[Operation]:
        if path := self._path(*arguments[: 2 if name == "mkdirat" else 1]):
            yield self._made(path, is_folder=True)

    def _removed(self, name: str, arguments: list[str], _: int) -> Iterator[Operation]:
        if path := self._path(*arguments[: 2 if name == "unlinkat" else 1]):
            del self._nodes[path]
            yield Remove(path)

    def _opened(self, name: str, arguments: list[str], result: int) -> Iterator[Operation]:
        number = str(result)
        self._open.pop(number, None)
        path = self._path(*arguments[:2]) if name == "openat" else self._path(arguments[0])
        if path is None:
            return
        flags = "O_WRONLY|O_CREAT|O_TRUNC" if name == "creat" else arguments[2 if name == "openat" else 1]
        if "O_TMPFILE" in flags:
            raise NotImplementedError("the program opens a file without a name, which is not modelled")
        if path not in self._nodes:
            yield self._made(path, is_folder=False)
        elif "O_TRUNC" in flags and self._sizes[self._nodes[path]] > 0:
            self._sizes[self._nodes[path]] = 0
            yield Resize(self._nodes[path], 0)
        self._open[number] = _Open(self._nodes[path], 0, "O_APPEND" in flags)

    def _copied(self, name: str, arguments: list[str], result: int) -> Iterator[Operation]:
        """Record a copy of a descriptor. The copy has the same open file, so both descriptors share one position."""
        if name != "fcntl" or arguments[1].startswith("F_DUPFD"):
            self._open.pop(str(result), None)
            if (file := self._open.get(self._number(arguments[0]))) is not None:
                self._open[str(result)] = file
        return iter(())

    def _written(self, name: str, arguments: list[str], count: int) -> Iterator[Operation]:
        content = b"".join(map(_bytes, _BASE.findall(arguments[1]))) if name == "writev" else _bytes(arguments[1][1:-1])
        if self._absolute(arguments[0]) == self._reports:
            yield from (Report(line) for line in content.decode("utf-8").splitlines())
        file = self._file(arguments[0])
        if file is None:
            return
        if name == "pwrite64":
            offset = int(arguments[3])
        else:
            offset = self._sizes[file.node] if file.appends else file.position
            file.position = offset + count
        self._sizes[file.node] = max(self._sizes[file.node], offset + count)
        yield Write(file.node, offset, content[:count])

    def _synced(self, _name: str, arguments: list[str], _: int) -> Iterator[Operation]:
        if (file := self._file(arguments[0])) is not None:
            yield Sync(file.node, self._path(arguments[0]) or ".")

    def _linked(self, name: str, arguments: list[str], _: int) -> Iterator[Operation]:
        path, target = self._two_paths(arguments)
        if path is None and target is None:
            return
        if not path or not target:
            raise NotImplementedError("the program links a file into the folder or out of it, which is not modelled")
        self._nodes[target] = self._nodes[path]
        yield Link(path, target)

    def _two_paths(self, arguments: list[str]) -> tuple[str | None, str | None]:
        if len(arguments) == 2:
            return self._path(arguments[0]), self._path(arguments[1])
        return self._path(*arguments[:2]), self._path(*arguments[2:4])

    def _renamed(self, _name: str, arguments: list[str], _: int) -> Iterator[Operation]:
        path, target = self._two_paths(arguments)
        if path is None and target is None:
            return
        if not path or not target:
            raise NotImplementedError("the program moves a file into the folder or out of it, which is not modelled")
        if len(arguments) == 5 and arguments[4] not in ("0", "RENAME_NOREPLACE"):
            raise NotImplementedError(f"the program renames with {arguments[4]}, which is not modelled")
        yield Rename(path, target)
        for old in [old for old in self._nodes if old == target or old.startswith(f"{target}/")]:
            del self._nodes[old]
        for old in [old for old in self._nodes if old == path or old.startswith(f"{path}/")]:
            self._nodes[target + old[len(path) :]] = self._nodes.pop(old)


_READERS: dict[str, Callable[[_Reader, str, list[str], int], Iterator[Operation]]] = {
    **dict.fromkeys(("open", "openat", "creat"), _Reader._opened),
    **dict.fromkeys(("dup", "dup2", "dup3", "fcntl"), _Reader._copied),
    **dict.fromkeys(("write", "writev", "pwrite64"), _Reader._written),
    **dict.fromkeys(("truncate", "ftruncate"), _Reader._resized),
    **dict.fromkeys(("fsync", "fdatasync"), _Reader._synced),
    **dict.fromkeys(("rename", "renameat", "renameat2"), _Reader._renamed),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), _Reader._removed),
    **dict.fromkeys(("mkdir", "mkdirat"), _Reader._made_folder),
    **dict.fromkeys(("link", "linkat"), _Reader._linked),
    "lseek": _Reader._moved,
}
# Some calls do not exist on every architecture. With "?", strace ignores an unknown name.
TRACE = ("-e", "trace=" + ",".join(f"?{name}" for name in (*_READERS, *REFUSED)))


def operations_of(lines: Iterable[str], folder: Path, reports: Path) -> list[Operation]:
    """Return the operations that a log of strace describes, on a folder that was empty before.

    reports: a file outside of the folder. Each line that the program writes to this file is a Report.

    Raises NotImplementedError for a call that the model of the disk does not cover.
    """
    reader = _Reader(folder, reports)
    operations: list[Operation] = []
    for call in _whole_calls(lines):
        match = _CALL.match(call)
        if match is None or int(match["result"]) < 0:  # the call failed, or the process ended during the call
            continue
        # Paths and contents are hexadecimal, so each comma that is followed by a space separates two arguments.
        operations += reader.operations(match["name"], match["arguments"].split(", "), int(match["result"]))
    return operations


def _whole_calls(lines: Iterable[str]) -> Iterator[str]:
    """Yield each call as one line, without the id of its thread.

    The log has two lines for a call during which another thread makes a call.
    """
    begun: dict[str, str] = {}
    for line in lines:
        thread, _, call = line.rstrip("\n").partition(" ")
        call = call.lstrip()
        if call.endswith("<unfinished ...>"):
            begun[thread] = call[: -len("<unfinished ...>")]
        elif call.startswith("<... "):
            yield begun.pop(thread) + call.partition(" resumed>")[2]
        else:
            yield call
