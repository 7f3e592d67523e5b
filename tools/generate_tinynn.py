"""Generate Python files in src/toynn from csrc/tinynn.h: python tools/generate_tinynn.py (`make generate` runs it).

- tinynn/calls/: a module for each group of the header, with a function for each call that takes a session, tensors and
  numbers. The function checks its arguments and raises errors. Its docstring is the comment of the call.
- tinynn/__init__.py: the public names, including those of the hand-written modules.
- _tinynn.pyi: the types of the compiled extension, by which mypy checks each call into C.

A call that a module of tinynn/ lists in its `__all__` is written by hand and is not generated. Any other call whose
types the generator does not know is an error. A file that is up to date is not written again.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from paths import ROOT
from read_header import HEADER, Argument, Call, Group, Header, read_header

PACKAGE = ROOT / "src" / "toynn"
WIDTH = 120
NEWLINE = "\n"
MARK = "# Generated from csrc/tinynn.h by `make generate`. Change the header instead."

ERRORS = {
    "TNN_E_VALUE": "TinyNNValueError",
    "TNN_E_TYPE": "TinyNNTypeError",
    "TNN_E_STATE": "SessionError",
    "TNN_E_MEMORY": "TinyNNMemoryError",
    "TNN_E_INTERNAL": "InternalError",
    "TNN_E_FILE": "MappedFileError",
}
# For each C type of an argument: the type in Python, and the check in toynn.arguments that converts the value.
CHECKS = {
    "int32_t": ("int", "int32"),
    "int64_t": ("int", "int64"),
    "float": ("float", "float32"),
    "double": ("float", "float64"),
    "const char *": ("str", "label"),
}
# For each C type of a result: the type in Python, and the function in toynn.tinynn.session that makes the call.
RESULTS = {
    "int": ("None", "status"),
    "int64_t": ("int", "number"),
    "const char *": ("str", "string"),
    "tnn_tensor": ("Tensor", "built"),
}


class NoPatternError(Exception):
    """The Python function of a call cannot be generated."""


# ---- layout: the code is formatted as `ruff format` would format it ----


def wrapped(head: str, items: list[str], tail: str, indent: int = 0) -> str:
    """Return head, items and tail on one line if they fit.

    Otherwise, the items are on the lines between head and tail: on one line if they fit, or one item on each line.
    """
    pad, inner = " " * indent, " " * (indent + 4)
    one_line = f"{pad}{head}{', '.join(items)}{tail}"
    if len(one_line) <= WIDTH:
        return one_line
    second = f"{inner}{', '.join(items)}"
    if len(second) > WIDTH:
        second = "\n".join(f"{inner}{item}," for item in items)
    return f"{pad}{head}\n{second}\n{pad}{tail}"


def imported(names: Iterable[tuple[str, str]]) -> str:
    """Return the import statements for names by module."""
    modules: dict[str, set[str]] = {}
    for module, name in names:
        modules.setdefault(module, set()).add(name)
    lines = []
    for module, found in sorted(modules.items(), key=lambda item: (not item[0].startswith("collections"), item[0])):
        ordered = sorted(found, key=by_kind)
        line = f"from {module} import {', '.join(ordered)}"
        lines.append(
            line if len(line) <= WIDTH else "\n".join([f"from {module} import (", *(f"    {n}," for n in ordered), ")"])
        )
        if module.startswith("collections"):
            lines.append("")
    return "\n".join(lines)


def by_kind(name: str) -> tuple[int, str]:
    """Return the key that sorts constants first, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


# ---- documentation ----


def in_python(text: str) -> str:
    """Translate a C comment for Python: exceptions instead of error codes, None instead of NULL, calls in backticks."""
    for code, error in ERRORS.items():
        text = text.replace(code, error)
    text = re.sub(r"\bNULL\b|\bnone\b", "None", text)
    return re.sub(r"\btnn_\w+", r"`\g<0>`", text)


