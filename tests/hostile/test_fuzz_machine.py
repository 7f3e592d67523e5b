"""The hypothesis state machine of tools/fuzz makes every call, finds no failure, and detects every kind of failure."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import fuzz_machine
from fuzz_watch import Outcome, watch
from toynn import Session
from toynn import tinynn as nn

BATCHES = 8


def machine(folder: Path, *, batches: int, seed: int = 0, sabotage: str = "") -> Outcome:
    options = ["--seed", str(seed), "--batches", str(batches), "--seconds", "1e9", "--sabotage", sabotage, "--as-found"]
    return watch(fuzz_machine.__file__, [str(folder / "journal"), *options], patience=300)


def test_no_order_of_calls_is_a_failure_and_every_call_is_made(tmp_path: Path) -> None:
    outcome = machine(tmp_path, batches=BATCHES)
    assert outcome.succeeded, outcome.output
    assert f"{BATCHES} batches of {fuzz_machine.EXAMPLES} examples from seed 0" in outcome.output
    assert "\nnever called:\n" in outcome.output
    never = outcome.output.split("never succeeded:")[1].split()
    assert not {"tnn_compute", "tnn_compute_backward", "tnn_train_step"} & set(never)


def test_the_machine_knows_every_call_and_reports_an_argument_that_it_cannot_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = {one.__name__ for one in (getattr(nn, name) for name in nn.__all__) if callable(one)}
    assert set(fuzz_machine.CALLS) == public
    assert {name for name in dir(nn) if name.startswith("tnn_")} <= public

    def tnn_strange(s: Session, colour: complex) -> None: ...

    monkeypatch.setattr(nn, "tnn_strange", tnn_strange, raising=False)
    monkeypatch.setattr(nn, "__all__", [*nn.__all__, "tnn_strange"])
    strange = fuzz_machine.public_calls()["tnn_strange"]
    with (tmp_path / "journal").open("w") as journal:
        played = fuzz_machine.Played(journal, Counter())
        with pytest.raises(NotImplementedError, match="colour: complex"):
            # for 1 of 25 arguments, any object is passed instead of a valid value
            _ = [played.call(strange) for _ in range(100)]
        played.session.close()
        played.other.close()


@pytest.mark.parametrize(
    ("sabotage", "message"),
    [("abort", "ended the process with status -6"), ("raise", "ZeroDivisionError"), ("wrong", "DifferenceError")],
)
def test_a_failure_is_reported_with_its_seed_and_its_calls(tmp_path: Path, sabotage: str, message: str) -> None:
    outcome = machine(tmp_path, batches=20, seed=40, sabotage=sabotage)
    assert outcome.seed is not None
    assert outcome.seed >= 40
    assert message in outcome.output
    calls = (tmp_path / "journal").read_text(encoding="utf-8").splitlines()
    assert sabotage == "wrong" or any(call.startswith("tnn_silu(") for call in calls)
    if sabotage == "abort":
        assert calls[-1].startswith("tnn_silu(")
