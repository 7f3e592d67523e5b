"""Every failed allocation of csrc or ggml becomes a MemoryError, without damage and without a leak."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import pytest

from sweep_allocations import FIRST_SESSION, MODES, Swept, compiled, extension, run

pytestmark = [
    pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer replaces the same functions"),
    pytest.mark.skipif(
        not (sys.platform == "linux" and hasattr(ctypes.CDLL(None), "__libc_memalign")),
        reason="the preloaded library uses names that only glibc exports",
    ),
]

QUIET = ["upload and download of weights"]  # these operations make no allocation in C


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("native"), "allocation_faults")


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("native"), "wrong_allocations")


def failures(swept: dict[str, Swept]) -> str:
    return "\n".join(message for result in swept.values() for message in result.failures)


def check(swept: dict[str, Swept], mode: str, stride: int) -> None:
    assert not failures(swept), failures(swept)
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
        ("silent", "another result without an error"),
        ("spoiled", "the repetition returns"),
    ],
)
def test_the_sweep_notices_every_kind_of_wrong_c_code(injector: Path, wrong: Path, function: str, notices: str) -> None:
    swept = run(injector, [function], "once", library=wrong)[function]
    assert swept.allocations == (1 if function in ("unchecked", "silent") else 2)
    if notices:
        assert swept.failures and all(notices in message for message in swept.failures), swept
    else:
        assert (swept.injected, swept.refused, swept.failures) == (2, 2, []), swept


@pytest.mark.parametrize("mode", MODES)
def test_every_seventh_allocation_can_fail_without_damage(injector: Path, mode: str) -> None:
    from allocating_operations import OPERATIONS

    swept = run(injector, list(OPERATIONS), mode, first=0, stride=7)
    check(swept, mode, 7)
    assert sum(result.injected for result in swept.values()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_allocation_can_fail_without_damage(injector: Path, mode: str) -> None:
    from allocating_operations import OPERATIONS

    check(run(injector, list(OPERATIONS), mode), mode, 1)


@pytest.mark.parametrize("mode", ["once", "from then on"])
def test_creating_the_first_session_of_a_process_can_be_repeated(injector: Path, mode: str) -> None:
    swept = run(injector, [FIRST_SESSION], mode, library=extension())
    assert not failures(swept), failures(swept)
    result = swept[FIRST_SESSION]
    assert result.allocations >= 7  # the setup of ggml and the session make at least this number of allocations
    assert result.refused == result.allocations
