"""Imports in src/toynn go one way: packages have an order, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from paths import ROOT

pytestmark = pytest.mark.quick

PACKAGE = ROOT / "src" / "toynn"
# The layers from the lowest to the highest, as in docs/architecture.md. A module imports only from its own line and
# from lines above it.
LAYERS = (
    ("errors", "_interpreter", "_tinynn", "documented_fields", "extras", "initialised", "wording"),
    ("arguments",),
    ("tinynn",),
    ("model",),
    ("llm",),
    ("storage",),
    ("parallel",),
    ("text",),
    ("data",),
    ("training",),
    ("interop",),
    ("llm.recipes", "llm.profiling"),
    ("planning",),
    ("api",),
    ("serve",),
    ("cli",),
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}


def layer_of(module: str) -> int:
    """Return the layer of toynn.a.b.c: the layer of a.b if a.b has one, otherwise the layer of a."""
    parts = module.split(".")
    return LAYER_OF.get(".".join(parts[1:3]), LAYER_OF[parts[1]])


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(tree: ast.AST, module: str, modules: set[str]) -> set[str]:
    """Return the modules of toynn that a module imports, also those imported inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "toynn":
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in modules else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "toynn"}
    # `import toynn` does not count as an import of other modules, because names of toynn are imported only when they
    # are used.
    return {name for name in found if name not in ("toynn", module)}


IMPORTS = {
    module: imports_of(ast.parse(path.read_text(encoding="utf-8")), module, set(SOURCES))
    for module, path in SOURCES.items()
    if module != "toynn"
}


def first_circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle of imports, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_no_modules_import_each_other_in_a_circle_even_inside_functions() -> None:
    assert len(IMPORTS) > 50
    assert first_circle(IMPORTS) == []


def test_a_circular_import_is_found() -> None:
    assert first_circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_a_module_imports_only_from_its_own_layer_and_below(module: str) -> None:
    above = {name for name in IMPORTS[module] if layer_of(name) > layer_of(module)}
    assert above == set()


def test_every_package_has_a_layer_and_is_in_the_architecture_page() -> None:
    assert {module.split(".")[1] for module in IMPORTS} == {name for name in LAYER_OF if "." not in name} - {"_tinynn"}
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = [name.replace(".", "/") for names in LAYERS[1:] for name in names]
    assert [path for path in paths if f"`{path}/`" not in page and f"`{path}.py`" not in page] == []
