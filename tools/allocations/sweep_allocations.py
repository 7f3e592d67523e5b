"""Make each allocation of the extension fail, one at a time, during every kind of operation.

    python tools/allocations/sweep_allocations.py                      # every operation, every allocation
    python tools/allocations/sweep_allocations.py --only step --stride 3

A child process with native/allocation_faults.c in LD_PRELOAD counts the allocations of an operation. Then it runs the
operation again for each n, and the nth allocation fails: only that one ("once"), or it and all later ones ("from then
on"). The operation must return the usual bytes or raise a MemoryError. After a MemoryError, the operation is repeated
on the same objects with memory available, and must then return the usual bytes. After the objects are closed, no block
and no thread of the target may remain. In the mode "each call" only the C call that failed is repeated, in the middle
of the operation.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import functools
import gc
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from operation import Operation
from paths import TESTS_SUPPORT

sys.path.insert(0, str(TESTS_SUPPORT))  # the table of session calls is imported from this folder

FIRST_SESSION = "first session of a process"
# After this number of failures in one mode of an operation, the sweep continues with the next operation.
MOST_FAILURES = 20
MODES = ("once", "from then on", "each call")
NATIVE = Path(__file__).with_name("native")


# ---------------------------------------------------------------- in the child


class Faults:
    """The preloaded library, which makes allocations of one shared object (the target) fail."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._lib = ctypes.CDLL(None)
        self._lib.faults_arm.argtypes = [ctypes.c_long, ctypes.c_int]
        self._lib.faults_where.restype = ctypes.c_char_p
        for name in ("disarm", "seen", "live", "live_bytes", "threads"):
            getattr(self._lib, f"faults_{name}").restype = ctypes.c_long

    def select(self) -> Faults:
        """Select the target, which must be loaded already."""
        if self._lib.faults_target(self._target.encode()) < 1:
            raise SystemExit(f"{self._target} is not loaded")
        return self

    def arm(self, n: int, after: bool) -> None:
        self._lib.faults_arm(n, int(after))

    def disarm(self) -> tuple[int, int]:
        """Stop the failures. Return the number of failed allocations and of all allocations since `arm` was called."""
        return self._lib.faults_disarm(), self._lib.faults_seen()

    def live(self) -> tuple[int, int, int]:
        """Return three numbers: the memory blocks of the target, the bytes in these blocks, and its threads."""
        gc.collect()
        return self._lib.faults_live(), self._lib.faults_live_bytes(), self._lib.faults_threads()

    def where(self) -> str:
        where: bytes = self._lib.faults_where()
        return where.decode()


def attempt(act: Callable[[Any], bytes], state: Any) -> bytes | MemoryError:
    try:
        return act(state)
    except MemoryError as error:
        return error.with_traceback(None)


def point(faults: Faults, operation: Operation, n: int, mode: str, wanted: bytes) -> tuple[int, int, bool]:
    """Run the operation while its nth allocation fails.

    Returns:
        The number of allocations that failed, the number of allocations, and whether a MemoryError was raised.
    """
    before = faults.live()
    state = operation.make()
    faults.arm(n, mode == "from then on")
    got = attempt(operation.act, state)
    failed, seen = faults.disarm()
    where = faults.where()
    if isinstance(got, MemoryError):
        assert failed, f"a MemoryError although no allocation failed: {got}"
        assert mode != "each call", f"the repeated call failed again: {got}\n{where}"
        assert str(got), f"a MemoryError without a message\n{where}"
        again = attempt(operation.act, state)
        assert again == wanted, f"after '{got}' the repetition returns {again!r}\n{where}"
    else:
        assert got == wanted, f"another result without an error\n{where}"
    operation.close(state)
    state = None
    after = faults.live()
    assert after == before, f"blocks, bytes and threads before {before}, after {after}; got {got!r}\n{where}"
    return failed, seen, isinstance(got, MemoryError)


