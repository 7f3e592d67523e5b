"""The fuzzers of the session API and of the file readers find no failure, and they detect every kind of failure."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fuzz_interop
import fuzz_rounds
from fuzz_session import PLAIN, VARIANTS, DifferenceError, Round, functions, play, run
from fuzz_watch import watch
from toynn import tinynn as nn

ROUNDS = 250
SESSION, READERS = fuzz_rounds.__file__, fuzz_interop.__file__


# Calls that need a whole array of the right size. Every round makes these calls, but does not count them (Round.feed,
# Round.contents).
MOVERS = {
    "download_row_major", "download_to_mat", "download_matmul", "tnn_download_to_int_array",
    "tnn_upload_from_float_array", "tnn_upload_from_int_array", "upload_int_array", "upload_row_major",
    "upload_transposed",
}  # fmt: skip


def test_random_rounds_find_no_failure_and_every_call_succeeds_at_least_once() -> None:
    """If a new call never succeeds, tools/fuzz/fuzz_operators.py needs a line with valid operands for it."""
    never: list[set[str]] = []
    for first in (0, 100_000):
        outcome = watch(SESSION, ["--seed", str(first), "--rounds", str(ROUNDS), "--seconds", "1e9"], patience=300)
        assert outcome.succeeded, outcome.output
        assert f"{ROUNDS} rounds from seed {first}" in outcome.output
        never.append(set(outcome.output.split("never succeeded:")[1].split()))
    assert set.intersection(*never) <= MOVERS


def test_damaged_files_do_not_crash_a_reader() -> None:
    outcome = watch(READERS, ["--seed", "1000", "--rounds", "200", "--seconds", "1e9"], patience=300)
    assert outcome.succeeded, outcome.output
    assert "200 rounds from seed 1000" in outcome.output


def test_an_abort_is_reported_with_its_seed() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "abort:22"], patience=300)
    assert outcome.seed == 22
    assert "seed 22 ended the process with status -6" in outcome.output


def test_an_exit_with_status_0_is_reported_with_its_seed() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "exit:22"], patience=300)
    assert outcome.seed == 22
    assert "seed 22 ended the process with status 0" in outcome.output


def test_a_hang_is_stopped_and_reported_with_its_seed() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "hang:21"], patience=20)
    assert outcome.seed == 21
    assert "seed 21 hung" in outcome.output


def test_an_exception_of_another_library_is_reported_with_its_seed() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "raise:23"], patience=300)
    assert outcome.seed == 23
    assert "ZeroDivisionError" in outcome.output


@pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ, reason="AddressSanitizer delays freeing memory and finds leaks itself"
)
def test_growing_memory_is_reported_with_its_seed() -> None:
    outcome = watch(SESSION, ["--seed", "0", "--rounds", "170", "--sabotage", "grow:160"], patience=300)
    assert outcome.seed == 160
    assert "AssertionError: memory grew from" in outcome.output


def test_ctrl_c_ends_the_watcher_at_once(tmp_path: Path) -> None:
    begun, script = tmp_path / "begun", tmp_path / "child.py"
    script.write_text(f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(3600)")
    watching = f"from fuzz_watch import watch; watch({str(script)!r}, [], 100_000)"
    folder = Path(SESSION).parent
    watcher = subprocess.Popen(
        [sys.executable, "-c", watching], cwd=folder, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        while not begun.exists():
            assert watcher.poll() is None
        os.killpg(watcher.pid, signal.SIGINT)  # in a shell, Ctrl-C also sends the signal to the child process
        assert watcher.wait(60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(watcher.pid, signal.SIGKILL)
        watcher.communicate()


def test_a_result_that_depends_on_the_number_of_threads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test replaces the download by a function whose numbers depend on the number of threads, as in a race."""
    honest = nn.tnn_download

    def dishonest(s: nn.Session, t: nn.Tensor) -> Any:
        array = honest(s, t)
        if nn.tnn_session_n_threads(s) > 1:
            array[0] += 1
        return array

    monkeypatch.setattr(nn, "tnn_download", dishonest)
    monkeypatch.setattr("fuzz_session.VARIANTS", [VARIANTS[0]])
    with pytest.raises(DifferenceError, match=r"seed \d+: number \d+ differs .*n_threads=2"):
        _ = [run(seed, functions()) for seed in range(60)]


def test_a_round_depends_only_on_its_seed_and_rounds_reach_both_kinds_of_operators() -> None:
    every = functions()
    one, two = play(7, PLAIN, every), play(7, PLAIN, every)
    assert one.numbers == two.numbers
    assert {variant.n_threads for variant in VARIANTS} == {1, 2, 3}

    ops: set[str] = set()

    class Watched(Round):
        def record_contents(self) -> None:
            s = self.session
            ops.update(nn.tnn_tensor_op_name(nn.tnn_graph_node(s, i)) for i in range(nn.tnn_graph_n_nodes(s)))
            super().record_contents()

    for seed in range(400):
        watched = Watched(seed)
        (watched.start_fused if seed % 2 else watched.start)()
        if not seed % 2:
            for _ in range(20):
                watched.grow()
        watched.run_graph()
        watched.session.close()
    wanted = [
        "ADAMW", "ATTENTION", "ATTENTION_BACK", "ATTENTION_CACHED", "CPY", "CROSS_ENTROPY_LOSS", "EMBEDDING_BACK",
        "GRAD_NORM", "LINEAR_BACK_W", "MUL_MAT", "OPT_STEP_ADAMW", "ROPE", "SET", "SET_ROWS", "SOFT_MAX",
    ]  # fmt: skip
    assert set(wanted) <= ops, sorted(ops)
