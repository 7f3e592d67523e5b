"""Memory that ends at any allocation of csrc or ggml is a MemoryError, and nothing is lost, spoiled or leaked by it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from sweep_allocations import FIRST_SESSION, MODES, Swept, compiled, extension, run

pytestmark = [
    pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer stands where the faults are injected"),
    pytest.mark.skipif(
        not (sys.platform == "linux" and hasattr(ctypes.CDLL(None), "__libc_memalign")),
        reason="the faults are injected by glibc's own names",
    ),
]

QUIET = ["upload and download of weights"]  # allocates nothing in C: what does not ask is not refused


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("native"), "allocation_faults")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("native"), "wrong_allocations")


def harm(swept: dict[str, Swept]) -> str:
    return "\n".join(said for result in swept.values() for said in result.harm)


def check(swept: dict[str, Swept], mode: str, stride: int) -> None:
    assert not harm(swept), harm(swept)
    for name, result in swept.items():
        assert (result.allocations == 0) == (name in QUIET), (name, result)
        if mode != "from then on":
            assert abs(result.injected - result.allocations / stride) < 2, (name, result)
        assert result.refused == 0 if mode == "each call" else result.refused <= result.injected, (name, result)


@pytest.mark.parametrize(
    ("function", "notices"),
    [
        ("right", ""),
        ("unchecked", "status -11"),
        ("leaking", "blocks, bytes and threads before"),
        ("straying", "blocks, bytes and threads before"),
        ("silent", "another result, and no error"),
        ("spoiled", "the repetition gives"),
    ],
)
def test_the_sweep_notices_c_that_is_wrong(injector: Path, wrong: Path, function: str, notices: str) -> None:
    swept = run(injector, [function], "once", library=wrong)[function]
    assert swept.allocations == (1 if function in ("unchecked", "silent") else 2)
    if notices:
        assert swept.harm and all(notices in said for said in swept.harm), swept
    else:
        assert (swept.injected, swept.refused, swept.harm) == (2, 2, []), swept


@pytest.mark.parametrize("mode", MODES)
def test_memory_that_ends_anywhere_is_an_error_and_no_harm(injector: Path, mode: str) -> None:
    """Every seventh allocation of every operation; the full sweep takes them all."""
    from allocating_operations import OPERATIONS

    swept = run(injector, list(OPERATIONS), mode, first=0, stride=7)
    check(swept, mode, 7)
    assert sum(result.injected for result in swept.values()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_memory_that_ends_at_each_allocation_is_an_error_and_no_harm(injector: Path, mode: str) -> None:
    from allocating_operations import OPERATIONS

    check(run(injector, list(OPERATIONS), mode), mode, 1)


@pytest.mark.parametrize("mode", ["once", "from then on"])
def test_the_first_session_of_a_process_can_be_asked_for_again(injector: Path, mode: str) -> None:
    swept = run(injector, [FIRST_SESSION], mode, library=extension())
    assert not harm(swept), harm(swept)
    result = swept[FIRST_SESSION]
    assert result.allocations >= 7  # what ggml is set up with, and the session
    assert result.refused == result.allocations
