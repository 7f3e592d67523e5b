"""The structure of the source code: no cycles of dependencies, and no long files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dependency_cycles import BUILD, c_calls, c_includes, c_objects, cycles, python_imports
from paths import CSRC, ROOT

pytestmark = pytest.mark.quick

MOST_LINES = 400


def test_cycles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"d"}, "e": {"a"}}
    assert cycles(graph) == [["b", "c"], ["d"]]
    assert cycles({"a": {"b"}, "b": set()}) == []


def test_no_c_files_include_each_other() -> None:
    graph = c_includes()
    assert "session.h" in graph["tinynn.c"]
    assert cycles(graph) == []


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs the program nm")
def test_no_c_files_call_each_other() -> None:
    if not BUILD.is_dir():
        pytest.skip(f"no editable build in {BUILD.relative_to(ROOT)}: the object files are read from there")
    objects = c_objects()
    assert objects.keys() == {path.relative_to(CSRC).as_posix() for path in CSRC.rglob("*.c")}
    graph = c_calls(objects)
    assert "kernels/kernel.c" in graph["kernels/rms_norm.c"]
    assert cycles(graph) == []


def test_no_python_modules_import_each_other(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from package import b\nfrom package.c import x\n")
    (package / "b.py").write_text("import package.a\n")
    (package / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from package import a\n"
        "def f():\n    from . import b\n"
    )
    assert cycles(python_imports(package)) == [["package.a", "package.b"]]
    graph = python_imports()
    assert "toynn.errors" in graph["toynn.arguments"]
    assert cycles(graph) == []


def test_no_c_file_is_long() -> None:
    lengths = {path.relative_to(CSRC).as_posix(): len(path.read_text().splitlines()) for path in CSRC.rglob("*.[ch]")}
    del lengths["tinynn.h"]  # tinynn.h may be longer, because it lists all calls
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}
