"""Read csrc/tinynn.h: the groups of calls with arguments, types and comments, and the constants."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from pycparser import c_ast, c_parser

sys.path.insert(0, str(Path(__file__).resolve().parent))

from paths import CSRC

sys.path.insert(0, str(CSRC))

from build_cffi import BEGIN, END

HEADER = CSRC / "tinynn.h"
SESSION_TYPES = ("tnn_session *", "const tnn_session *")


@dataclass(frozen=True)
class Argument:
    """An argument of a call: its C type as written, and the comment after it."""

    name: str
    type: str
    comment: str

    @property
    def optional(self) -> bool:
        """Return whether the argument is a tensor that may be left out."""
        return self.type == "tnn_tensor" and self.comment.startswith("optional")

    @property
    def default(self) -> str | None:
        """Return the value that Python passes if the keyword is left out, or None if it is not a keyword."""
        found = re.match(r"default (\S+):", self.comment)
        return found[1] if found else None


@dataclass(frozen=True)
class Call:
    """A function of the header, with the comment before or after it."""

    name: str
    result: str
    arguments: tuple[Argument, ...]
    comment: str
    group: str = ""

    @property
    def of_tensor(self) -> bool:
        """Return whether the Python function takes a tensor and no session, because the tensor knows its session."""
        tensor = [(one.name, one.type) for one in self.arguments[1:2]] == [("t", "tnn_tensor")]
        return self.group in ("flags", "introspection") and self.of_session and tensor

    @property
    def of_session(self) -> bool:
        """Return whether the first argument is a session."""
        return bool(self.arguments) and self.arguments[0].type in SESSION_TYPES

    @property
    def is_plain(self) -> bool:
        """Return whether the arguments after the session are only floats, or tensors named a and b.

        Such a call accepts f32 matrices of the same shape for a and b.
        """
        plain = {("tnn_tensor", "a"), ("tnn_tensor", "b")}
        return self.of_session and all(
            one.type == "float" or (one.type, one.name) in plain for one in self.arguments[1:]
        )

    @property
    def may_be_none(self) -> bool:
        """Return whether the result 0 or NULL means "none" and is not a failure."""
        return self.summary.endswith(", or none.")

    @property
    def summary(self) -> str:
        """Return the first sentence of the comment."""
        return self._prose.partition(". ")[0].removesuffix(".") + "."

    @property
    def details(self) -> str:
        """Return the other sentences of the comment."""
        return self._prose.partition(". ")[2]

    @property
    def errors(self) -> list[str]:
        """Return the lines about errors at the end of the comment."""
        return self.comment.split("\n")[self._lines_of_prose :]

    @property
    def _prose(self) -> str:
        return " ".join(self.comment.split("\n")[: self._lines_of_prose])

    @property
    def _lines_of_prose(self) -> int:
        lines = self.comment.split("\n")
        return next((i for i, line in enumerate(lines) if line.startswith("TNN_E_")), len(lines))


@dataclass(frozen=True)
class Group:
    """The calls under one heading "---- name ----", and the comment of the heading."""

    name: str
    comment: str
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Header:
    """The declarations of the header, in the order of the header."""

    groups: tuple[Group, ...]
    constants: tuple[str, ...]

    @property
    def calls(self) -> list[Call]:
        return [call for group in self.groups for call in group.calls]

    @property
    def plain_operators(self) -> list[Call]:
        """Return the operators for which a test can choose the arguments without a table of arguments."""
        groups = [group for group in self.groups if group.name in ("operators", "fused")]
        return [call for group in groups for call in group.calls if call.is_plain]


@dataclass(frozen=True)
class _Comment:
    first: int  # line
    last: int
    text: str
    alone: bool  # only spaces are before the comment on its line


_HEADING = re.compile(r"---- (\w+) ----\s*(.*)", re.DOTALL)


def read_header(text: str) -> Header:
    """Return the declarations in the text of tinynn.h.

    Raise ValueError for a call without a comment or without a group.
    """
    lines = _without_comments(text)
    comments = _comments(text)
    headings = [(c.first, found[1], found[2]) for c in comments if (found := _HEADING.fullmatch(c.text))]
    calls: dict[int, Call] = {}
    constants: list[str] = []
    for node in _parsed("\n".join(lines)):
        if isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.FuncDecl):
            calls[node.coord.line] = _call(node, lines, comments)
        elif isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.Enum):
            constants += [one.name for one in node.type.values.enumerators]
    groups = []
    for i, (line, name, comment) in enumerate(headings):
        end = headings[i + 1][0] if i + 1 < len(headings) else len(lines) + 1
        groups.append(
            Group(name, comment, tuple(replace(call, group=name) for at, call in calls.items() if line < at < end))
        )
    if outside := [call.name for line, call in calls.items() if not headings or line < headings[0][0]]:
        raise ValueError(f"{outside[0]} is before the first heading")
    return Header(tuple(groups), tuple(constants))


def _without_comments(text: str) -> list[str]:
    """Return the lines that cffi reads, with the same line numbers, without comments and the export macro."""
    plain = re.sub(r"/\*.*?\*/|\bTNN_API\b", lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.DOTALL)
    begin, end = text.index(BEGIN), text.index(END)
    return ("\n" * text.count("\n", 0, begin) + plain[begin:end]).split("\n")


def _comments(text: str) -> list[_Comment]:
    found = []
    for match in re.finditer(r"/\*(.*?)\*/", text, flags=re.DOTALL):
        first = text.count("\n", 0, match.start()) + 1
        start_of_line = text.rfind("\n", 0, match.start()) + 1
        body = re.sub(r"^ \* ?", "", match[1], flags=re.MULTILINE).strip()
        alone = not text[start_of_line : match.start()].strip()
        found.append(_Comment(first, first + match[0].count("\n"), body, alone))
    return found


def _parsed(plain: str) -> list[c_ast.Node]:
    types = "".join(f"typedef int {name}; " for name in ("int32_t", "int64_t", "uint8_t", "uint64_t"))
    # The typedefs are on the first line of `plain`, so line numbers stay the same.
    nodes: list[c_ast.Node] = c_parser.CParser().parse(types + plain).ext
    return nodes


def _spelled(node: c_ast.Node) -> str:
    if isinstance(node, c_ast.PtrDecl):
        return f"{_spelled(node.type)} *".replace("* *", "**")
    return " ".join([*node.quals, *node.type.names])


def _call(node: c_ast.Decl, lines: list[str], comments: list[_Comment]) -> Call:
    first = node.coord.line
    last = next(at for at in range(first, len(lines) + 1) if ";" in lines[at - 1])
    documents = [c for c in comments if c.alone and c.last == first - 1 and not _HEADING.fullmatch(c.text)]
    documents += [c for c in comments if not c.alone and c.first == first == last]
    if len(documents) != 1:
        raise ValueError(f"{node.name} must have one comment, before or after it: it has {len(documents)}")
    behind = {c.first: c.text for c in comments if not c.alone and first <= c.first <= last != first}
    parameters = [one for one in node.type.args.params if getattr(one, "name", None)]
    arguments = [Argument(one.name, _spelled(one.type), behind.get(one.coord.line, "")) for one in parameters]
    return Call(node.name, _spelled(node.type.type), tuple(arguments), documents[0].text)
