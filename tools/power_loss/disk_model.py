"""A disk during a power loss: the content that is certainly durable, and changes that may or may not have reached it.

The model assumes what POSIX promises, and what all common file systems promise in addition:

- Syncing a file makes its content and its size durable, but not its name.
- Syncing a folder makes the names in it durable, but not the content of the files.
- Making, renaming and removing a name is atomic. A rename to another name in the same folder is one change; to
  another folder it is two changes, the new name and the removal of the old one.
- Any other change may reach the disk or not, in any order: a name without its content, a content without its size, a
  size without its content (the file then contains zeros), and only some pieces of a content.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from file_operations import ROOT, Link, Make, Operation, Remove, Rename, Report, Resize, Sync, Write

_SECTOR, _PAGE = 512, 4096  # sizes of the pieces in which small and large contents reach the disk

Tree: TypeAlias = Mapping[str, bytes | None]  # the content of the file at each path, or None for a folder


@dataclass(frozen=True)
class Names:
    """A change of names in a folder: each name gets the number of another file or folder, or None if the name is
    removed.
    """

    node: int  # the number of the folder in which names change
    entries: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Size:
    """A change of the size of a file."""

    node: int
    size: int


@dataclass(frozen=True)
class Piece:
    """A change of the bytes in a part of a file, without a change of the file's size."""

    node: int
    offset: int
    content: bytes


Change: TypeAlias = Names | Size | Piece


@dataclass
class Disk:
    """The durable content of the disk, and the pending changes in their order.

    Attributes:
        folders: the durable entries of each folder, by name.
        files: the durable content of each file.
        reports: the reports that the user got so far.
    """

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: dict[int, bytes] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    _paths: dict[str, int] = field(default_factory=lambda: {"": ROOT})  # folders and files as the program sees them
    _sizes: dict[int, int] = field(default_factory=dict)

    def apply(self, operation: Operation) -> None:
        """Apply an operation of the program to the disk."""
        match operation:
            case Make():
                self._make(operation)
            case Write(node, offset, content):
                if offset + len(content) > self._sizes[node]:
                    self._resize(node, offset + len(content))
                self.pending += _pieces(node, offset, content)
            case Resize(node, size):
                self._resize(node, size)
            case Rename(path, target):
                self._rename(path, target)
            case Link(path, target):
                self._name((target, self._paths[path]))
            case Remove(path):
                self._name((path, None))
            case Sync(node):
                self._sync(node)
            case Report(text):
                self.reports.append(text)

    def changed_by(self, sync: Sync) -> bool:
        """Return whether this sync makes any pending change durable."""
        return any(change.node == sync.node for change in self.pending)

    def tree(self, names: Collection[Change], contents: Mapping[int, bytes]) -> Tree:
        """Return the content of the disk if the given pending changes of names and contents have reached it."""
        tree: dict[str, bytes | None] = {}

        def add(folder: int, path: str) -> None:
            here = [change for change in names if change.node == folder]
            for name, node in names_after(self.folders[folder], here).items():
                tree[path + name] = None if node in self.folders else contents.get(node, self.files[node])
                if node in self.folders:
                    add(node, f"{path}{name}/")

        add(ROOT, "")
        return tree

    def tree_without_loss(self) -> Tree:
        """Return the files and folders that the program sees."""
        contents = {
            node: content_after(content, [change for change in self.pending if change.node == node])
            for node, content in self.files.items()
        }
        return self.tree([change for change in self.pending if isinstance(change, Names)], contents)

    def _make(self, made: Make) -> None:
        if made.is_folder:
            self.folders[made.node] = {}
        else:
            self.files[made.node], self._sizes[made.node] = b"", 0
        self._name((made.path, made.node))

    def _rename(self, path: str, target: str) -> None:
        node = self._paths[path]
        below = {old: inside for old, inside in self._paths.items() if old.startswith(f"{path}/")}
        if path.rpartition("/")[0] == target.rpartition("/")[0]:
            self._name((path, None), (target, node))
        else:
            self._name((target, node))
            self._name((path, None))
        for old, inside in below.items():
            self._paths[target + old[len(path) :]] = inside

    def _name(self, *changes: tuple[str, int | None]) -> None:
        """Change paths in one folder: each path gets the number of another file or folder, or is removed (None)."""
        folder = changes[0][0].rpartition("/")[0]
        self.pending.append(
            Names(self._paths[folder], tuple((path.rpartition("/")[2], node) for path, node in changes))
        )
        for path, node in changes:
            for old in [old for old in self._paths if old == path or old.startswith(f"{path}/")]:
                del self._paths[old]
            if node is not None:
                self._paths[path] = node

    def _resize(self, node: int, size: int) -> None:
        self._sizes[node] = size
        self.pending.append(Size(node, size))

    def _sync(self, node: int) -> None:
        done = [change for change in self.pending if change.node == node]
        if node in self.files:
            self.files[node] = content_after(self.files[node], done)
        else:
            self.folders[node] = names_after(self.folders[node], done)
        self.pending = [change for change in self.pending if change.node != node]
        self._forget_unreachable()

    def _forget_unreachable(self) -> None:
        """Drop the pending changes of files and folders that cannot have a name any more in any state."""
        reachable, found = {ROOT}, [ROOT]
        while found:
            folder = found.pop()
            inside = set(self.folders[folder].values())
            inside |= {
                node
                for change in self.pending
                if isinstance(change, Names) and change.node == folder
                for _, node in change.entries
                if node is not None
            }
            found += [node for node in inside - reachable if node in self.folders]
            reachable |= inside
        self.pending = [change for change in self.pending if change.node in reachable]


def _pieces(node: int, offset: int, content: bytes) -> list[Piece]:
    """Divide a content into pages, or into sectors if the content is not larger than a page."""
    size = _SECTOR if len(content) <= _PAGE else _PAGE
    ends = [*range((offset // size + 1) * size, offset + len(content), size), offset + len(content)]
    begins = [offset, *ends[:-1]]
    return [Piece(node, begin, content[begin - offset : end - offset]) for begin, end in zip(begins, ends, strict=True)]


def content_after(content: bytes, changes: Collection[Change]) -> bytes:
    """Return the content of a file after these changes."""
    result, size = bytearray(content), len(content)
    for change in changes:
        if isinstance(change, Size):
            if change.size < size:
                del result[change.size :]
            size = change.size
        # content beyond the size is kept, because the new size may reach the disk later
        elif isinstance(change, Piece):
            end = change.offset + len(change.content)
            result += bytes(max(end - len(result), 0))
            result[change.offset : end] = change.content
    return bytes(result[:size]) + bytes(max(size - len(result), 0))


def names_after(names: Mapping[str, int], changes: Collection[Change]) -> dict[str, int]:
    """Return the entries of a folder after these changes."""
    result = dict(names)
    for change in changes:
        if isinstance(change, Names):
            for name, node in change.entries:
                result.pop(name, None)
                if node is not None:
                    result[name] = node
    return result
