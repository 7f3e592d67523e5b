"""Work that the processes of a job divide among themselves: results in order, errors, evaluations. Threads replace
processes here.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import toynn
from thread_processes import in_threads
from toynn.data import DataFolder
from toynn.data.pairs import PairBatcher
from toynn.errors import FileFormatError, ProcessError
from toynn.llm.preference import Preference
from toynn.parallel.division import in_turn
from toynn.parallel.processes import Processes
from toynn.training import DataArgs
from toynn.training.packed_validation import validation_of
from toynn.training.preference import evaluate_pairs

pytestmark = pytest.mark.quick
T = 24


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("items", [0, 1, 4, 7])
def test_results_are_in_order_in_all_processes(n: int, items: int) -> None:
    computed: list[int] = []

    def square(i: int) -> int:
        computed.append(i)
        return i * i

    assert (
        in_threads(n, lambda processes: in_turn(processes, range(items), square)) == [[i * i for i in range(items)]] * n
    )
    assert sorted(computed) == list(range(items))


def failing(error: Exception, at: set[int]) -> Any:
    def work(processes: Processes) -> list[int]:
        def compute(i: int) -> int:
            if i in at:
                raise type(error)(f"{error} at {i}")
            return i

        with processes.together():
            return in_turn(processes, range(9), compute)

    return work


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_first_wrong_input_is_the_error_of_all_processes(n: int) -> None:
    found = in_threads(n, failing(FileFormatError("damaged"), {5, 6, 8}))
    assert [(type(one), str(one)) for one in found] == [(FileFormatError, "damaged at 5")] * n


def test_another_error_names_its_process() -> None:
    found = in_threads(3, failing(MemoryError("too large"), {4}))
    assert [str(one).replace(Processes(mock.Mock()).host, "HOST") for one in found] == [
        "process 1 of 3 on host HOST: too large at 4"
    ] * 3
    assert [isinstance(one, ProcessError) for one in found] == [True] * 3


def test_an_error_outside_the_division_ends_the_other_processes() -> None:
    def work(processes: Processes) -> list[int]:
        with processes.together():
            if processes.rank == 1:
                raise OSError("no such file")
            return in_turn(processes, range(4), lambda i: i)

    assert [f"{one}".partition(": ")[2] for one in in_threads(2, work)] == ["no such file"] * 2


def test_commands_that_differ_are_refused_in_all_processes() -> None:
    def work(processes: Processes) -> None:
        processes.meet(f"toynn {'eval' if processes.rank == 2 else 'train'}")

    for one in in_threads(3, work):
        assert isinstance(one, ProcessError)
        assert "process 2 of 3 on host" in str(one)
        assert "runs toynn eval, but process 0" in str(one)


class Engine:
    """Computes losses that depend only on the ids of a window, and whose sum in float64 depends on the order."""

    def __init__(self, windows: int) -> None:
        self.seq_b = windows
        self._losses = np.zeros((windows, T), dtype=np.float32)
        self.batches = 0

    def use_sequence_length(self, t_seq: int) -> None:
        assert t_seq == T

    def mean_loss(self, ids: Any, targets: Any, **_: Any) -> None:
        self.batches += 1
        seeds = [zlib.crc32(row.tobytes()) for row in np.asarray(ids).reshape(self.seq_b, -1)]
        losses = [np.exp(np.random.default_rng(seed).uniform(-25, 5, T)) for seed in seeds]
        self._losses = np.array(losses, dtype=np.float32)

    def row_losses(self) -> Any:
        return self._losses.ravel()

    def window_losses(self) -> Any:
        return self._losses.sum(axis=1, dtype=np.float64)

    def pair_losses(self) -> Any:
        return self.window_losses()[::2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data of two sources, and with data of preference pairs."""
    folder = tmp_path_factory.mktemp("division")
    for name, word in (("one", "hen"), ("two", "cat")):
        lines = [json.dumps({"text": f"{word} {i} ran home"}) for i in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    files = [folder / "one.jsonl", folder / "two.jsonl"]
    toynn.prepare(files, folder / "data", vocab_size=262, validation=0.5, progress=False)
    pairs = [json.dumps({"prompt": f"{i} ", "chosen": "hen", "rejected": "cat" * (i % 5)}) for i in range(1, 60)]
    (folder / "pairs.jsonl").write_text("\n".join(one for one in pairs if '""' not in one))
    toynn.prepare(folder / "pairs.jsonl", folder / "pairs", vocab_size=262, validation=0.5, progress=False)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_an_evaluation_does_not_depend_on_the_number_of_processes(n: int, packed: bool, folder: Path) -> None:
    split = DataFolder.open(folder / "data").validation
    validation = validation_of(split, T, 2, 0, DataArgs(document_attention=packed))
    engine: Any = Engine(2)
    alone = validation.loss(engine)
    assert len(alone.of_sources) == 2
    engines: list[Any] = [Engine(2) for _ in range(n)]
    found = in_threads(n, lambda processes: validation.loss(engines[processes.rank], processes))
    assert found == [alone] * n
    assert sum(one.batches for one in engines) == engine.batches > n


@pytest.mark.parametrize("n", [2, 5])
def test_an_evaluation_of_pairs_does_not_depend_on_the_number_of_processes(n: int, folder: Path) -> None:
    pairs = PairBatcher(DataFolder.open(folder / "pairs").validation, T, None)
    reference = np.random.default_rng(0).normal(size=2 * pairs.pairs)
    given = (pairs, reference, Preference("sigmoid", 0.1), pairs.pairs)
    engine: Any = Engine(4)
    alone = evaluate_pairs(engine, *given)
    engines: list[Any] = [Engine(4) for _ in range(n)]
    found = in_threads(n, lambda processes: evaluate_pairs(engines[processes.rank], *given, processes))
    assert found == [alone] * n
    assert sum(one.batches for one in engines) == engine.batches > n
