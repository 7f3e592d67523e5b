"""ToyLR: the learning rates of the Ruby project toy, compared with their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toynn import ToyLR


def test_cosine_has_the_learning_rates_of_the_warm_start_runner() -> None:
    rates = [ToyLR.cosine(i, 10, 0.001, 1e-5, 5) for i in range(12)]
    assert rates[:5] == [0.001 * i / 5 for i in range(1, 6)]
    assert rates[5] == 0.001
    assert rates[10] == rates[11] == 1e-5
    for i in range(5, 10):
        assert rates[i] == 1e-5 + 0.5 * (0.001 - 1e-5) * (1.0 + math.cos(math.pi * ((i - 5) / 5)))


def test_a_run_no_longer_than_its_warmup_ends_at_lr_min() -> None:
    assert ToyLR.cosine(5, 5, 0.5, 0.25, 5) == 0.25
    assert ToyLR.cosine(4, 5, 0.5, 0.25, 5) == 0.5


def test_constant_ignores_the_step() -> None:
    assert ToyLR.constant(7, 0.5) == 0.5


@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 12), beta2=st.sampled_from([0.9, 0.95, 0.99, 0.999, 0.9999]))
def test_radam_rect_is_the_factor_between_the_steps_of_pytorchs_radam_and_adam(steps: int, beta2: float) -> None:
    def last_change(kind: type[torch.optim.Optimizer]) -> float:
        w = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = kind([w], lr=1.0, betas=(0.9, beta2), eps=0.0)  # type: ignore[call-arg]
        before = 0.0
        for i in range(steps):
            before = float(w.detach())
            w.grad = torch.tensor([1.0 + 0.1 * i], dtype=torch.float64)
            optimizer.step()
        return float(w.detach()) - before

    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * steps * beta2**steps / (1 - beta2**steps)
    found = ToyLR.radam_rect(steps, beta2)
    if rho <= 4:
        assert found == 0.0
    elif rho > 5:  # PyTorch uses the rectification only from this step on
        assert found == pytest.approx(last_change(torch.optim.RAdam) / last_change(torch.optim.Adam), rel=1e-9)
    else:
        assert 0.0 < found < 1.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ToyLR.cosine(-1, 10, 0.1, 0.0, 0), "step must be an integer from 0"),
        (lambda: ToyLR.cosine(0, -1, 0.1, 0.0, 0), "n_steps must be an integer from 0"),
        (lambda: ToyLR.cosine(0, 10, -0.1, 0.0, 0), "lr_max must be a finite number"),
        (lambda: ToyLR.cosine(0, 10, 0.1, math.nan, 0), "lr_min must be a finite number"),
        (lambda: ToyLR.cosine(0, 10, 0.1, 0.0, -1), "warmup_steps must be an integer from 0"),
        (lambda: ToyLR.constant(0, -1.0), "lr must be a finite number"),
        (lambda: ToyLR.radam_rect(0, 0.9), "step must be an integer from 1"),
        (lambda: ToyLR.radam_rect(1, 1.0), "beta2 must be at least 0 and below 1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
