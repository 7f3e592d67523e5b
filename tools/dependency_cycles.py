"""Find cycles of dependencies between the C files of csrc and between the Python modules of src/toynn.

    python tools/dependency_cycles.py        prints each cycle; the exit status is 1 if there is a cycle

A C file depends on the headers that it includes, and on the C files that define the functions that it calls. A Python
module depends on the modules that are imported when the module itself is imported, so imports inside functions and
under `if TYPE_CHECKING` do not count.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from paths import CSRC, ROOT

BUILD = ROOT / "build" / "editable"
PACKAGE = ROOT / "src" / "toynn"

Graph = dict[str, set[str]]


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the sets of nodes that depend on each other, each sorted.

    These sets are the strongly connected components with more than one node, and the nodes that depend on themselves.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1 or node in graph.get(node, ()):
                found.append(component)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted(found)


# ---------------------------------------------------------------- C

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
SYMBOL = re.compile(r"([A-Za-z]) _?(tnn_\w+)$")  # every name that is used in more than one C file begins with tnn_


def c_includes(folder: Path = CSRC) -> Graph:
    """Return, for each file in a folder of C sources, the files of this folder that it includes."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.[ch]"))}
    return {
        name: {
            target
            for included in INCLUDE.findall(path.read_text(encoding="utf-8"))
            for target in (included, (Path(name).parent / included).as_posix())
            if target in files
        }
        for name, path in files.items()
    }


def c_objects(build: Path = BUILD) -> dict[str, Path]:
    """Return the object files in a build folder, by the C file of csrc."""
    return {
        source.relative_to(CSRC).as_posix(): path
        for source in sorted(CSRC.rglob("*.c"))
        for path in build.glob(f"CMakeFiles/tinynn*.dir/csrc/{source.relative_to(CSRC).as_posix()}.o")
    }


def c_calls(objects: Mapping[str, Path]) -> Graph:
    """Return, for each C file, the C files whose functions and variables it uses.

    nm reads this from the object files.
    """
    uses: dict[str, set[str]] = {}
    owner: dict[str, str] = {}
    for name, path in objects.items():
        listed = subprocess.run(["nm", "-g", path], capture_output=True, text=True, check=True).stdout
        symbols = [match.groups() for line in listed.splitlines() if (match := SYMBOL.search(line))]
        uses[name] = {symbol for kind, symbol in symbols if kind == "U"}
        owner |= {symbol: name for kind, symbol in symbols if kind != "U"}
    return {name: {owner[symbol] for symbol in used if symbol in owner} for name, used in uses.items()}


# ---------------------------------------------------------------- Python


def imports_at_load(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements that run when a module is imported."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from imports_at_load(node.body)
            yield from imports_at_load(node.orelse)
        elif isinstance(node, ast.Try):
            for part in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                yield from imports_at_load(part)
        elif isinstance(node, (ast.With, ast.ClassDef)):
            yield from imports_at_load(node.body)


def python_imports(folder: Path = PACKAGE) -> Graph:
    """Return, for each module of a package, the modules of the package that it imports.

    folder: the package's folder.
    """
    paths = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph: Graph = {}
    for module, path in paths.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found = graph[module] = set()
        for node in imports_at_load(ast.parse(path.read_text(encoding="utf-8")).body):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names if alias.name in paths)
                continue
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                target = f"{base}.{alias.name}"
                found.update({target if target in paths else base} & paths.keys())
        found.discard(module)
    return graph


def all_cycles() -> dict[str, list[list[str]]]:
    """Return the cycles of this repository by kind of dependency.

    The editable build shows the calls between C files.
    """
    return {
        "C includes": cycles(c_includes()),
        "C calls": cycles(c_calls(c_objects())),
        "Python imports": cycles(python_imports()),
    }


def main() -> int:
    found = all_cycles()
    for kind, sets in found.items():
        print(f"{kind}: {len(sets)} cycles")
        for members in sets:
            print(f"  {' '.join(members)}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
