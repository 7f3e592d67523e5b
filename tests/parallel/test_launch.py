"""Wrong ways to start processes with mpiexec: each job ends with one line, and no process waits for ever."""

from __future__ import annotations

import pytest

from mpi import MPICH, OPEN_MPI, different_commands, refused, toynn_in_processes

TRAIN = ("train", "DATA", "--out", "RUN")


@pytest.mark.parametrize("library", [MPICH, pytest.param(OPEN_MPI, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", ["chat", pytest.param("export", marks=pytest.mark.slow)])
def test_a_command_for_one_process_is_refused_once(library: str, command: str) -> None:
    done = toynn_in_processes(library, 2, command, "MODEL")
    refused(
        done, f"mpiexec started 2 processes, but toynn {command} runs in one process; start the command without mpiexec"
    )


@pytest.mark.parametrize("library", [MPICH, pytest.param(OPEN_MPI, marks=pytest.mark.slow)])
def test_help_is_printed_once(library: str) -> None:
    done = toynn_in_processes(library, 2, "train", "--help")
    assert (done.returncode, done.stdout.count("Usage: toynn train")) == (0, 1), done.stderr


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("library", "first", "second", "says"),
    [
        (MPICH, (".",), ("--help",), "runs toynn train --help, but process 0 on host"),
        slow(OPEN_MPI, ("--help",), (".",), "runs toynn train, but process 0 on host"),
        slow(MPICH, (".", "--out", "RUN"), (".", "--show-config"), "runs toynn train --show-config, but"),
        slow(MPICH, (".", "--out", "RUN"), (".", "--wrong"), "process 1 of 2 on host"),
        slow(OPEN_MPI, (".", "--wrong"), (".", "--out", "RUN"), "No such option"),
        slow(MPICH, (".", "--threads", "0"), (".", "--help"), "process 0 of 2 on host"),
    ],
)
def test_processes_with_different_arguments_end(
    library: str, first: tuple[str, ...], second: tuple[str, ...], says: str
) -> None:
    refused(different_commands(library, [("train", *first), ("train", *second)]), says)


@pytest.mark.parametrize("library", [MPICH, slow(OPEN_MPI)])
def test_processes_with_different_commands_end(library: str) -> None:
    refused(different_commands(library, [("eval", ".", __file__), ("chat", ".")]), "process 1 of 2 on host")