def docstring(call: Call) -> str:
    """Return the docstring: the first sentence, the other sentences, the arguments, the errors."""
    blocks = [wrapped_text(in_python(call.summary), WIDTH - 7)]
    if call.details:
        blocks.append(wrapped_text(in_python(call.details)))
    described = [one for one in call.arguments[call.of_session :] if one.comment]
    if described:
        lines = [f"{one.name}: {in_python(_described(one.comment))}." for one in described]
        blocks.append("\n".join(["Args:", *(wrapped_text(line, hang=8, indent=4) for line in lines)]))
    if call.errors:
        items = in_python("\n".join(call.errors)).split("\n")
        blocks.append("\n".join(["Raises:", *(wrapped_text(line, hang=8, indent=4) for line in items)]))
    text = "\n\n".join(blocks)
    if "\n" not in text and len(text) <= WIDTH - 10:
        return f'    """{text}"""'
    return textwrap.indent(f'"""{text}\n"""', "    ", lambda line: bool(line.strip()))


def _described(comment: str) -> str:
    """Return the comment of an argument, without a default. "optional, X: Y" becomes "X, or none: Y"."""
    if comment.startswith("default "):
        return comment.partition(": ")[2]
    if not comment.startswith("optional"):
        return comment
    what, colon, rest = comment.removeprefix("optional, ").partition(":")
    return f"{what}, or none{colon}{rest}"


def wrapped_text(text: str, width: int = WIDTH - 4, hang: int = 0, indent: int = 0) -> str:
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


# ---- functions ----


