"""`toynn eval` in several processes: the output of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import SMALL, output_of, toynn
from mpi import MPICH, OPEN_MPI, different_commands, refused, toynn_in_processes
from small_runs import make_data


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the text data.txt, the data folder `data` and a run."""
    folder = tmp_path_factory.mktemp("commands")
    make_data(folder / "data")
    steps = ["--set", "train.steps=2", "--set", "schedule.warmup=1", "--quiet"]
    output_of("train", folder / "data", "--out", folder / "run", *SMALL, *steps)
    return folder


@pytest.mark.parametrize(
    ("library", "n", "text", "options"),
    [
        (MPICH, 3, "data.txt", ["--json", "--stride", "5"]),
        (OPEN_MPI, 2, "data", ["--ids"]),
        slow(MPICH, 2, "data.txt", []),
        slow(MPICH, 3, "data", ["--ce", "--json"]),
        slow(MPICH, 4, "data.txt", ["--window", "3"]),
        slow(OPEN_MPI, 3, "data", ["--ids", "--json", "--tokens", "7"]),
    ],
)
def test_eval_prints_the_figures_of_one_process(
    library: str, n: int, text: str, options: list[str], folder: Path
) -> None:
    command: list[str | Path] = ["eval", folder / "run", folder / text, *options]
    done = toynn_in_processes(library, n, *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output_of(*command)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["text", "window", "separator"])
def test_wrong_input_gives_the_message_of_one_process(wrong: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "marked").write_text("a\n</s>\nb\n")
    text = {"text": tmp_path / "empty", "window": folder / "data.txt", "separator": tmp_path / "marked"}[wrong]
    command: list[str | Path] = ["eval", folder / "run", text, *(["--window", "99"] if wrong == "window" else [])]
    alone = toynn(*command)
    done = toynn_in_processes(MPICH, 2, *command)
    assert (done.stderr.splitlines()[0], done.returncode) == (alone.stderr.strip(), alone.returncode)
    refused(done, alone.stderr.strip())


def test_processes_with_different_texts_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text((folder / "data.txt").read_text() + "the end\n")
    commands: list[tuple[str | Path, ...]] = [("eval", folder / "run", one / "data.txt") for one in (folder, tmp_path)]
    refused(different_commands(MPICH, commands), "the data (")