def sweep(faults: Faults, operation: Operation, mode: str, first: int, stride: int) -> None:
    """Make every stride-th allocation fail. Print a line before each failure, and at the end a line with the totals."""
    results = []
    # only the second run is counted, because the first run also makes the allocations that happen once per process
    for _ in range(2):
        state = operation.make()
        faults.arm(-1, False)
        results.append(operation.act(state))
        _, seen = faults.disarm()
        operation.close(state)
    assert results[0] == results[1], "two runs without a failed allocation differ"
    injected = refused = 0
    n = first
    while True:
        print(f"point {n}", flush=True)
        failed, total, error = point(faults, operation, n, mode, results[0])
        if failed == 0:
            assert n > total, f"allocation {n} of {total} did not fail"
            break
        injected += failed
        refused += error
        n += stride
    print(f"done {seen} {injected} {refused}", flush=True)


@functools.cache
def call_again() -> None:
    """From now on, if a C call raises a MemoryError, make the same call one more time."""
    from toynn.errors import TinyNNMemoryError

    def repeated(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            try:
                return call(*arguments, **named)
            except TinyNNMemoryError:
                return call(*arguments, **named)

        return called

    session: Any = importlib.import_module("toynn.tinynn.session")
    session._called = repeated(session._called)
    session.Session.__init__ = repeated(session.Session.__init__)


def sweep_first_session(faults: Faults, path: str, mode: str, first: int, stride: int) -> None:
    """Sweep the first call in a process. This call sets up ggml. Each allocation fails in a new child process."""
    loader = importlib.machinery.ExtensionFileLoader("toynn._tinynn", path)
    spec = importlib.util.spec_from_loader("toynn._tinynn", loader)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    lib, null = module.lib, module.ffi.NULL
    faults.select()

    def first_session(n: int) -> tuple[int, int, int]:
        faults.arm(n, n > 0 and mode == "from then on")
        session = lib.tnn_session_new(0)
        failed, seen = faults.disarm()
        refused = session == null
        if refused:
            assert failed, "no session although no allocation failed"
            assert lib.tnn_last_error_code(null) == lib.TNN_E_MEMORY, module.ffi.string(lib.tnn_last_error(null))
            session = lib.tnn_session_new(0)
        assert session != null, f"no session at the second attempt\n{faults.where()}"
        process = os.fork()
        if process == 0:  # the child must not use the session, even if the fork handler was registered twice
            refuses = lib.tnn_session_n_threads(session) < 0 and lib.tnn_last_error_code(session) == lib.TNN_E_STATE
            os._exit(0 if refuses else 1)
        assert os.waitpid(process, 0)[1] == 0, f"a forked child can use its parent's session\n{faults.where()}"
        x = lib.tnn_input_1d_f32_persistent(session, 4)
        assert lib.tnn_finalize_weights(session) == 0
        assert lib.tnn_realize(session, lib.tnn_scale(session, x, 1.0)) == 0
        assert lib.tnn_compute(session) == 0
        lib.tnn_session_free(session)
        return failed, seen, int(refused)

    def forked(n: int) -> tuple[int, int, int]:
        ends, writes = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                os.write(writes, " ".join(map(str, first_session(n))).encode())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(writes)
        numbers = os.read(ends, 100).decode()
        os.close(ends)
        status = os.waitpid(process, 0)[1]
        assert status == 0, f"the first session ended its process with status {status}"
        failed, seen, refused = map(int, numbers.split())
        return failed, seen, refused

    _, seen, _ = forked(-1)
    injected = refused = 0
    for n in range(first, seen + 1, stride):
        print(f"point {n}", flush=True)
        failed, _, error = forked(n)
        assert failed, f"allocation {n} of {seen} did not fail"
        injected += failed
        refused += error
    print(f"done {seen} {injected} {refused}", flush=True)


def child(names: list[str], mode: str, first: int, stride: int, library: str) -> None:
    """Sweep operations in this process.

    first: number of the first allocation that fails in the first operation; 0: derive it from the operation's name.
    """
    faulthandler.enable()
    for name in names:
        print(f"operation {name}", flush=True)
        child_operation(name, mode, first or 1 + zlib.crc32(f"{name}, {mode}".encode()) % stride, stride, library)
        first = 0


def child_operation(name: str, mode: str, first: int, stride: int, library: str) -> None:
    if name == FIRST_SESSION:
        sweep_first_session(Faults("_tinynn."), library, mode, first, stride)
        return
    if library:
        wrong = ctypes.CDLL(library)

        def act(_: None) -> bytes:
            result = getattr(wrong, name)(100)
            if result < 0:
                raise MemoryError("cannot allocate memory for the sum")
            return str(result).encode()

        sweep(Faults("wrong_allocations").select(), Operation(lambda: None, act, lambda _: None), mode, first, stride)
        return
    import allocating_operations

    if mode == "each call":
        call_again()
    sweep(Faults("_tinynn.").select(), allocating_operations.OPERATIONS[name], mode, first, stride)


# ---------------------------------------------------------------- in the parent


@dataclass
class Swept:
    """The result of one operation in one mode.

    Attributes:
        allocations: number of allocations in a run without a failure.
        injected: number of allocations that failed.
        refused: number of runs that raised a MemoryError.
        failures: a message for each allocation whose failure ended the process or led to a wrong result.
    """

    allocations: int = 0
    injected: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def compiled(folder: Path, name: str) -> Path:
    """Compile tools/allocations/native/<name>.c to a shared library in the folder and return its path."""
    library = folder / f"lib{name}.so"
    command = [os.environ.get("CC", "cc"), "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(NATIVE / f"{name}.c"), "-ldl"], check=True)
    return library


def run(
    injector: Path, names: list[str], mode: str, *, first: int = 1, stride: int = 1, library: Path | None = None
) -> dict[str, Swept]:
    """Sweep operations in a child process. If the nth failure ends the process, continue with n + 1 in a new process.

    first: number of the first allocation that fails in the first operation; 0: derive it from the operation's name.
    """
    swept = {name: Swept() for name in names}
    while names:
        arguments = ["\n".join(names), mode, str(first), str(stride), str(library or "")]
        done = subprocess.run(
            [sys.executable, __file__, "--child", *arguments],
            env=os.environ | {"LD_PRELOAD": str(injector)},
            capture_output=True, text=True, timeout=1800, check=False,
        )  # fmt: skip
        name, n = "", 0
        for word, _, rest in (line.partition(" ") for line in done.stdout.splitlines()):
            if word == "operation":
                name, n = rest, 0
            elif word == "point":
                n = int(rest)
            elif word == "done":
                result = swept[name]
                result.allocations, injected, refused = map(int, rest.split())
                result.injected += injected
                result.refused += refused
        if done.returncode == 0:
            break
        if not name:
            raise RuntimeError(f"the sweep does not start: status {done.returncode}\n{done.stderr}")
        swept[name].failures.append(f"{name}, {mode}, at {n}: status {done.returncode}\n{done.stderr[-4000:]}")
        goes_on = n > 0 and len(swept[name].failures) < MOST_FAILURES
        names = names[names.index(name) + (0 if goes_on else 1) :]
        first = n + stride if goes_on else 0
    return swept


def main() -> int:
    from allocating_operations import OPERATIONS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="Sweep only operations whose name contains TEXT.")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="Make only every Nth allocation fail.")
    options = parser.parse_args()
    names = [name for name in OPERATIONS if options.only in name]
    if not names and options.only not in FIRST_SESSION:
        known = "; ".join([*OPERATIONS, FIRST_SESSION])
        parser.error(f"--only {options.only!r} matches no operation; the operations are: {known}")
    failures = total = 0
    print(f"{'operation':44} {'mode':12} {'allocations':>11} {'faults':>8} {'refused':>8}")
    with tempfile.TemporaryDirectory() as folder:
        injector = compiled(Path(folder), "allocation_faults")
        for mode in MODES:
            swept = run(injector, names, mode, first=0, stride=options.stride)
            if options.only in FIRST_SESSION and mode != "each call":
                swept |= run(injector, [FIRST_SESSION], mode, stride=options.stride, library=extension())
            for name, result in swept.items():
                print(f"{name:44} {mode:12} {result.allocations:11} {result.injected:8} {result.refused:8}")
                print("".join(result.failures), end="", flush=True)
                failures += len(result.failures)
                total += result.injected
    print(f"{total} allocations failed; {failures} checks failed")
    return 1 if failures else 0


def extension() -> Path:
    from toynn import _tinynn

    return Path(_tinynn.__file__)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2].split("\n"), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    else:
        sys.exit(main())
