"""The messages of a run about its progress: epochs, notes, changed settings, advice, progress lines."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

import toynn
from commands import SMALL, assert_refused, output_of
from commands import toynn as run_toynn
from small_models import random_model
from small_runs import MODEL, config, final_bytes, losses
from toynn import ConfigurationError, TinyNNMemoryError, TinyNNValueError, TrainArgs
from toynn.api.plain_progress import PlainProgress
from toynn.data import PackedTokens
from toynn.llm.engine import LlamaSeqEngine
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.storage.checkpoint.meta import META
from toynn.training import CheckpointArgs, Event, OptimizerArgs, ScheduleArgs, Started, StepArgs, Stepped, train
from toynn.training.divergence import DivergedError
from toynn.training.report import _Curve, _smooth
from toynn.training.run_log import read_log
from toynn.training.toml_config import from_toml, read_config, to_plain


def started(run: Path) -> dict[str, Any]:
    return [event for event in read_log(run) if event["event"] == "started"][-1]


# ---- epochs ----


def test_epochs_decide_the_steps_and_are_in_the_log(data: Path, tmp_path: Path) -> None:
    windows = (len(PackedTokens.open(data, "train")) - 1) // MODEL.ctx
    steps = math.ceil(0.25 * windows / 4)
    sections: dict[str, Any] = {"train": StepArgs(batch=2, accumulate=2, epochs=0.25), "schedule": ScheduleArgs()}
    result = toynn.train(TrainArgs(data, tmp_path / "run", config(**sections)))
    assert result.step == steps
    assert read_config(tmp_path / "run" / "run.toml").train == StepArgs(steps=steps, batch=2, accumulate=2)
    assert started(tmp_path / "run")["epochs"] == pytest.approx(steps * 4 / windows)
    epochs = [event["epoch"] for event in read_log(tmp_path / "run") if event["event"] == "stepped"]
    assert epochs == pytest.approx([step * 4 / windows for step in range(1, steps + 1)])
    sections["train"] = StepArgs(steps=steps, batch=2, accumulate=2)
    toynn.train(TrainArgs(data, tmp_path / "by steps", config(**sections)))
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "by steps")
    assert toynn.train(data, tmp_path / "run", resume=True, epochs=0.5, progress=False).step == math.ceil(windows / 8)


# ---- resuming with other settings ----


def test_a_resumed_run_takes_an_explicit_learning_rate_and_says_so(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(4)))
    seen: list[Event] = []
    toynn.train(data, run, resume=True, steps=6, lr=1e-3, clip=0.5, progress=False, callbacks=[seen.append])
    stepped = [event for event in seen if isinstance(event, Stepped)]
    assert stepped[-1].learning_rate == pytest.approx(1e-4)
    notes = next(event.notes for event in seen if isinstance(event, Started))
    assert started(run)["notes"] == list(notes)
    assert notes[0] == "optimizer.lr changes from 0.01 to 0.001 after step 4"
    assert notes[1].startswith(
        "optimizer.clip changes from 1.0 to 0.5 after step 4, so the result will differ from the result of"
    )
    assert notes[2].startswith("with 6 steps instead of 4, the learning rate is 0.001 in step 4 and 0.00")
    assert read_config(run / "run.toml").optimizer == OptimizerArgs(lr=1e-3, kind="adamw", clip=0.5)
    toynn.train(data, run, resume=True, steps=8, progress=False)
    assert read_config(run / "run.toml").optimizer.lr == 1e-3, "the change must stay"


def test_a_different_configuration_is_still_refused_without_explicit_changes(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(4)))
    other = config(4, optimizer=OptimizerArgs(lr=0.5, beta1=0.8))
    with pytest.raises(
        ConfigurationError, match=r"optimizer\.lr is 0\.5, .* on purpose, use train\(\.\.\., lr=0\.5\) or"
    ):
        train(TrainArgs(data, run, other, resume=True))
    with pytest.raises(ConfigurationError, match=r"optimizer\.beta1 is 0\.8"):
        train(TrainArgs(data, run, other, resume=True, changes=("optimizer.lr",)))
    train(TrainArgs(data, run, other, resume=True, changes=("optimizer.lr", "optimizer.beta1")))
    for wrong, says in [(("train.batch",), "one of"), ("optimizer.lr", "a tuple of keys")]:
        with pytest.raises(toynn.TinyNNError, match=rf"changes.* must be {says}"):
            TrainArgs(data, run, other, resume=True, changes=wrong)  # type: ignore[arg-type]
    with pytest.raises(TinyNNValueError, match="needs resume=True"):
        TrainArgs(data, run, other, changes=("optimizer.lr",))


def test_a_longer_run_notes_the_jump_of_its_learning_rate(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(10)))
    assert started(run)["notes"] == []
    train(TrainArgs(data, run, config(20), resume=True))
    first, second = (
        event["learning_rate"] for event in read_log(run) if event.get("step") in (10, 11) and "epoch" in event
    )
    note = f"with 20 steps instead of 10, the learning rate is {first:.3g} in step 10 and {second:.3g} in step 11"
    assert started(run)["notes"] == [note]
    assert second > 2 * first
    train(TrainArgs(data, run, resume=True))
    assert started(run)["notes"] == []


def test_resuming_with_a_constant_rate_and_more_steps_has_no_note(data: Path, tmp_path: Path) -> None:
    constant = ScheduleArgs("constant", warmup=1)
    train(TrainArgs(data, tmp_path / "run", config(4, schedule=constant)))
    train(TrainArgs(data, tmp_path / "run", config(6, schedule=constant), resume=True))
    assert started(tmp_path / "run")["notes"] == []


def test_a_run_that_has_taken_no_step_is_resumed(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", config(4)))
    train(TrainArgs(data, tmp_path / "run", resume=True))
    train(TrainArgs(data, tmp_path / "other", config(4, checkpoint=CheckpointArgs(every=0, keep_last=9))))
    train(TrainArgs(data, tmp_path / "other", resume=True, resume_from="step-00000000"))
    assert started(tmp_path / "other")["notes"] == []
    assert final_bytes(tmp_path / "other") == final_bytes(tmp_path / "run")


# ---- advice ----


def test_the_advice_for_a_divergence_fits_the_settings(data: Path, tmp_path: Path) -> None:
    for clip, says in [(0.0, r"clipping \(optimizer\.clip = 1\.0; now it is off, 0\)"), (2.0, r"clip \(now 2\)")]:
        chosen = config(9, optimizer=OptimizerArgs(lr=1e8, kind="adamw", clip=clip), schedule=ScheduleArgs(warmup=0))
        with pytest.raises(DivergedError, match=rf"optimizer\.lr \(now 1e\+08\), .*warmup \(now 0\) or .*{says}"):
            train(TrainArgs(data, tmp_path / f"run{clip}", chosen))


def test_the_advice_for_a_divergence_with_muon_names_both_learning_rates() -> None:
    says = str(DivergedError(3, "loss is nan", "the weight x", config(9, optimizer=OptimizerArgs(lr=0.5))))
    assert "a lower optimizer.lr (now 0.5), a lower optimizer.muon_lr (now 0.02), " in says


@pytest.mark.parametrize(("batch", "recompute"), [(10**7, False), (10**9, True)])
def test_a_batch_beyond_a_limit_is_named_with_the_memory_it_needs(
    batch: int, recompute: bool, data: Path, tmp_path: Path
) -> None:
    chosen = config(3, train=StepArgs(3, batch=batch, recompute=recompute))
    with pytest.raises(ConfigurationError) as caught:
        train(TrainArgs(data, tmp_path / "run", chosen))
    says = str(caught.value)
    assert says.startswith(f"train.batch = {batch} is too large: a step with {batch} windows of 16 tokens would need ")
    need, available = (float(part.split()[0]) for part in (says.split("need ")[1], says.split("GB, but ")[1]))
    assert need > available > 0
    assert ("train.recompute = true needs less memory" in says) != recompute
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("largest", "says"), [(2, r"train\.batch = 4 is too large"), (0, "no memory")])
def test_a_step_that_does_not_fit_into_memory_leaves_no_files(
    largest: int, says: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = LlamaSeqEngine.build_training_step

    def refusing(engine: LlamaSeqEngine, **options: Any) -> Any:
        if engine.seq_b > largest:
            raise TinyNNMemoryError("no memory")
        return build(engine, **options)

    monkeypatch.setattr(LlamaSeqEngine, "build_training_step", refusing)
    with pytest.raises(TinyNNMemoryError, match=says):
        train(TrainArgs(data, tmp_path / "run", config(3, train=StepArgs(3, batch=4))))
    assert not (tmp_path / "run").exists()


def test_the_window_of_a_model_with_a_long_context_is_chosen_and_noted(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "first", config(1, schedule=ScheduleArgs(warmup=0))))
    model = load_checkpoint(tmp_path / "first").model
    for ctx in (1024, 131_072):
        shape = dataclasses.replace(model.shape, ctx=ctx)
        write_checkpoint(tmp_path / f"long{ctx}", dataclasses.replace(model, shape=shape))
        settings: dict[str, Any] = {"steps": 1, "batch": 1, "warmup": 0, "progress": False}
        toynn.train(data, tmp_path / f"on{ctx}", init=tmp_path / f"long{ctx}", **settings)
    assert started(tmp_path / "on1024")["notes"] == []
    assert read_config(tmp_path / "on1024" / "run.toml").train.t_seq == 0
    (note,) = started(tmp_path / "on131072")["notes"]
    assert note.startswith(
        "windows have 1024 tokens, although the context length of the model is 131072; set train.t_seq"
    )
    assert read_config(tmp_path / "on131072" / "run.toml").train.t_seq == 1024
    assert losses(tmp_path / "on1024") == losses(tmp_path / "on131072")
    shown = output_of("train", "--show-config", "--json", "--init", tmp_path / "long131072")
    assert json.loads(shown)["train"]["t_seq"] == 1024
    tokens = len(PackedTokens.open(data, "train"))
    with pytest.raises(
        ConfigurationError, match=rf"train\.t_seq = 131072 .* set train\.t_seq to at most {tokens - 1}, or"
    ):
        toynn.train(data, tmp_path / "no", init=tmp_path / "long131072", t_seq=131072, progress=False)


def test_data_with_more_tokens_than_the_model_names_a_remedy(data: Path, tmp_path: Path) -> None:
    write_checkpoint(
        tmp_path / "small", dataclasses.replace(random_model(), tokenizer=(data / "tokenizer.json").read_bytes())
    )
    vocab = json.loads((data / "meta.json").read_text())["vocab_size"]
    with pytest.raises(TinyNNValueError) as caught:
        toynn.train(data, tmp_path / "run", init=tmp_path / "small", progress=False)
    if vocab > random_model().shape.vocab:
        assert f"has a vocabulary of {vocab} tokens" in str(caught.value)
    assert "prepare the texts with the model's tokenizer: toynn.prepare(" in str(caught.value)
    done = run_toynn("train", data, "--out", tmp_path / "run", "--init", tmp_path / "small")
    assert_refused(done, "with the model's tokenizer: toynn prepare TEXT --tokenizer ")


def test_messages_name_python_arguments_in_python_and_options_in_the_command(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    output_of("train", data, "--out", run, *SMALL, "--set", "train.steps=3", "--quiet")
    with pytest.raises(TinyNNValueError, match=r"resume the run \(resume=True\), or use another folder"):
        toynn.train(data, run, progress=False)
    assert_refused(run_toynn("train", data, "--out", run), "resume the run (--resume), or use another folder")
    with pytest.raises(TinyNNValueError, match=r"start the run without resume$"):
        toynn.train(data, tmp_path / "none", resume=True, progress=False)
    assert_refused(run_toynn("train", data, "--out", tmp_path / "none", "--resume"), "start the run without --resume")
    (load_checkpoint(run).path / "meta.json").write_text("{")
    with pytest.raises(TinyNNValueError, match=r"older checkpoint, use resume=True, resume_from='step-00000002'$"):
        toynn.train(data, run, resume=True, progress=False)
    assert_refused(
        run_toynn("train", data, "--out", run, "--resume"), "older checkpoint, use --resume --from step-00000002"
    )


# ---- printed lines ----


def steps_of(lines: list[str]) -> list[int]:
    return [
        int(line.split()[1].split("/")[0]) for line in lines if line.startswith("step ") and "/" in line.split(":")[0]
    ]


def test_without_a_terminal_about_a_hundred_steps_of_a_long_run_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for steps, resumed, every, expected in [
        (6000, 0, None, [1, *range(60, 6001, 60)]),
        (250, 0, None, [1, *range(3, 250, 3), 250]),
        (50, 0, None, list(range(1, 51))),
        (6000, 5900, None, list(range(5901, 6001))),
        (1000, 0, 300, [1, 300, 600, 900, 1000]),
    ]:
        view = PlainProgress(every, lines=100, ending=False)
        view(Started(Path("r"), Path("d"), resumed, steps, 1, 1, 1, 1, None, None, "", 3.0, ("one note",)))
        for step in range(resumed + 1, steps + 1):
            view(Stepped(step, 1.0, 1e-3, 1.0, 1, 1.0, 1.0, step / steps))
            view(toynn.training.Saved(step, Path("x"), 1, 0.1))
        lines = capsys.readouterr().err.splitlines()
        assert lines[1] == "note: one note"
        assert steps_of(lines) == expected
        assert sum("saved" in line for line in lines) <= len(expected) + 1


def test_the_command_prints_every_nth_step_and_quiet_ends_with_the_losses(data: Path, tmp_path: Path) -> None:
    words = [*SMALL, "--set", "train.steps=7"]
    done = run_toynn("train", data, "--out", tmp_path / "a", *words, "--log-every", "3")
    assert steps_of(done.stderr.splitlines()) == [1, 3, 6, 7]
    quiet = run_toynn("train", data, "--out", tmp_path / "b", *words, "--quiet")
    ended = read_log(tmp_path / "b")[-1]
    assert quiet.stderr == ""
    assert quiet.stdout == (
        f"done after 7 steps, training loss {ended['loss']:.4f}, best validation loss {ended['best_loss']:.4f} at step "
        f"{ended['best_step']}\n"
    )
    longer = run_toynn("train", data, "--out", tmp_path / "b", "--resume", "--quiet", "--set", "train.steps=9")
    assert longer.stderr.startswith("note: with 9 steps instead of 7, the learning rate is ")
    assert_refused(run_toynn("train", data, "--out", tmp_path / "c", "--log-every", "0"), "--log-every")


def test_the_configuration_is_shown_as_json_on_request() -> None:
    shown = json.loads(output_of("train", "--show-config", "--json", "--set", "train.steps=70"))
    assert shown == to_plain(from_toml(output_of("train", "--show-config", "--set", "train.steps=70")))
    assert (shown["train"]["steps"], shown["schedule"]["warmup"]) == (70, 7)


# ---- the report ----


@pytest.mark.parametrize(("width", "error"), [(5, 0.04), (21, 0.33)])
def test_a_smoothed_curve_follows_a_falling_loss_from_its_start(width: int, error: float) -> None:
    steps = list(range(1, 201))
    line = [9.0 - 0.04 * step for step in steps]
    smooth = _smooth(_Curve("", steps, line), width).values
    half = width // 2
    assert smooth[:-half] == pytest.approx(line[:-half])
    assert smooth[-1] == pytest.approx(sum(line[-half - 1 :]) / (half + 1))
    falling = [2.0 + 5.0 * math.exp(-step / 10) for step in steps]
    smooth = _smooth(_Curve("", steps, falling), width).values
    assert max(abs(a - b) for a, b in zip(smooth, falling, strict=True)) < error, "a trailing mean is off by 1.5"
    noisy = [2.0 + (-1) ** step for step in steps]
    assert (
        max(abs(value - 2.0) for value in _smooth(_Curve("", steps, noisy), width).values[width:-width]) <= 1.01 / width
    )


def test_a_smoothed_curve_has_no_hook_at_its_end() -> None:
    level = [2.0] * 200
    curve = _smooth(_Curve("", list(range(1, 201)), [*level[:-1], 3.0]), 21)
    assert curve.values[-1] == pytest.approx(2.0 + 1 / 11)
    assert curve.values[:189] == level[:189]


@pytest.mark.parametrize(("batch", "noted"), [(2, True), (1, False)])
def test_a_run_whose_steps_an_older_version_added_up_is_resumed_with_a_note(
    data: Path, tmp_path: Path, batch: int, noted: bool
) -> None:
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(2, train=StepArgs(steps=2, batch=batch))))
    meta = load_checkpoint(run).path / META
    content = json.loads(meta.read_text(encoding="utf-8"))
    assert content["training"].pop("order_of_sums", 1) == (2 if noted else 1)
    meta.write_text(json.dumps(content), encoding="utf-8")
    notes = []
    for steps in (3, 4):  # the run that ends at step 3 records the new order in its checkpoint
        toynn.train(data, run, resume=True, steps=steps, progress=False)
        notes.append([note for note in started(run)["notes"] if "up the gradients of a step in another order" in note])
    assert [len(found) for found in notes] == [int(noted), 0]
    assert not noted or "took 2 steps" in notes[0][0]
