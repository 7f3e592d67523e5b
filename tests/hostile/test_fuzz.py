"""The session API under a fixed number of random rounds, and the proof that the fuzzer notices what it looks for."""

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


# Whole arrays of the right size: every round moves them itself, by calls that are not counted (Round.feed, Round.held).
MOVERS = {
    "download_row_major", "tnn_download_to_int_array", "tnn_upload_from_int_array", "upload_int_array",
    "upload_row_major",
}  # fmt: skip


def test_no_call_aborts_hangs_raises_what_is_not_ours_or_gives_other_numbers_and_each_succeeds_once() -> None:
    """A call that is added and never succeeds wants operands that fit: a line in fuzz_operators.py."""
    never: list[set[str]] = []
    for first in (0, 100_000):
        outcome = watch(SESSION, ["--seed", str(first), "--rounds", str(ROUNDS), "--seconds", "1e9"], patience=300)
        assert outcome.well, outcome.said
        assert f"{ROUNDS} rounds from seed {first}" in outcome.said
        never.append(set(outcome.said.split("never succeeded:")[1].split()))
    assert set.intersection(*never) <= MOVERS


def test_no_file_that_is_damaged_ends_a_reader() -> None:
    outcome = watch(READERS, ["--seed", "1000", "--rounds", "200", "--seconds", "1e9"], patience=300)
    assert outcome.well, outcome.said
    assert "200 rounds from seed 1000" in outcome.said


def test_an_abort_is_reported_with_its_seed() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "abort:22"], patience=300)
    assert outcome.seed == 22
    assert "seed 22 ended the process with status -6" in outcome.said


def test_a_call_that_ends_the_process_without_a_failure_is_reported_all_the_same() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "exit:22"], patience=300)
    assert outcome.seed == 22
    assert "seed 22 ended the process with status 0" in outcome.said


def test_a_hang_is_reported_with_its_seed_and_ended() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "hang:21"], patience=20)
    assert outcome.seed == 21
    assert "seed 21 hung" in outcome.said


def test_a_foreign_exception_ends_the_child_and_is_reported() -> None:
    outcome = watch(SESSION, ["--seed", "20", "--rounds", "5", "--sabotage", "raise:23"], patience=300)
    assert outcome.seed == 23
    assert "ZeroDivisionError" in outcome.said


@pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ, reason="AddressSanitizer keeps what was freed, and finds leaks itself"
)
def test_memory_that_grows_is_noticed() -> None:
    outcome = watch(SESSION, ["--seed", "0", "--rounds", "170", "--sabotage", "grow:160"], patience=300)
    assert outcome.seed == 160
    assert "AssertionError: memory grew from" in outcome.said


def test_ctrl_c_ends_the_watcher_though_its_patience_is_long(tmp_path: Path) -> None:
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
        os.killpg(watcher.pid, signal.SIGINT)  # as a shell does: the child has it too
        assert watcher.wait(60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(watcher.pid, signal.SIGKILL)
        watcher.communicate()


def test_another_number_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that depends on the number of threads, as a kernel with a race would."""
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


def test_rounds_reach_what_they_are_for() -> None:
    """Computes forwards and backwards, of both kinds of operators, and steps; a round is its seed's alone."""
    every = functions()
    one, two = play(7, PLAIN, every), play(7, PLAIN, every)
    assert one.numbers == two.numbers
    assert {variant.n_threads for variant in VARIANTS} == {1, 2, 3}

    ops: set[str] = set()

    class Watched(Round):
        def look(self) -> None:
            s = self.session
            ops.update(nn.tnn_tensor_op_name(s, nn.tnn_graph_node(s, i)) for i in range(nn.tnn_graph_n_nodes(s)))
            super().look()

    for seed in range(300):
        watched = Watched(seed)
        (watched.start_fused if seed % 2 else watched.start)()
        if not seed % 2:
            for _ in range(20):
                watched.grow()
        watched.to_an_end()
        watched.session.close()
    wanted = [
        "ADAMW", "ATTENTION", "ATTENTION_BACK", "ATTENTION_CACHED", "CPY", "CROSS_ENTROPY_LOSS", "EMBEDDING_BACK",
        "GRAD_NORM", "LINEAR_BACK_W", "MUL_MAT", "OPT_STEP_ADAMW", "ROPE", "SET", "SET_ROWS", "SOFT_MAX",
    ]  # fmt: skip
    assert set(wanted) <= ops, sorted(ops)