class Source:
    """The source of the function of a call: its parameters, the values that it passes on, and the names that it uses.

    Raises NoPatternError if the generator does not know a type of the call.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.uses: set[tuple[str, str]] = set()
        self.parameters = [f"s: {self._session('Session')}"] if call.of_session and not call.of_tensor else []
        self.values: list[str] = []
        self.statements: list[str] = []
        if call.of_tensor:
            self.statements.append(f'    s = {self._session("session_of")}("t", t)')
        arguments = list(call.arguments[call.of_session :])
        while arguments:
            self._add(arguments.pop(0), arguments)
        result, body = self._body()
        head = wrapped(f"def {call.name}(", self.parameters, f") -> {result}:")
        self.text = "\n".join([head, docstring(call), *self.statements, body])

    def _use(self, module: str, name: str) -> str:
        self.uses.add((module, name))
        return name

    def _session(self, name: str) -> str:
        return self._use("toynn.tinynn.session", name)

    def _add(self, one: Argument, following: list[Argument]) -> None:
        """Add an argument. If it is a list of tensors, take its length from the following arguments."""
        name = one.name
        if one.default is not None:
            kind, check = CHECKS[one.type]
            if "*" not in self.parameters:
                self.parameters.append("*")
            self.parameters.append(f"{name}: {kind} = {one.default}")
            self.values.append(f'{self._use("toynn.arguments", check)}("{name}", {name})')
        elif one.optional:
            default = " = None" if all(other.optional or other.default for other in following) else ""
            self.parameters.append(f"{name}: {self._session('Tensor')} | None{default}")
            self.values.append(f'{self._session("optional_handle")}(s, "{name}", {name})')
        elif one.type == "tnn_tensor":
            self.parameters.append(f"{name}: {self._session('Tensor')}")
            self.values.append(f'{self._session("handle")}(s, "{name}", {name})')
        elif one.type == "const tnn_tensor *" and following and following[0].type == "int32_t":
            self.parameters.append(f"{name}: {self._use('collections.abc', 'Sequence')}[{self._session('Tensor')}]")
            length = following.pop(0).name
            self.statements.append(f'    {name}_array, {length} = {self._session("handles")}(s, "{name}", {name})')
            self.values += [f"{name}_array", length]
        elif one.type in CHECKS:
            kind, check = CHECKS[one.type]
            self.parameters.append(f"{name}: {kind}")
            self.values.append(f'{self._use("toynn.arguments", check)}("{name}", {name})')
        else:
            raise NoPatternError(f"{self.call.name} takes {one.type!r} as {name}")

    def _body(self) -> tuple[str, str]:
        """Return the type of the result in Python, and the statement that makes the call."""
        call = self.call
        native = f"{self._use('toynn.tinynn.native', 'lib')}.{call.name}"
        if call.of_session and call.result in RESULTS:
            result, make = RESULTS[call.result]
            if call.may_be_none and make == "built":
                result, make = "Tensor | None", "maybe"
            if "Tensor" in result:
                self._session("Tensor")
            returned = "" if result == "None" else "return "
            return result, wrapped(f"{returned}{self._session(make)}(", ["s", native, *self.values], ")", 4)
        if not call.of_session and call.result == "const char *":
            result, convert = ("str | None", "optional_text") if call.may_be_none else ("str", "text")
            return result, f"    return {self._use('toynn.tinynn.native', convert)}({native}({', '.join(self.values)}))"
        if not call.of_session and call.result in ("int32_t", "int64_t"):
            return "int", wrapped(f"return {native}(", self.values, ")", 4)
        raise NoPatternError(f"{call.name} returns {call.result!r}")


def module(group: Group, functions: list[Source]) -> str:
    """Return the source of the module of a group."""
    paragraphs = [
        wrapped_text(in_python(one), WIDTH) for one in re.split(r"\n\s*\n", group.comment.replace("\n ", "\n"))
    ]
    text = "\n\n".join(paragraphs)
    text = wrapped_text(paragraphs[0], WIDTH - 3) + text.removeprefix(paragraphs[0])
    documented = f'"""{text}"""' if "\n" not in text and len(text) <= WIDTH - 6 else f'"""{text}\n"""'
    imports = imported(one for made in functions for one in made.uses)
    sources = "\n\n\n".join(made.text for made in functions)
    return f"{MARK}\n{documented}\n\nfrom __future__ import annotations\n\n{imports}\n\n\n{sources}\n"


# ---- the package ----


def by_hand() -> dict[str, list[str]]:
    """Return the names in `__all__` of each hand-written module of tinynn/."""
    found = {}
    for path in sorted((PACKAGE / "tinynn").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.name != "__init__.py" else []:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node, ast.Assign):
                found[f"toynn.tinynn.{path.stem}"] = list(ast.literal_eval(node.value))
    return found


def package(names: dict[str, list[str]]) -> str:
    """Return the source of tinynn/__init__.py, which imports all public names, sorted by module."""
    every = sorted((name for found in names.values() for name in found), key=by_kind)
    listed = "\n".join(f'    "{name}",' for name in every)
    imports = "\n".join(imported((where, name) for name in found) for where, found in sorted(names.items()) if found)
    return f'''{MARK}
"""TinyNN: the session API. It has a function for each call of csrc/tinynn.h, with the same name.

