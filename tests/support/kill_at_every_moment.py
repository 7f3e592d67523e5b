"""Kill a small training run at each of its changes to the file system, one at a time, and resume the run.

    python tests/support/kill_at_every_moment.py DATA FOLDER [--every N]

A change is a file that is opened for writing, a rename, a removal or a new folder (Python's audit events report them).
For each k, a child process trains and kills itself with SIGKILL just before change k. If the run had a checkpoint
before, it must still have a checkpoint that can be loaded. Then a second child process resumes the run and is killed
too, and a third child process resumes the run and finishes it. The result must have the same bytes as a run that was
never killed, and the same best model and checkpoints. The best model is neither the first nor the last model. The
script prints the number of kills, and raises an error at the first difference.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from small_runs import bytes_of, config, evaluations, final_bytes, losses
from toynn import TrainArgs, train
from toynn.storage.checkpoint import load_checkpoint
from toynn.storage.checkpoint.names import checkpoint_names
from toynn.training import CheckpointArgs, EvaluationArgs, OptimizerArgs, ScheduleArgs

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
CONFIG = config(
    6,
    # the learning rate is so high that the evaluation loss rises again after step 4
    optimizer=OptimizerArgs(lr=0.5, kind="adamw", clip=0.0),
    schedule=ScheduleArgs(kind="constant", warmup=0),
    evaluation=EvaluationArgs(every=2),
    checkpoint=CheckpointArgs(every=2, keep_last=1),
)
BEST_STEP = 4


def in_a_process(work: Callable[[], None]) -> int:
    """Run `work` in a forked child, and return the child's exit code; it is negative if a signal ended the child."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(moment: int, run: Path, work: Callable[[], None]) -> int:
    """Run `work` in a child that is killed just before change number `moment` under `run`, and return its exit code.

    The exit code is 0 if there are fewer changes.
    """

    def armed() -> None:
        seen = 0

        def audit(event: str, args: tuple[object, ...]) -> None:
            nonlocal seen
            writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if (writes or event in CHANGES) and str(args[0]).startswith(str(run)):
                seen += 1
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        work()

    return in_a_process(armed)


def start_or_resume(data: Path, run: Path) -> None:
    resume = (run / "latest").exists()
    train(TrainArgs(data, run, None if resume else CONFIG, resume=resume, n_threads=1))


def require_whole(run: Path) -> None:
    """Check that the checkpoints named by `latest` and `best`, if they exist, can be loaded."""
    for which in ("latest", "best"):
        if (run / which).exists():
            load_checkpoint(run, which)


def outcome(run: Path) -> tuple[object, ...]:
    """Return all results that must be equal in a killed run and an uninterrupted run."""
    best = load_checkpoint(run, "best") if (run / "best").exists() else None
    best_of = (None, None) if best is None else (best.step, bytes_of(best))
    # the checkpoint of a step may have been written twice
    kept = {name[: len("step-00000000")] for name in checkpoint_names(run)}
    left_behind = [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    return losses(run), evaluations(run), final_bytes(run), *best_of, kept, left_behind


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Kill only at every Nth change.")
    options = parser.parse_args()
    whole, run = options.folder / "whole", options.folder / "run"
    if in_a_process(lambda: start_or_resume(options.data, whole)) != 0:
        raise SystemExit("the training itself failed")
    expected = outcome(whole)
    if load_checkpoint(whole, "best").step != BEST_STEP:
        raise SystemExit(
            f"the best checkpoint must be that of step {BEST_STEP}, otherwise the test cannot detect its loss"
        )
    kills = moment = 0
    while True:
        moment += options.every
        shutil.rmtree(run, ignore_errors=True)
        code = killed_at(moment, run, lambda: start_or_resume(options.data, run))
        if code == 0:
            break
        if code != -signal.SIGKILL:
            raise SystemExit(f"moment {moment}: exit code {code}")
        kills += 1
        require_whole(run)
        second = killed_at(1 + moment * 7 % 41, run, lambda: start_or_resume(options.data, run))
        if second not in (0, -signal.SIGKILL):
            raise SystemExit(f"moment {moment}: the second process ended with {second}")
        kills += second != 0
        if in_a_process(lambda: start_or_resume(options.data, run)) != 0:
            raise SystemExit(f"moment {moment}: the third process failed")
        if outcome(run) != expected:
            raise SystemExit(f"moment {moment}: another curve, other weights, another best, or other files")
    print(f"{kills} kills, the last one before change {moment - options.every}")


if __name__ == "__main__":
    main()
