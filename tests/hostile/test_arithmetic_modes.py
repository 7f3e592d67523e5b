"""The floating-point mode of the calling thread changes no result, and toynn does not change the mode.

A library that was built with fast-math can make a thread flush denormals or use another rounding mode.
"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# The rounding modes of C, and the word and the bits in glibc's fenv_t that make a thread flush denormals.
MACHINES = {
    "x86_64": {"up": 0x800, "down": 0x400, "zero": 0xC00, "flush": (7, 0x8040)},
    "aarch64": {"up": 0x400000, "down": 0x800000, "zero": 0xC00000, "flush": (0, 1 << 24)},
}
MODES = ["up", "down", "zero", "flush"]

SCRIPT = """
import ctypes, ctypes.util, hashlib, struct
import numpy as np

libm = ctypes.CDLL(ctypes.util.find_library("m"))
def set_mode(mode, constants):
    if mode == "flush":
        environment = (ctypes.c_uint32 * 64)()
        word, bits = constants[mode]
        libm.fegetenv(environment)
        environment[word] |= bits
        libm.fesetenv(environment)
    else:
        libm.fesetround(constants[mode])

def results_of_mode():
    one, three, ten, small = float("1"), float("3"), float("10"), float("1e-310")
    return struct.pack("3d", one / three, one / ten, small * one)  # bytes, because flushed denormals compare equal to 0

def opened(n_threads):
    s = nn.Session(n_threads=n_threads, oversubscribe=True)
    small, w = (nn.tnn_input_2d_f32_persistent(s, 64, 64) for _ in range(2))
    nn.tnn_finalize_weights(s)
    results = [
        nn.tnn_mul(s, small, small), nn.tnn_matmul(s, w, w), nn.tnn_fused_linear(s, w, [w]), nn.tnn_softmax(s, w),
        nn.tnn_fused_linear(s, small, [small]), nn.tnn_gelu(s, w), nn.tnn_fused_swiglu(s, w),
    ]
    for result in results:
        nn.tnn_set_output(result)
    nn.tnn_realize(s, nn.tnn_concat_n(s, [nn.tnn_sum(s, result) for result in results], 0))
    nn.upload_row_major(s, small, SMALL)
    nn.upload_row_major(s, w, VALUES)
    return s, results

def computed(s, results):
    nn.tnn_compute(s)
    return b"".join(nn.tnn_download(s, result).tobytes() for result in results)

def digest(parts):
    parts = [*parts, nn.tnn_random_gaussian(nn.tnn_random_seed(0, 7), STD, 4096).tobytes()]
    assert len(set(parts[:-1])) == 1, "the bits depend on the number of threads"
    return hashlib.sha256(parts[0] + parts[-1]).hexdigest()

mode, constants = MODE, CONSTANTS
STD = float("0.3")
numbers = np.random.default_rng(0)
VALUES = numbers.standard_normal((64, 64), dtype=np.float32)
SMALL = VALUES * np.float32(1e-20)
normal = results_of_mode()
if EARLY:
    set_mode(mode, constants)
from toynn import tinynn as nn
before = [opened(n) for n in (1, 2, 3, 4)]
first = digest([computed(*one) for one in before])
if mode and not EARLY:
    set_mode(mode, constants)
else:
    assert mode or results_of_mode() == normal
second = digest([computed(*one) for one in (*before, *map(opened, (1, 2, 3, 4)))])
if mode:
    assert results_of_mode() != normal, "toynn changed the mode of the caller"
print(first, second)
"""


def digests(mode: str, early: bool) -> list[str]:
    constants = MACHINES[platform.machine()]
    script = SCRIPT.replace("MODE, CONSTANTS", f"{mode!r}, {constants!r}").replace("EARLY", str(early))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.split()


@pytest.fixture(scope="module")
def usual() -> list[str]:
    return digests("", early=False)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in MACHINES, reason="the constants of the modes are glibc's"
)
@pytest.mark.parametrize("early", [False, True], ids=["set later", "set before toynn is imported"])
@pytest.mark.parametrize("mode", MODES)
def test_the_mode_of_the_caller_changes_no_bit_and_remains_set(usual: list[str], mode: str, early: bool) -> None:
    assert len(usual) == 2
    assert usual[0] == usual[1]
    assert digests(mode, early) == usual


TRAPS = """
import ctypes, ctypes.util
import numpy as np
from toynn import tinynn as nn
libm = ctypes.CDLL(ctypes.util.find_library("m"))
s = nn.Session(n_threads=2, oversubscribe=True)
w, half = nn.tnn_input_2d_f32_persistent(s, 64, 64), nn.tnn_input_2d_persistent_typed(s, 64, 64, nn.TNN_F16)
nn.tnn_finalize_weights(s)
root = nn.tnn_sqrt(s, w)
nn.tnn_set_output(root)
nn.tnn_realize(s, root)
numbers = np.full((64, 64), -1e30, dtype=np.float32)
nn.upload_row_major(s, w, numbers)
libm.feenableexcept(TRAPPED)
nn.tnn_compute(s)
nn.upload_row_major(s, half, numbers)
halves, roots = nn.tnn_download(s, half), nn.tnn_download(s, root)
enabled = libm.fedisableexcept(TRAPPED)
print(enabled, np.isneginf(halves).all(), np.isnan(roots).all())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="other CPUs may have no traps, other systems no feenableexcept",
)
def test_floating_point_traps_of_the_caller_do_not_end_the_process() -> None:
    """Some numerical programs enable traps for infinities and NaN, to find the operations that create them."""
    trapped = 0x1D  # the traps are: invalid operation, division by zero, overflow, underflow
    script = TRAPS.replace("TRAPPED", str(trapped))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr}"
    assert done.stdout.split() == [str(trapped), "True", "True"]
