"""The benchmark of the time to a loss: which run counts, its table, and nanoGPT's recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import time_to_loss
from benchmarks.time_to_loss import STEPS, Reached, TorchRuns, markdown, shortest, with_toynn
from benchmarks.torch_gpt import GPT, learning_rate, optimizer_of


def test_the_shortest_run_that_reaches_the_loss_counts() -> None:
    asked: list[int] = []

    def loss_of(steps: int) -> tuple[float, list[float]]:
        asked.append(steps)
        return 1000 / steps, [0.1] * (steps - 1) + [9.0]  # one step is slow, as in a pause of the machine

    reached = shortest(loss_of, 4.0, "a program", "a mode")
    assert asked == list(STEPS[: len(asked)])
    assert reached.steps == asked[-1] == min(n for n in STEPS if n >= 250)
    assert reached.tried == {n: 1000 / n for n in asked}
    assert reached.seconds == pytest.approx(0.1 * reached.steps)
    with pytest.raises(RuntimeError, match=r"a program does not reach a loss of 0\.1 in 3200 steps"):
        shortest(loss_of, 0.1, "a program", "a mode")


def test_the_table_compares_with_the_fastest_program() -> None:
    rows = [Reached("toynn", "f32", 100, 2.4, 0.05, {}), Reached("other", "eager, f32", 300, 2.5, 0.1, {})]
    lines = markdown(rows, 2.5, 2, "PyTorch 1", 0.25).splitlines()
    assert "Validation loss to reach: 2.5 nats per token." in lines[0]
    assert lines[-2:] == [
        "| toynn | f32 | 100 | 50.0 | 5.0 | 1.00 |",
        "| other | eager, f32 | 300 | 100.0 | 30.0 | 6.00 |",
    ]


def test_the_rate_of_nanogpt_rises_and_falls_to_a_tenth() -> None:
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert max(rates) == rates[100] == 1e-3
    assert rates[0] == pytest.approx(1e-3 / 101)
    assert rates[-1] == pytest.approx(1e-4, rel=1e-3)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert learning_rate(5, 20) < 1e-3 == learning_rate(2, 20)


def test_the_model_of_nanogpt_has_its_shape_and_decays_only_matrices() -> None:
    torch.manual_seed(0)
    model = GPT(vocab=50, width=16, heads=2, layers=2, context=8)
    assert sum(one.numel() for one in model.parameters()) == 16 * (50 + 8) + 2 * (12 * 16 * 16 + 2 * 16) + 16
    ids = torch.randint(50, (3, 8))
    with torch.no_grad():
        assert float(model(ids, ids.roll(-1, 1))) == pytest.approx(math.log(50), abs=0.05)
        changed = ids.clone()
        changed[:, -1] = (ids[:, -1] + 1) % 50
        targets = torch.full_like(ids, -100)
        targets[:, :-1] = ids[:, 1:]
        assert float(model(ids, targets)) == float(model(changed, targets))  # no position sees a later position
    decayed, plain = optimizer_of(model).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert {one.ndim for one in decayed["params"]} == {2}
    assert {one.ndim for one in plain["params"]} == {1}


def test_both_programs_train_on_a_data_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, Any] = {"WIDTH": 16, "HEADS": 2, "LAYERS": 1, "CONTEXT": 16, "BATCH": 4, "VOCABULARY": 280}
    for name, value in sizes.items():
        monkeypatch.setattr(time_to_loss, name, value)
    uniform = math.log(280)
    loss, seconds = with_toynn(data, tmp_path, 1, {"model.d_ff": 24})(60)
    assert loss < uniform - 1
    assert len(seconds) == 59
    runs = TorchRuns(data, 1)
    loss, seconds = runs.loss_of(60)
    assert 0 < loss < uniform - 0.2
    assert len(seconds) == 58
