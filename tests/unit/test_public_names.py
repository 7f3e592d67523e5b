"""The names of `import toynn`: imported lazily, seen by type checkers, and not mixed up with modules."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import toynn

pytestmark = pytest.mark.quick


def names_for_type_checkers() -> dict[str, str]:
    """Return the imports of the TYPE_CHECKING block: the module of each public name."""
    tree = ast.parse(Path(toynn.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: f"{node.module}.{alias.name}" if alias.name == "labels" else str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_the_names_that_are_imported_lazily() -> None:
    assert names_for_type_checkers() == toynn._MODULES
    assert list(toynn._MODULES) == sorted(toynn._MODULES)


def test_every_public_name_can_be_imported_and_is_listed() -> None:
    for name in toynn.__all__:
        assert getattr(toynn, name) is not None
        assert name in dir(toynn)
    assert set(toynn.__all__) == {*toynn._MODULES, "__version__"}


def test_a_public_name_and_a_subpackage_never_share_a_name() -> None:
    packages = {path.parent.name for path in Path(toynn.__file__).parent.glob("*/__init__.py")}
    assert packages == set(toynn._PACKAGES)
    modules = {path.stem for path in Path(toynn.__file__).parent.glob("*.py")}
    assert not (packages | modules) & set(toynn.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'toynn' has no attribute 'trian'"):
        _ = toynn.trian  # type: ignore[attr-defined]


def test_import_toynn_loads_no_large_modules_and_gives_access_to_subpackages() -> None:
    script = """
import sys, toynn
assert not {"numpy", "_cffi_backend", "toynn.errors"} & set(sys.modules), "loaded too early"
print(toynn.tinynn.tnn_ggml_version() == toynn.ggml_version(), toynn.labels.__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True toynn.llm.labels\n"), done.stderr
