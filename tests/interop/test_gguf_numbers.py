"""The ids of types in GGUF files, the fast search for NaN and infinity in stored numbers, and lazy imports."""

from __future__ import annotations

import subprocess
import sys

import gguf
import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from quantized import TYPES, random_blocks, random_bytes, values_of
from toynn.interop.finite_blocks import surely_finite
from toynn.interop.gguf_numbers import TokenType, ValueType


@pytest.mark.parametrize(("ours", "theirs"), [(TokenType, gguf.TokenType), (ValueType, gguf.GGUFValueType)])
def test_the_numbers_are_those_of_the_gguf_library(ours: type, theirs: type) -> None:
    assert {one.name: one.value for one in ours} == {one.name: one.value for one in theirs}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: str(kind.name))
def test_the_check_agrees_with_the_converted_numbers(kind: GGMLQuantizationType) -> None:
    finite, _ = random_blocks(kind, 1, seed=1)
    checked = surely_finite(kind, finite.reshape(-1))
    assert checked or kind.name.startswith(("IQ", "TQ", "MXFP", "NVFP")), "a common type is not checked fast"
    found = []
    block = GGML_QUANT_SIZES[kind][0]
    for row in random_bytes(kind, 400, seed=2, cols=block if block > 1 else 16):  # some rows contain NaN or infinity
        found.append(bool(np.isfinite(values_of(kind, row[None])).all()))
        assert surely_finite(kind, row) == (checked and found[-1])
    assert not checked or len(set(found)) == 2, "the rows must be of both kinds"


def test_reading_a_gguf_file_imports_neither_the_gguf_library_nor_the_export() -> None:
    code = "import sys; from toynn.interop import GgufBase; print({'gguf', 'safetensors'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
