"""Runs with schedule.double_batch: their windows, losses and weights, resumed runs, and refused settings."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import toynn
from engines import realized
from small_runs import MODEL, config, final_bytes, losses
from toynn import AdamW, TrainArgs, train
from toynn.arguments import FloatArray
from toynn.data import PackedTokens, WindowBatcher
from toynn.errors import ConfigurationError, ConfigurationTypeError, FileFormatError, TinyNNTypeError
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import Event, OptimizerArgs, ScheduleArgs, StepArgs, Stepped, StopTraining
from toynn.training.run_log import read_log
from toynn.training.schedule import learning_rate

SCHEDULE = ScheduleArgs(warmup=2, double_batch=(2, 5))
STEPS = 8
WINDOWS = (2, 2, 4, 4, 4, 8, 8, 8)  # number of windows of each step


def growing(accumulate: int = 1, **sections: Any) -> toynn.TrainConfig:
    train = StepArgs(steps=STEPS, batch=2 // accumulate, accumulate=accumulate)
    return config(STEPS, **{"schedule": SCHEDULE, "train": train, **sections})


def stop_after(step: int) -> Any:
    def callback(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise StopTraining

    return callback


def test_training_equals_engine_steps_on_one_batch_of_all_windows(data: Path, tmp_path: Path) -> None:
    """The test computes the expected losses: each step has one batch with all its windows, in a new engine."""
    train(TrainArgs(data, tmp_path / "run", growing()))
    split = PackedTokens.open(data, "train")
    windows = WindowBatcher(split.tokens, 16, 0)
    by_hand, read = [], 0
    state: dict[str, FloatArray] = {}
    for step, n in enumerate(WINDOWS, 1):
        with realized(MODEL.shape(split.meta.vocab_size), t_seq=16, t_batch=n) as engine:
            for name, values in state.items():
                engine.upload_weight(name, values)
            engine.build_training_step(clip=True, decay_vectors=False)
            rate = learning_rate(SCHEDULE, 1e-2, step, STEPS)
            hp = AdamW(rate, beta2=0.95, weight_decay=0.1, bias_correct=True).hp(step)
            by_hand.append(engine.train_step(*windows.batch(read, n), hp, max_norm=1.0)[0].hex())
            state = {name: engine.download_weight(name) for name in (*engine.weights, *engine.moment_names())}
            read += n
    assert losses(tmp_path / "run") == by_hand
    assert final_bytes(tmp_path / "run") == {name: values.tobytes() for name, values in state.items()}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize(("accumulate", "stop"), [(1, 2), (2, 4)])
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_run(
    data: Path, tmp_path: Path, kind: str, accumulate: int, stop: int
) -> None:
    chosen = growing(accumulate, optimizer=OptimizerArgs(lr=1e-2, kind=kind))
    train(TrainArgs(data, tmp_path / "whole", growing(optimizer=chosen.optimizer), n_threads=1))
    train(TrainArgs(data, tmp_path / "parts", chosen), [stop_after(stop)])
    train(TrainArgs(data, tmp_path / "parts", resume=True))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert final_bytes(tmp_path / "parts") == final_bytes(tmp_path / "whole")


def test_the_log_and_the_checkpoint_count_the_windows_that_were_read(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", growing()))
    started, *events = read_log(tmp_path / "run")
    steps = [one for one in events if one["event"] == "stepped"]
    total = [sum(WINDOWS[:n]) for n in range(1, STEPS + 1)]
    assert [one["tokens"] for one in steps] == [16 * n for n in total]
    assert [one["epoch"] for one in steps] == pytest.approx([n / started["windows_per_epoch"] for n in total])
    assert started["epochs"] == steps[-1]["epoch"]
    assert started["batch_tokens"] == 32
    training = load_checkpoint(tmp_path / "run").training
    assert training is not None
    assert training.progress.windows == sum(WINDOWS)


@pytest.mark.parametrize("doublings", [(), (1,), (3,), (1, 2, 3), (2, 7, 9)])
def test_the_windows_before_a_step_are_those_of_the_earlier_steps(doublings: tuple[int, ...]) -> None:
    chosen = config(20, train=StepArgs(steps=20, batch=3), schedule=ScheduleArgs(warmup=2, double_batch=doublings))
    for n in range(20):
        assert chosen.windows_before(n) == sum(3 * chosen.batches_of(step) for step in range(1, n + 1))
        assert chosen.batches_of(n + 1) == 2 ** len([one for one in doublings if one <= n])


def test_python_takes_the_steps_as_a_list(data: Path, tmp_path: Path) -> None:
    toynn.train(
        data, tmp_path / "run", config=growing(schedule=ScheduleArgs(warmup=2)), double_batch=[2, 5], progress=False
    )
    assert "double_batch = [\n    2,\n    5,\n]" in (tmp_path / "run" / "run.toml").read_text(encoding="utf-8")


# ---- refused ----


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ((3, 3), ConfigurationError, "schedule.double_batch must be a list of steps in rising order, got [3, 3]"),
        ((0,), ValueError, "schedule.double_batch[0] must be an integer from 1"),
        ((1.5,), TinyNNTypeError, "schedule.double_batch[0] must be an integer, got 1.5"),
        (3, ConfigurationTypeError, "schedule.double_batch must be a list of steps, got 3"),
        (tuple(range(1, 18)), ConfigurationError, "schedule.double_batch must have at most 16 steps, got 17"),
    ],
)
def test_wrong_steps_are_refused(value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        ScheduleArgs(double_batch=value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 2}, "schedule.double_batch = [2] cannot be used with train.epochs = 2.0"),
        ({"objective": "dpo"}, "schedule.double_batch = [2] cannot be used with train.objective = 'dpo'"),
        ({"batching": "grouped"}, "schedule.double_batch = [2] cannot be used with data.batching = 'grouped'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(data: Path, tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        toynn.train(data, tmp_path / "run", double_batch=[2], progress=False, **settings)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_doublings_and_a_wrong_count_is_damage(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", growing()), [stop_after(4)])
    with pytest.raises(ConfigurationError, match=r"schedule\.double_batch is \[3\], but the run has \[2, 5\]"):
        toynn.train(data, tmp_path / "run", resume=True, double_batch=[3], progress=False)
    meta = tmp_path / "run" / "checkpoints" / "step-00000004" / "meta.json"
    text = meta.read_text(encoding="utf-8")
    assert '"windows": 12' in text
    meta.write_text(text.replace('"windows": 12', '"windows": 8'), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"training\.windows must be 12 after 4 steps, got 8"):
        train(TrainArgs(data, tmp_path / "run", resume=True))


def test_a_step_that_does_not_fit_into_memory_is_refused_before_the_first_one(data: Path, tmp_path: Path) -> None:
    """The run builds the largest graph first. Unlike the graphs of the first steps, this graph keeps gradients."""
    seen: list[int] = []
    sizes: list[int] = []
    from toynn.training import step as module

    original = module.build_graph  # type: ignore[attr-defined]

    def recording(*arguments: Any) -> None:
        original(*arguments)
        sizes.append(toynn.tinynn.tnn_session_compute_nbytes(arguments[0].sess))
        seen.append(arguments[3])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "build_graph", recording)
        train(TrainArgs(data, tmp_path / "run", growing(evaluation=dataclasses.replace(config().evaluation, every=0))))
    assert seen[:4] == [4, 1, 2, 4]
    assert max(sizes) == sizes[0]
