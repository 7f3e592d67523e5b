"""Runs with Muon and on preference pairs (DPO) write the same bytes in several processes as in one process."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import toynn as library
from commands import SMALL, toynn
from mpi import MPICH, OPEN_MPI, toynn_in_processes
from runs_of_processes import assert_same_run, files_of, latest_of, slow
from small_runs import make_data

QUIET = ["--threads", "1", "--quiet"]
MUON = ["--set", "optimizer.kind=muon", "--set", "optimizer.clip=0.2", "--set", "optimizer.muon_weight_decay=0.3"]
STEPS = ["--set", "train.steps=4", "--set", "evaluation.every=2", "--set", "checkpoint.keep_last=9", *QUIET]


@pytest.fixture(scope="module")
def with_muon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and with a run of a single process whose optimizer is Muon."""
    folder = tmp_path_factory.mktemp("muon")
    data, windows = make_data(folder / "data"), ["--set", "train.batch=6", "--set", "train.accumulate=2"]
    assert toynn("train", data, "--out", folder / "alone", *SMALL, *windows, *MUON, *STEPS).returncode == 0
    return folder


@pytest.mark.parametrize(("name", "n"), [(MPICH, 3), slow(MPICH, 2), slow(OPEN_MPI, 4), slow(MPICH, 12)])
def test_muon_in_n_processes_writes_the_bytes_of_one(name: str, n: int, with_muon: Path, tmp_path: Path) -> None:
    windows = ["--set", "train.batch=6", "--set", "train.accumulate=2"]
    options: list[str | Path] = [with_muon / "data", "--out", tmp_path / "run", *SMALL, *windows, *MUON, *STEPS]
    done = toynn_in_processes(name, n, "train", *options)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", with_muon / "alone")


def test_moments_in_bfloat16_have_the_same_bytes_in_three_processes(with_muon: Path, tmp_path: Path) -> None:
    """Muon rounds the momentum of the matrices of the layers, and AdamW rounds the moments of the embedding."""
    options: list[str | Path] = [*SMALL, *MUON, *STEPS, "--set", "train.batch=6", "--set", "optimizer.moments=bf16"]
    assert toynn("train", with_muon / "data", "--out", tmp_path / "alone", *options).returncode == 0
    done = toynn_in_processes(MPICH, 3, "train", with_muon / "data", "--out", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", tmp_path / "alone")
    resume: list[str | Path] = [with_muon / "data", "--out", tmp_path / "run", "--resume", "--from", "step-00000002"]
    done = toynn_in_processes(MPICH, 2, "train", *resume, *QUIET)
    assert done.returncode == 0, done.stderr
    assert latest_of(tmp_path / "run") == latest_of(tmp_path / "alone")


def test_a_run_with_muon_can_be_resumed_with_another_number_of_processes(with_muon: Path, tmp_path: Path) -> None:
    """Two processes repeat the last three steps of a run, and then one process repeats the last two."""
    run = tmp_path / "run"
    shutil.copytree(with_muon / "alone", run)
    for n, first in ((2, "step-00000001"), (1, "step-00000002-1")):
        resume: list[str | Path] = ["train", with_muon / "data", "--out", run, "--resume", "--from", first, *QUIET]
        done = toynn(*resume) if n == 1 else toynn_in_processes(MPICH, n, *resume)
        assert done.returncode == 0, done.stderr
        assert latest_of(run) == latest_of(with_muon / "alone")


DPO = ["--set", "train.objective=dpo", "--set", "train.batch=3", "--set", "train.accumulate=2", "--set", "dpo.beta=0.3"]


@pytest.fixture(scope="module")
def with_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with preference pairs, a model, and a run of a single process on the pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    animals = ("cat", "dog", "hen")
    pairs = [
        {
            "prompt": f"say {i % 7} of a {animals[i % 3]}. ",
            "chosen": "it ran " + "home " * (i % 4),
            "rejected": f"no {i}",
        }
        for i in range(30)
    ]
    source = folder / "pairs.jsonl"
    source.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    library.prepare(source, folder / "data", vocab_size=280, validation=0.3, progress=False)
    texts = folder / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": one["prompt"] + one["chosen"]}) for one in pairs), encoding="utf-8")
    library.prepare(texts, folder / "texts", tokenizer=folder / "data", validation=0, progress=False)
    first = ["--set", "train.steps=3", "--set", "schedule.warmup=1", "--set", "model.ctx=48", *QUIET]
    assert toynn("train", folder / "texts", "--out", folder / "model", *SMALL, *first).returncode == 0
    assert train_on_pairs(folder, folder / "alone").returncode == 0
    return folder


def train_on_pairs(folder: Path, run: Path, n: int = 1, name: str = MPICH) -> subprocess.CompletedProcess[str]:
    """Train on the pairs of a folder in n processes."""
    options: list[str | Path] = ["train", folder / "data", "--init", folder / "model", "--out", run, *DPO, *STEPS]
    return toynn(*options) if n == 1 else toynn_in_processes(name, n, *options)


@pytest.mark.parametrize(("name", "n"), [(MPICH, 2), slow(OPEN_MPI, 3), slow(MPICH, 6)])
def test_preference_pairs_in_n_processes_give_the_bytes_of_one(
    name: str, n: int, with_pairs: Path, tmp_path: Path
) -> None:
    done = train_on_pairs(with_pairs, tmp_path / "run", n, name)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", with_pairs / "alone")
    for stored in ("reference.bin", "reference.json"):
        assert (tmp_path / "run" / stored).read_bytes() == (with_pairs / "alone" / stored).read_bytes()


def test_a_run_on_pairs_can_be_resumed_with_another_number_of_processes(with_pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(with_pairs / "alone", run)
    resume: list[str | Path] = [
        "train",
        with_pairs / "data",
        "--out",
        run,
        "--resume",
        "--from",
        "step-00000002",
        *QUIET,
    ]
    done = toynn_in_processes(MPICH, 3, *resume)
    assert done.returncode == 0, done.stderr
    assert latest_of(run) == latest_of(with_pairs / "alone")
    (run / "reference.bin").unlink()
    done = toynn_in_processes(MPICH, 2, *resume)
    assert done.returncode != 0
    assert done.stderr.count("toynn:") == 1
    assert "process 0 of 2 on host" in done.stderr
    assert f"{run / 'reference.bin'} is missing" in done.stderr


@pytest.mark.slow
def test_an_adapter_on_pairs_and_muon_have_the_bytes_of_one_process(with_pairs: Path, tmp_path: Path) -> None:
    base: list[str | Path] = ["--base", with_pairs / "model", "--set", "adapter.rank=4"]
    for run, n in (("one", 1), ("three", 3)):
        to = tmp_path / run
        arguments: list[str | Path] = ["train", with_pairs / "data", "--out", to, *base, *DPO, *MUON, *STEPS]
        done = toynn(*arguments) if n == 1 else toynn_in_processes(MPICH, n, *arguments)
        assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "three") == files_of(tmp_path / "one")
