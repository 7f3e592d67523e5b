"""Check the states in which a power loss at any moment leaves a training run, a data folder, an import or an export.

    python tools/power_loss/check_power_loss.py                    # every workload
    python tools/power_loss/check_power_loss.py --only training --every 5

Each workload runs under strace, which records its changes to files. From this record, the script builds every state in
which a power loss may leave the disk: see disk_model.py and crash_states.py. Each different state is written to a
folder and checked. Then the workload is continued from this state. If several states differ only in temporary files,
the workload is continued from one of them. The exit status is 1 if a check failed.

Needs the program strace (Linux).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paths import TESTS_SUPPORT

sys.path.insert(0, str(TESTS_SUPPORT))  # small_runs is imported from this folder

import file_workloads
import training_workloads
from crash_states import Counts, CrashState, Limits, crash_states, digest_of, tree_in, write_tree
from disk_model import Disk, Tree
from file_operations import Operation
from strace_log import OPTIONS, TRACE, operations_of
from workload import FaultError, Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        training_workloads.Training(),
        training_workloads.TrainingWithoutBest(),
        training_workloads.GoingBack(),
        training_workloads.TrainingOnPairs(),
        file_workloads.Prepare(),
        file_workloads.Import(),
        file_workloads.ReplacingImport(),
        *file_workloads.EXPORTS,
    )
}


@dataclass
class Result:
    """The result of one workload.

    Attributes:
        went_on: number of states from which the workload was continued.
        faults: for each kind of fault, the number of states that have it, and a description of the first one.
    """

    operations: int
    counts: Counts = field(default_factory=Counts)
    went_on: int = 0
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, fault: FaultError, state: CrashState, place: Path) -> None:
        """Count a fault that was found in a state."""
        text = str(fault).replace(str(place), "")
        kind = re.sub(r"[0-9]+|[0-9a-f]{12,}", "N", text)[:100]
        files = ", ".join(f"{path} {'' if content is None else len(content)}" for path, content in state.tree.items())
        told = state.reports[-1] if state.reports else "nothing"
        count, first = self.faults.get(kind, (0, f"moment {state.moment}, told {told!r}: {text}\n    {files}"))
        self.faults[kind] = count + 1, first


def recorded(workload: Workload, folder: Path) -> list[Operation]:
    """Run a workload under strace in an existing empty folder, and return its operations on files.

    Raises RuntimeError if the workload fails, or if the recorded operations do not give the files that it left.
    """
    given, files, log = folder / "given", folder / "files", folder / "strace.log"
    given.mkdir()
    files.mkdir()
    workload.make_inputs(given)
    program = [sys.executable, str(Path(__file__).resolve()), "--perform", workload.name, str(folder)]
    command = ["strace", *OPTIONS, *TRACE, "-o", str(log), "--", *program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{workload.name} fails under strace: status {done.returncode}\n{done.stderr[-4000:]}")
    with log.open(encoding="ascii") as lines:
        operations = operations_of(lines, files, folder / "reports")
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    if digest_of(disk.tree_without_loss()) != digest_of(tree_in(files)):
        raise RuntimeError(f"the record of {workload.name} does not lead to the files that it left: a call is missing")
    return operations


def checked(
    workload: Workload, operations: Sequence[Operation], folder: Path, limits: Limits, most_resumed: int | None = None
) -> Result:
    """Check every state in which a power loss may leave the disk during the operations.

    folder: the folder of `recorded`. most_resumed: continue from at most this number of states, evenly spread.
    """
    began = time.perf_counter()
    result = Result(len(operations))
    given, place = folder / "given", folder / "state"
    known: set[bytes] = set()
    to_go_on: list[CrashState] = []
    for state in crash_states(operations, result.counts, limits):
        if _failed(result, state, place, lambda state=state: workload.check(given, place, state.reports)):  # type: ignore[misc]
            continue
        if (key := digest_of(essential(state.tree))) not in known:
            known.add(key)
            to_go_on.append(state)
    if most_resumed is not None:
        to_go_on = to_go_on[:: max(-(-len(to_go_on) // max(most_resumed, 1)), 1)][:most_resumed]
    for state in to_go_on:
        result.went_on += 1
        _failed(result, state, place, lambda: workload.go_on(given, place))
    result.seconds = time.perf_counter() - began
    return result


def _failed(result: Result, state: CrashState, place: Path, check: Callable[[], None]) -> bool:
    """Write a state to a folder and check it. Return whether it failed, and add the fault to the result."""
    write_tree(state.tree, place)
    try:
        check()
    except FaultError as fault:
        result.add(fault, state, place)
        return True
    finally:
        shutil.rmtree(place)
    return False


def essential(tree: Tree) -> Tree:
    """Return a tree without the contents of temporary files and folders, because no program reads them."""
    parts = {path: path.split("/") for path in tree}
    temporary = {path: [part.startswith((".tmp-", ".old-")) for part in names] for path, names in parts.items()}
    return {
        path: None if content is None else b"" if temporary[path][-1] else content
        for path, content in tree.items()
        if not any(temporary[path][:-1])
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="Check only workloads whose name contains TEXT.")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="Check only every Nth sync and the end.")
    parser.add_argument("--perform", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.perform:
        perform(WORKLOADS[options.perform[0]], Path(options.perform[1]))
        return 0
    faults = 0
    print(
        f"{'workload':24} {'operations':>10} {'moments':>8} {'built':>8} {'different':>9} {'went on':>8} {'faults':>7}"
    )
    for name, workload in WORKLOADS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            operations = recorded(workload, Path(folder))
            result = checked(workload, operations, Path(folder), Limits(every=options.every))
        counts = result.counts
        print(
            f"{name:24} {result.operations:10} {counts.moments:8} {counts.built:8} {counts.distinct:9} "
            f"{result.went_on:8} {len(result.faults):7} {result.seconds:.0f} s, "
            f"all states at {counts.exhaustive} moments"
        )
        for count, first in result.faults.values():
            print(f"  {count} states: {first}", flush=True)
        faults += len(result.faults)
    return 1 if faults else 0


def perform(workload: Workload, folder: Path) -> None:
    """Run a workload, in the process that strace has started."""
    with (folder / "reports").open("ab", buffering=0) as reports:
        workload.perform(folder / "given", folder / "files", lambda text: _write_line(reports, text))


def _write_line(file: FileIO, text: str) -> None:
    file.write(f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
