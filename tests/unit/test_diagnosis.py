"""The diagnosis of a run: each sign is found in curves that show it, and in no healthy curve."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paths import ROOT
from toynn.training.diagnosis import (
    MEMORISING,
    PAGE,
    SATURATED,
    SIGNS,
    SPIKE,
    TOO_HIGH,
    TOO_LOW,
    Diagnosis,
    advice_in_log,
)
from toynn.training.events import Ended, Evaluated, Event, Saved, Started, Stepped
from toynn.training.run_log import as_json, read_log

pytestmark = pytest.mark.quick

Curve = Callable[[int], float]


def started(step: int = 0, *, inits: str | None = None) -> dict[str, Any]:
    return {"event": "started", "step": step, "inits": inits}


def healthy(step: int) -> float:
    return 1.5 + 6 * math.exp(-step / 150)


def warmed_up(step: int) -> float:
    return 3e-3 * min(step / 30, 1.0)


def run(
    n: int,
    loss: Curve = healthy,
    *,
    norm: Curve = lambda _: 0.8,
    rate: Curve = warmed_up,
    epoch: Curve = lambda step: step / 1000,
    validation: dict[int, float] | None = None,
    inits: str | None = None,
) -> list[dict[str, Any]]:
    """Return the events of a run of n steps. validation: the loss of each evaluation, by its step."""
    events = [started(inits=inits)]
    for step in range(1, n + 1):
        events.append(
            {
                "event": "stepped",
                "step": step,
                "loss": loss(step),
                "learning_rate": rate(step),
                "gradient_norm": norm(step),
                "epoch": epoch(step),
            }
        )
        if step in (validation or {}):
            events.append({"event": "evaluated", "step": step, "loss": (validation or {})[step]})
    return events


def signs(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(one.step, one.sign) for one in advice_in_log(events)]


# ---- each sign ----


def test_a_validation_loss_far_above_the_training_loss_is_memorising() -> None:
    falling = {500: healthy(500) + 0.02, 1500: 1.6, 2000: 1.87, 2500: 1.9, 3000: 2.2}
    (advice,) = advice_in_log(run(3000, validation=falling))
    assert (advice.step, advice.sign) == (2500, MEMORISING)  # not at step 2000: 1.87 is less than a quarter above 1.5
    assert "the training loss is 1.5, but the validation loss is 1.9 after 2.5 epochs" in advice.text


def test_a_distance_that_the_first_epoch_has_too_is_not_memorising() -> None:
    assert signs(run(3000, validation={900: healthy(900) + 0.8, 1500: 2.3, 3000: 2.3})) == []
    assert signs(run(3000, validation={900: healthy(900) + 0.8, 1500: 2.3, 3000: 3.1})) == [(3000, MEMORISING)]


def test_in_the_first_epoch_nothing_is_memorised() -> None:
    assert signs(run(1000, validation={500: 4.0, 1000: 4.0})) == []


def test_small_losses_differ_without_memorising() -> None:
    """A model that has learned a list of facts has losses near 0, whose ratio means nothing."""
    assert signs(run(3000, lambda step: 7 * math.exp(-step / 100) + 0.01, validation={2500: 0.1})) == []


def test_a_gradient_norm_of_many_times_the_usual_one_is_a_spike() -> None:
    (advice,) = advice_in_log(run(400, norm=lambda step: {250: 7.9, 300: 90.0}.get(step, 0.8)))
    assert (advice.step, advice.sign) == (300, SPIKE)
    assert "jumped to 90 in step 300, from about 0.8" in advice.text


def test_norms_below_1_and_norms_in_the_warm_up_are_no_spikes() -> None:
    assert signs(run(400, norm=lambda step: 0.9 if step == 300 else 0.01)) == []
    assert signs(run(400, norm=lambda step: 90 if step == 70 else 0.8, rate=lambda step: step * 1e-5)) == []
    assert signs(run(400, norm=lambda step: 90 if step == 70 else 0.8)) == [(70, SPIKE)]


def test_an_unknown_sample_of_a_model_that_has_learned_its_text_is_no_spike() -> None:
    assert signs(run(400, lambda _: 0.1, norm=lambda step: 3 if step == 300 else 0.02, inits="other")) == []


def test_a_rising_loss_shows_a_learning_rate_that_is_too_high() -> None:
    (advice,) = advice_in_log(run(600, lambda step: healthy(step) + max(step - 400, 0) * 0.02))
    assert advice.sign == TOO_HIGH
    assert 400 < advice.step <= 450
    assert "the learning rate of this step is 0.003" in advice.text


def test_a_loss_above_that_of_random_weights_shows_a_learning_rate_that_is_too_high() -> None:
    (advice,) = advice_in_log(run(60, lambda step: 7.5 if step == 1 else 12.0 - 0.1 * step, inits=None))
    assert (advice.step, advice.sign) == (20, TOO_HIGH)
    assert "above the first loss of 7.5" in advice.text
    assert signs(run(60, lambda step: 7.5 if step == 1 else 12.0 - 0.1 * step, inits="other")) == []


def test_a_loss_that_stops_near_its_start_shows_a_learning_rate_that_is_too_high() -> None:
    rng = np.random.default_rng(0)
    assert signs(run(400, lambda step: (7.5 if step == 1 else 6.9) + float(rng.normal(0, 0.05)))) == [(130, TOO_HIGH)]


@pytest.mark.parametrize("loss", [lambda step: 7.5 - 0.003 * step, lambda _: 7.5])
def test_a_loss_that_hardly_falls_shows_a_learning_rate_that_is_too_low(loss: Curve) -> None:
    (advice,) = advice_in_log(run(400, loss))
    assert (advice.step, advice.sign) == (130, TOO_LOW)
    assert "`toynn lr-find` suggests a higher value" in advice.text


def test_a_low_loss_of_an_existing_model_need_not_fall() -> None:
    assert signs(run(400, lambda _: 2.5, inits="other/latest")) == []


def test_a_long_warm_up_is_not_a_learning_rate_that_is_too_low() -> None:
    slow = run(900, lambda step: 7.5 if step < 500 else 3.0, rate=lambda step: min(step / 500, 1) * 3e-3)
    assert signs(slow) == []


def test_vanished_gradients_at_a_high_loss_show_saturated_activations() -> None:
    (advice,) = advice_in_log(
        run(400, lambda step: max(7.5 - 0.03 * step, 5), norm=lambda step: 2 if step < 150 else 0.01)
    )
    assert advice.sign == SATURATED
    assert "fell from 2 to 0.01" in advice.text


def test_vanished_gradients_of_a_model_that_has_learned_its_text_are_healthy() -> None:
    assert signs(run(900, lambda step: 7 * math.exp(-step / 100), norm=lambda step: 2 * math.exp(-step / 100))) == []


# ---- healthy runs ----


@pytest.mark.parametrize("seed", range(3))
def test_a_long_noisy_curve_gets_no_advice(seed: int) -> None:
    """The lowest of many noisy means is far below the later means. This must not be reported as a rising loss."""
    rng = np.random.default_rng(seed)
    noisy = run(
        20_000,
        lambda step: max(healthy(step) + float(rng.normal(0, 0.7)), 0.0),
        norm=lambda _: float(rng.lognormal(0, 0.4)),
        epoch=lambda step: step / 5000,
        validation={step: healthy(step) + 0.1 for step in range(1000, 20_001, 1000)},
    )
    assert signs(noisy) == []


@pytest.mark.parametrize("log", sorted((ROOT / "tests" / "fixtures" / "runs").rglob("log.jsonl")), ids=str)
def test_recorded_runs_get_no_advice(log: Path) -> None:
    assert advice_in_log(read_log(log)) == []


# ---- events ----


def test_each_sign_is_reported_once_and_a_resumed_run_starts_a_new_diagnosis() -> None:
    events = run(900, norm=lambda step: 50 if step % 100 == 0 else 0.8)
    assert signs(events) == [(100, SPIKE)]
    assert signs([started(500), *events[501:]]) == [(600, SPIKE)]


def test_events_and_their_lines_in_the_log_give_the_same_advice() -> None:
    events: list[Event] = [
        Started(Path("r"), Path("d"), 0, 400, 1, 1, 1, 1, None, None, ""),
        *(Stepped(i, 7.5, 1e-5, 1.0 if i != 80 else 99.0, i, 0.1, 10.0, i / 100) for i in range(1, 301)),
        Evaluated(300, 9.9, 1.0, 1.0, 1, 0.1, True),
        Saved(300, Path("c"), 1, 0.1),
        Ended(300, "done", Path("c"), 7.5, 9.9, 300, 1.0),
    ]
    diagnosis = Diagnosis()
    found = [one for event in events for one in diagnosis.read(event)]
    assert {one.sign for one in found} == {SPIKE, TOO_LOW, MEMORISING}
    assert found == advice_in_log([as_json(event) for event in events])


def test_steps_on_preference_pairs_get_no_advice() -> None:
    events = run(400, lambda step: 0.7 if step < 300 else 5.0, validation={350: 9.0}, inits="base")
    assert {sign for _, sign in signs(events)} == {TOO_HIGH}
    assert signs([{**one, "reward_margin": 0.1} for one in events]) == []


# ---- the documentation ----


@pytest.mark.parametrize("sign", SIGNS)
def test_each_sign_has_a_section_in_the_documentation(sign: str) -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert sign in {heading.lower().replace(" ", "-") for heading in headings}
    assert f"](#{sign})" in (ROOT / PAGE).read_text(encoding="utf-8")


def test_advice_is_one_sentence_that_names_its_section() -> None:
    (advice,) = advice_in_log(run(400, norm=lambda step: 90 if step == 300 else 0.8))
    assert str(advice).endswith(f" (see docs/diagnosis.md#{SPIKE})")
    assert ". " not in advice.text