Only this package uses cffi. Errors are exceptions that name the argument; a `Session` owns native memory and frees it;
a `Tensor` is a checked handle. The modules in calls/ are generated, one for each group of the header.
"""

{imports}

__all__ = [
{listed}
]
'''


# ---- the types of the extension ----

POINTERS = {"tnn_session": "Session", "tnn_step": "Step", "tnn_tensor": "Tensor", "char": "Char", "int32_t": "Int32",
            "uint64_t": "Uint64", "float": "Float", "double": "Double", "void": "Void", "uint8_t": "Uint8"}  # fmt: skip
ELEMENTS = {"tnn_tensor": "TensorHandle", "int32_t": "int", "uint64_t": "int", "float": "float", "double": "float"}
ARRAYS = {"int32_t": "np.int32", "float": "np.float32", "double": "np.float64", "uint8_t": "np.uint8"}


def typed(c_type: str, *, optional: bool = False) -> str:
    """Return the type in the stub for a value of a C type."""
    if optional:
        return "TensorHandle | Literal[0]"
    plain = c_type.removeprefix("const ")
    if plain.endswith(" *"):
        return f"{POINTERS[plain.removesuffix(' *')]}Pointer"
    return {"void": "None", "float": "float", "double": "float", "tnn_tensor": "TensorHandle"}.get(plain, "int")


def stub(header: Header) -> str:
    """Return the source of _tinynn.pyi."""
    pointers = [
        f"class {name}Pointer(_Pointer[{ELEMENTS.get(c_type, 'object')}]): ..." for c_type, name in POINTERS.items()
    ]
    makers = [
        wrapped("def new(", ["self", f'cdecl: Literal["{c_type} *", "{c_type}[]"]', "init: Any = ..."],
                f") -> {POINTERS[c_type]}Pointer: ...", 4)
        for c_type in [*ELEMENTS, "tnn_step"]
    ]  # fmt: skip
    makers.append("    def new(self, cdecl: str, init: Any = ...) -> Any: ...")
    viewers = [
        wrapped("def from_buffer(", ["self", f'cdecl: Literal["{c_type}[]"]', f"python_buffer: npt.NDArray[{dtype}]",
                                     "require_writable: bool = ..."], f") -> {POINTERS[c_type]}Pointer: ...", 4)
        for c_type, dtype in ARRAYS.items()
    ]  # fmt: skip
    viewers.append('    def from_buffer(self, cdecl: Literal["char[]"], python_buffer: mmap) -> VoidPointer: ...')
    functions = []
    for call in header.calls:
        values = [
            f"{one.name}: {'bytes' if one.type == 'const char *' else typed(one.type, optional=one.optional)}"
            for one in call.arguments
        ]
        slash = ["/"] if values else []
        functions.append(wrapped(f"def {call.name}(", ["self", *values, *slash], f") -> {typed(call.result)}: ...", 4))
    overloads = "\n".join(f"    @overload\n{one}" for one in [*makers, *viewers])
    return f'''{MARK}
"""The types of the compiled extension, which cffi makes from the same header."""

from collections.abc import Iterator
from mmap import mmap
from typing import Any, Final, Generic, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

_Element = TypeVar("_Element")

class TensorHandle(int): ...

class _Pointer(Generic[_Element]):
    def __getitem__(self, index: int, /) -> _Element: ...
    def __iter__(self) -> Iterator[_Element]: ...
    def __len__(self) -> int: ...
    def __add__(self, n: int, /) -> Self: ...

{NEWLINE.join(pointers)}

class _FFI:
    NULL: Any
    def string(self, pointer: CharPointer, /) -> bytes: ...
    def buffer(self, pointer: Any, size: int = ..., /) -> Any: ...
    def typeof(self, cdecl: Any, /) -> Any: ...
{overloads}

class _Lib:
{NEWLINE.join(f"    {name}: Final[int]" for name in header.constants)}
{NEWLINE.join(functions)}

ffi: _FFI
lib: _Lib
'''


# ---- all files ----


def generated(header: Header) -> dict[Path, str]:
    """Return the content of each generated file."""
    names = by_hand()
    known = {name for found in names.values() for name in found}
    files = {
        PACKAGE
        / "tinynn"
        / "calls"
        / "__init__.py": f'{MARK}\n"""The generated calls, a module for each group of csrc/tinynn.h."""\n'
    }
    for group in header.groups:
        made = [Source(call) for call in group.calls if call.name not in known]
        if made:
            files[PACKAGE / "tinynn" / "calls" / f"{group.name}.py"] = module(group, made)
            names[f"toynn.tinynn.calls.{group.name}"] = [one.call.name for one in made]
    files[PACKAGE / "tinynn" / "__init__.py"] = package(names)
    files[PACKAGE / "_tinynn.pyi"] = stub(header)
    return files


def main() -> None:
    try:
        files = generated(read_header(HEADER.read_text(encoding="utf-8")))
    except NoPatternError as error:
        sys.exit(f"{error}: write it by hand in a module of src/toynn/tinynn/, and add it to that module's __all__")
    for path in set((PACKAGE / "tinynn" / "calls").glob("*.py")) - set(files):
        path.unlink()
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
