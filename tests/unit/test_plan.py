"""Plans: reading amounts, the choice of a model, its limits, and errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toynn
from small_runs import make_data
from toynn.errors import ConfigurationError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError
from toynn.planning.amounts import bytes_of, parameters_of, seconds_of, time_in_words
from toynn.planning.choice import Option, chosen, options_of
from toynn.planning.law import ScalingLaw, Text, effective_bytes
from toynn.planning.recipe import FEWEST_STEPS, PROBE, PROBE_STEPS, SIZES, TOKENS_OF_STEP, Size, settings_of
from toynn.planning.speed import Speed, config_of
from toynn.training import OptimizerArgs, ScheduleArgs, TrainConfig

pytestmark = pytest.mark.quick

LAW = ScalingLaw.load()
CONFIG = TrainConfig()


def options(speed: float = 1e9) -> list[Option]:
    """Return an option for each size, on a machine where `speed` is the product of weights and tokens per second."""
    return [
        Option(
            size,
            CONFIG,
            Speed(size.layer_parameters * TOKENS_OF_STEP / speed, 1, 1),
            size.layer_parameters,
            TOKENS_OF_STEP,
        )
        for size in SIZES
    ]


def text(nbytes: float, probe: float | None = None) -> Text:
    return Text(round(nbytes / 4), nbytes, probe)


def story(nbytes: float, factor: float = 1.0) -> Text:
    """Return a text whose probe has the loss of a probe on stories, multiplied by a factor."""
    # without a probe, the law expects the losses of stories
    usual = LAW.expected(text(nbytes), PROBE.layer_parameters, [PROBE_STEPS * TOKENS_OF_STEP])[0]
    return text(nbytes, factor * math.exp(usual))


# ---- amounts ----


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("90s", 90),
        ("20m", 1200),
        ("1h30m", 5400),
        ("1.5H", 5400),
        ("2d", 172800),
        ("60", 60),
        (7.5, 7.5),
        (np.int64(9), 9),
    ],
)
def test_times_are_read_with_units_and_without(value: object, seconds: float) -> None:
    assert seconds_of("--time", value) == seconds


@pytest.mark.parametrize(
    "value", ["", "h", "1x", "-5m", "1h 30m", "1m1h", ".", "1..5m", "nan", "inf", "4s", "31d", 4, 1e9]
)
def test_wrong_times_are_refused(value: object) -> None:
    with pytest.raises(TinyNNValueError, match="--time must be a time from 5s to 30d"):
        seconds_of("--time", value)


@pytest.mark.parametrize("value", [True, None, [60], b"60"])
def test_times_of_another_type_are_refused(value: object) -> None:
    with pytest.raises(TinyNNTypeError, match="--time must be a number"):
        seconds_of("--time", value)


def test_numbers_of_parameters_and_of_bytes_are_read_with_units_and_without() -> None:
    assert [parameters_of("n", one) for one in ("500k", "1.5M", "2g", "1B", 20000)] == [
        500_000, 1_500_000, 2 * 10**9, 10**9, 20000,
    ]  # fmt: skip
    assert [bytes_of("n", one) for one in ("500MB", "4 GiB", "2g", 3e7)] == [
        500_000_000,
        4 << 30,
        2 * 10**9,
        30_000_000,
    ]


@pytest.mark.parametrize("value", ["", "M", "1 million", "-1M", "9k", "11G", "1e6", 1, 1e12, float("nan")])
def test_wrong_parameters_are_refused(value: object) -> None:
    with pytest.raises(TinyNNValueError, match="n must be a number of parameters from 10k to 10G"):
        parameters_of("n", value)


@pytest.mark.parametrize("value", ["", "GB", "4 gigabytes", "-1GB", "1kB", "2000TB", 10, float("inf")])
def test_wrong_memory_is_refused(value: object) -> None:
    with pytest.raises(TinyNNValueError, match="n must be a memory size from 1MB to 1000TB"):
        bytes_of("n", value)


def test_times_are_shown_in_words() -> None:
    assert [time_in_words(one) for one in (5.25, 59.7, 60, 3599, 3600, 5400, 7199.9)] == [
        "5.2 s", "1 min", "1 min", "59 min 59 s", "1 h", "1 h 30 min", "2 h",
    ]  # fmt: skip


# ---- the choice ----


@pytest.mark.parametrize("megabytes", [0.3, 2, 20, 2000])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_more_time_never_predicts_a_higher_loss(megabytes: float, factor: float) -> None:
    losses = []
    for seconds in np.geomspace(30, 30 * 86400, 80):
        best, _ = chosen(options(), float(seconds), LAW, story(1e6 * megabytes, factor))
        assert best is not None
        assert best.steps * best.option.speed.seconds <= seconds
        losses.append(best.log_loss)
    # The compared numbers of steps form a grid, so that a small increase is possible.
    assert all(b <= a + 0.01 for a, b in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


@settings(max_examples=50, deadline=None)
@given(seconds=st.floats(5, 1e6), speed=st.floats(1e6, 1e12), nbytes=st.floats(5e3, 1e11), probe=st.floats(0.1, 5))
def test_a_choice_fits_the_time_and_has_a_finite_loss(
    seconds: float, speed: float, nbytes: float, probe: float
) -> None:
    of = text(nbytes, probe)
    best, every = chosen(options(speed), seconds, LAW, of)
    if best is None:
        assert seconds < 1.1 * FEWEST_STEPS * options(speed)[0].speed.seconds
        return
    assert best in every
    assert best.steps >= FEWEST_STEPS or not best.is_limited_by_time
    assert best.steps * best.option.speed.seconds <= seconds
    predicted = LAW.predicted(of, best.option.layer_parameters, best.steps * TOKENS_OF_STEP)
    assert math.isfinite(predicted.log_loss)
    assert 0 < predicted.deviation < math.inf


def test_a_longer_time_and_a_larger_text_give_larger_models() -> None:
    def size(seconds: float, nbytes: float) -> int:
        best, _ = chosen(options(), seconds, LAW, story(nbytes))
        assert best is not None
        return best.option.layer_parameters

    assert size(60, 2e9) < size(3600, 2e9) < size(86400, 2e9)
    best, _ = chosen(options(), 86400, LAW, story(2e5))
    assert best is not None
    assert not best.is_limited_by_time  # the small text limits the run, not the time


def test_options_end_where_the_memory_ends_and_keep_the_settings(tmp_path: Path) -> None:
    data = toynn.data.DataFolder.open(make_data(tmp_path / "data"))

    def measure(_: object, config: TrainConfig, n_threads: int | None) -> Speed:
        assert n_threads == 3
        assert config.model is not None
        if config.model.d_model >= 192:
            raise TinyNNMemoryError("too large")
        return Speed(1.0, 1000 * config.model.d_model, 10**6)

    found = list(options_of(data, (), 3, measure=measure, memory=10**9))
    assert [one.size.d_model for one in found] == [32, 64, 96, 128]
    found = list(options_of(data, (), 3, measure=measure, memory=70_000))
    assert [one.size.d_model for one in found] == [32, 64]
    found = list(options_of(data, ("model.d_model=96", "train.batch=8"), 3, measure=measure, memory=10**9))
    assert {one.config.model.d_model for one in found if one.config.model is not None} == {96}
    assert [one.tokens for one in found] == [2048] * len(found)
    assert len({one.config.model for one in found}) == len(found) > 1  # each number of layers occurs once
    with pytest.raises(ConfigurationError, match="n_heads = 7"):
        list(options_of(data, ("model.n_heads=7",), 3, measure=measure, memory=10**9))
    found = list(options_of(data, ("schedule.warmup=300",), 3, measure=measure, memory=10**9))
    assert [one.config.schedule.warmup for one in found] == [300] * 4  # the shortest plan has fewer steps
    with pytest.raises(TinyNNMemoryError, match="too large"):
        list(options_of(data, ("model.d_model=192",), 3, measure=measure, memory=10**9))


@pytest.mark.parametrize("size", SIZES)
def test_each_size_is_a_valid_configuration_close_to_its_definition(size: Size) -> None:
    config = config_of(size, 1000)
    assert config.model is not None
    assert (config.model.d_model, config.model.n_layers) == size
    assert abs(config.model.d_ff / size.d_model - 8 / 3) < 0.35
    assert settings_of(size, 1000)["schedule.decay"] == 200


def test_the_best_number_of_steps_is_smaller_if_more_steps_raise_the_loss() -> None:
    class Memorising(ScalingLaw):
        """A law whose losses rise after 1000 steps."""

        def expected(self, text: Text, layer_parameters: float, tokens: Sequence[int]) -> npt.NDArray[np.float64]:
            return np.abs(np.log(np.array(tokens) / (1000 * TOKENS_OF_STEP)))

    law = Memorising(LAW.log_constants, LAW.covariance, LAW.scales, LAW.runs, LAW.vocabulary)
    found = [law.best_steps(story(1e6), 1e5, TOKENS_OF_STEP, fitting) for fitting in (1, 500, 999, 1100, 9000)]
    assert found[:3] == [1, 500, 999]
    assert [one == pytest.approx(1000, rel=0.05) for one in found[3:]] == [True, True]
    option = options()[1]
    seconds = 9000 * 1.03 * option.speed.seconds
    best, _ = chosen([option], seconds, law, story(1e9))
    assert best is not None
    assert (best.steps, best.is_limited_by_time) == (found[-1], False)


@pytest.mark.parametrize(("size", "lr"), [(SIZES[0], 0.0133), (SIZES[3], 0.01), (SIZES[-1], 1.28 / 768)])
def test_models_of_a_plan_have_the_settings_of_the_runs_of_the_scaling_law(size: Size, lr: float) -> None:
    """If a default changes, the scaling law must be fitted to new runs."""
    config = config_of(size, 1000)
    assert config.optimizer == OptimizerArgs(
        lr=lr, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0, kind="muon", muon_lr=0.02,
        muon_momentum=0.95, muon_weight_decay=0.01, moments="f32", ema=0.0,
    )  # fmt: skip
    assert config.schedule == ScheduleArgs("wsd", warmup=20, decay=200, min_ratio=0.0)
    assert config.model is not None
    assert (config.model.init_scale, config.model.ctx, config.train.batch) == (0.12, 256, 4)
    with_adamw = config_of(size, 1000, ("optimizer.kind=adamw",))
    assert with_adamw.optimizer.lr == pytest.approx(min(0.4 / size.d_model, 0.01))


def test_effective_bytes_grow_more_slowly_with_each_pass() -> None:
    values = [effective_bytes(1000.0 * passes, 1000.0, 8.0) for passes in (0.5, 1, 2, 4, 16, 64, 1000)]
    assert values[:2] == [500, 1000]
    assert all(a < b for a, b in itertools.pairwise(values[:6]))
    assert values[2] == pytest.approx(1000 * (1 + 8 * (1 - math.exp(-1 / 8))))
    assert values[-1] == pytest.approx(9000)


def test_a_text_whose_kind_is_uncertain_has_a_larger_deviation() -> None:
    of_probes = {  # the probe of the largest text of each kind
        run.kind: run.log_loss
        for run in sorted(LAW.runs, key=lambda run: (run.place.size, -run.place.read))
        if run.place.layer_parameters == PROBE.layer_parameters
    }
    low, high = sorted(of_probes.values())
    n, tokens = SIZES[3].layer_parameters, 5_000_000
    deviations = [LAW.predicted(text(1e8, math.exp(at)), n, tokens).deviation for at in (low, (low + high) / 2, high)]
    assert deviations[1] > max(deviations[0], deviations[2])


def test_a_width_of_the_user_needs_no_other_key() -> None:
    for width in (32, 48, 64, 96, 100, 320):
        model = config_of(SIZES[4], 1000, (f"model.d_model={width}", "model.n_layers=1")).model
        assert model is not None
        assert (model.d_model, model.n_layers, model.d_model % model.n_heads) == (width, 1, 0)
    with pytest.raises(ConfigurationError, match=r"model\.d_model"):
        config_of(SIZES[4], 1000, ("model.d_model=" + 5000 * "9",))
