"""The files in git equal the output of tools/generate_tinynn.py, and the generator handles changes of the header."""

from __future__ import annotations

import pytest

import generate_tinynn
from generate_tinynn import NoPatternError, Source, generated
from paths import ROOT
from read_header import HEADER, read_header

pytestmark = pytest.mark.quick

TEXT = HEADER.read_text(encoding="utf-8")
END = "/* cffi: end */"


def call_of(declaration: str) -> str:
    """Return the function that is generated for a declaration at the end of the header."""
    header = read_header(TEXT.replace(END, f"{declaration}\n{END}"))
    return Source(header.calls[-1]).text


def test_the_generated_files_are_those_of_this_header() -> None:
    files = generated(read_header(TEXT))
    assert len(files) > 5
    for path, text in files.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)} is out of date: run `make generate`"
    calls = {path for path in files if path.parent.name == "calls"}
    assert set((generate_tinynn.PACKAGE / "tinynn" / "calls").glob("*.py")) == calls


def test_a_new_operator_gets_its_function_its_export_and_its_type() -> None:
    declaration = "TNN_API tnn_tensor tnn_of_two(tnn_session * s, tnn_tensor a, float x); /* Return a of x. */"
    header = read_header(TEXT.replace("/* ---- experts ----", f"{declaration}\n/* ---- experts ----"))
    files = {path.relative_to(generate_tinynn.PACKAGE).as_posix(): text for path, text in generated(header).items()}
    assert (
        "def tnn_of_two(s: Session, a: Tensor, x: float) -> Tensor:\n"
        '    """Return a of x."""\n'
        '    return built(s, lib.tnn_of_two, handle(s, "a", a), float32("x", x))\n'
    ) in files["tinynn/calls/operators.py"]
    assert '    "tnn_of_two",\n' in files["tinynn/__init__.py"]
    assert (
        "def tnn_of_two(self, s: SessionPointer, a: TensorHandle, x: float, /) -> TensorHandle" in files["_tinynn.pyi"]
    )


def test_a_comment_becomes_a_docstring() -> None:
    made = call_of(
        "/* Return the sum, or none. It is NULL after tnn_add.\n * TNN_E_VALUE: b is wrong. */\n"
        "TNN_API tnn_tensor tnn_of_many(tnn_session * s,\n"
        "    const tnn_tensor * parts, /* n of them */\n"
        "    int32_t            n,\n"
        "    tnn_tensor         a,     /* optional, [m] */\n"
        "    int64_t            b,\n"
        "    tnn_tensor         c);    /* optional, [k]: it counts */\n"
    )
    assert made == (
        "def tnn_of_many(\n"
        "    s: Session, parts: Sequence[Tensor], a: Tensor | None, b: int, c: Tensor | None = None\n"
        ") -> Tensor | None:\n"
        '    """Return the sum, or None.\n\n'
        "    It is None after `tnn_add`.\n\n"
        "    Args:\n"
        "        parts: n of them.\n"
        "        a: [m], or None.\n"
        "        c: [k], or None: it counts.\n\n"
        "    Raises:\n"
        "        TinyNNValueError: b is wrong.\n"
        '    """\n'
        '    parts_array, n = handles(s, "parts", parts)\n'
        "    return maybe(\n"
        '        s, lib.tnn_of_many, parts_array, n, optional_handle(s, "a", a), int64("b", b), '
        'optional_handle(s, "c", c)\n'
        "    )"
    )


def test_a_call_outside_the_pattern_must_be_written_by_hand() -> None:
    header = "TNN_API int tnn_of_memory(tnn_session * s, const float * data, int64_t n); /* Read data. */"
    with pytest.raises(NoPatternError, match=r"^tnn_of_memory takes 'const float \*' as data$"):
        call_of(header)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("\nTNN_API int tnn_of_nothing(tnn_session * s);", "tnn_of_nothing must have one comment"),
        ("/* One. */\nTNN_API int tnn_of_two(tnn_session * s); /* Two. */", "tnn_of_two must have one comment"),
    ],
)
def test_a_call_has_exactly_one_comment(declaration: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call_of(declaration)
