"""toynn.train: results, stopping and resuming with the same bytes, the end of a run, and errors."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import toynn
from engines import realized
from small_runs import MODEL, config, evaluations, final_bytes, losses, make_data
from toynn import AdamW, LlamaSeqEngine, RunFolderError, TinyNNTypeError, TinyNNValueError, TrainArgs, train
from toynn.data import PackedTokens, WindowBatcher
from toynn.llm.options import RecipeOptions
from toynn.storage.checkpoint import RunFolder, load_checkpoint, write_checkpoint
from toynn.storage.checkpoint.names import checkpoint_names
from toynn.training import (
    CheckpointArgs,
    DivergedError,
    Ended,
    Evaluated,
    EvaluationArgs,
    Event,
    OptimizerArgs,
    Saved,
    ScheduleArgs,
    Started,
    StepArgs,
    Stepped,
    StopTraining,
)
from toynn.training.evaluation import Validation
from toynn.training.schedule import learning_rate
from toynn.training.toml_config import read_config


class Collector:
    """A callback that collects events and stops at a given step."""

    def __init__(self, stop_at: int = 0, error: BaseException | None = None) -> None:
        self.events: list[Event] = []
        self._stop_at, self._error = stop_at, error or StopTraining()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Stepped) and event.step == self._stop_at:
            raise self._error


# ---- the results of training ----


def test_a_run_that_ended_before_its_first_step_is_resumed(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "whole", config(3)))

    def kill(event: Event) -> None:
        if isinstance(event, Saved):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TrainArgs(data, tmp_path / "run", config(3)), [kill])
    assert load_checkpoint(tmp_path / "run").step == 0
    train(TrainArgs(data, tmp_path / "run", resume=True))
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.quick
def test_training_equals_engine_steps_called_by_hand(data: Path, tmp_path: Path) -> None:
    chosen = config(6, optimizer=OptimizerArgs(lr=1e-2, kind="adamw", clip=0.5, weight_decay=0.2))
    train(TrainArgs(data, tmp_path / "run", chosen))
    split = PackedTokens.open(data, "train")
    windows = WindowBatcher(split.tokens, 16, 0)
    by_hand = []
    with realized(MODEL.shape(split.meta.vocab_size), t_seq=16, t_batch=2) as engine:
        engine.build_training_step(clip=True, decay_vectors=False)
        for step in range(1, 7):
            lr = learning_rate(chosen.schedule, 1e-2, step, 6)
            hp = AdamW(lr, weight_decay=0.2, bias_correct=True).hp(step)
            ids, targets = windows.batch((step - 1) * 2, 2)
            by_hand.append(engine.train_step(ids, targets, hp, max_norm=0.5)[0].hex())
        weights = {name: engine.download_weight(name).tobytes() for name in engine.weights}
    assert losses(tmp_path / "run") == by_hand
    assert {name: values for name, values in final_bytes(tmp_path / "run").items() if name in weights} == weights


@pytest.mark.quick
def test_accumulated_batches_train_like_one_large_batch_bit_for_bit(data: Path, tmp_path: Path) -> None:
    results = []
    for batch, accumulate in ((6, 1), (2, 3), (1, 6)):
        run = tmp_path / f"batch {batch}"
        step = StepArgs(steps=8, batch=batch, accumulate=accumulate)
        train(TrainArgs(data, run, config(train=step, evaluation=EvaluationArgs(every=4, windows=5))))
        results.append((losses(run), evaluations(run), final_bytes(run)))
    assert results[1:] == results[:1] * 2


def test_recomputing_activations_changes_no_bit_and_a_resumed_run_may_change_it(data: Path, tmp_path: Path) -> None:
    for name, recompute in (("kept", False), ("again", True)):
        train(TrainArgs(data, tmp_path / name, config(3, train=StepArgs(steps=3, batch=2, recompute=recompute))))
        train(TrainArgs(data, tmp_path / name, config(6), resume=True))
    assert losses(tmp_path / "kept") == losses(tmp_path / "again")
    assert final_bytes(tmp_path / "kept") == final_bytes(tmp_path / "again")


def test_evaluation_is_the_mean_loss_of_every_token_for_any_batch(data: Path, tmp_path: Path) -> None:
    split = PackedTokens.open(data, "validation")
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(3, evaluation=EvaluationArgs(every=0))))
    model = load_checkpoint(run).model
    with toynn.LlamaDecoder(model.shape, model.weights) as decoder:
        nats = [decoder.score(split.tokens[i : i + 17].astype(np.int32)) for i in range(0, len(split) - 1, 16)]
    expected = float(np.concatenate(nats).sum(dtype=np.float64)) / (len(split) - 1)
    assert float.fromhex(evaluations(run)[-1]) == pytest.approx(expected, abs=1e-6)
    for batch in (1, 2, 5):
        with LlamaSeqEngine() as engine:
            engine.realize(model.shape, RecipeOptions(16, batch, layout="fused"), model.weights)
            assert Validation(split, 16, batch, 0).loss(engine).mean == pytest.approx(expected, abs=1e-6)
            two = Validation(split, 16, batch, 2)
            assert two.tokens == 32
            assert two.loss(engine).mean == pytest.approx(
                float(np.concatenate(nats[:2]).mean(dtype=np.float64)), abs=1e-6
            )


def test_evaluating_changes_no_bit_of_the_training(data: Path, tmp_path: Path) -> None:
    for name, every in (("often", 1), ("never", 0)):
        train(TrainArgs(data, tmp_path / name, config(evaluation=EvaluationArgs(every=every))))
    assert losses(tmp_path / "often") == losses(tmp_path / "never")
    assert final_bytes(tmp_path / "often") == final_bytes(tmp_path / "never")


def test_perplexity_and_bits_per_byte_follow_from_the_loss(data: Path, tmp_path: Path) -> None:
    seen = Collector()
    train(TrainArgs(data, tmp_path / "run", config(5)), [seen])
    split = PackedTokens.open(data, "validation")
    stored = split.meta.splits["validation"]
    (one,) = [event for event in seen.events if isinstance(event, Evaluated)]
    assert one.tokens == stored.tokens - 1
    assert one.perplexity == pytest.approx(math.exp(one.loss))
    assert one.bits_per_byte == pytest.approx(one.loss / math.log(2) * stored.tokens / stored.bytes)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_number_of_threads_changes_no_bit(data: Path, tmp_path: Path, n_threads: int) -> None:
    if n_threads > toynn.tinynn.tnn_available_cores():
        pytest.skip("this process may use one core only")
    chosen = config(train=StepArgs(steps=8, batch=2, accumulate=2))
    for name, count in (("a", n_threads), ("b", None)):
        train(TrainArgs(data, tmp_path / name, chosen, n_threads=count))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert final_bytes(tmp_path / "a") == final_bytes(tmp_path / "b")


def test_training_a_projection_lens_keeps_the_embedding_frozen(data: Path, tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, donor_d_in=24, untied=True)
    train(TrainArgs(data, tmp_path / "run", config(model=model)))
    first = load_checkpoint(tmp_path / "run" / "checkpoints" / checkpoint_names(tmp_path / "run")[0])
    last = load_checkpoint(tmp_path / "run")
    assert (first.model.weights["token_embd.weight"] == last.model.weights["token_embd.weight"]).all()
    assert (first.model.weights["lens.proj.weight"] != last.model.weights["lens.proj.weight"]).any()


# ---- schedules ----


def test_schedules_rise_hold_and_fall_as_configured() -> None:
    def rates(**kwargs: object) -> list[float]:
        schedule = dataclasses.replace(ScheduleArgs(), **kwargs)  # type: ignore[arg-type]
        return [learning_rate(schedule, 2.0, step, 20) for step in range(1, 21)]

    assert rates(kind="constant", warmup=4) == [0.5, 1.0, 1.5] + [2.0] * 17
    wsd = rates(kind="wsd", warmup=2, decay=4, min_ratio=0.5)
    assert wsd[:2] == [1.0, 2.0]
    assert wsd[2:16] == [2.0] * 14
    assert wsd[16:] == [1.75, 1.5, 1.25, 1.0]
    cosine = rates(kind="cosine", warmup=0, min_ratio=0.1)
    assert cosine[-1] == pytest.approx(0.2)
    assert cosine[9] == pytest.approx(1.1)
    assert (np.diff(cosine) < 0).all()
    assert rates(kind="cosine", warmup=20)[-1] == 2.0


# ---- stopping and resuming ----


@pytest.mark.parametrize("stops", [[1], [4], [7], [2, 5, 9]])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_has_the_bytes_of_an_uninterrupted_run(
    data: Path, tmp_path: Path, stops: list[int], accumulate: int
) -> None:
    chosen = config(train=StepArgs(steps=12, batch=2, accumulate=accumulate))
    train(TrainArgs(data, tmp_path / "whole", chosen))
    run = tmp_path / "parts"
    for i, stop in enumerate(stops):
        ended = train(TrainArgs(data, run, chosen if i == 0 else None, resume=i > 0), [Collector(stop)])
        assert (ended.reason, ended.step) == ("stopped", stop)
    ended = train(TrainArgs(data, run, resume=True))
    assert (ended.reason, ended.step) == ("done", 12)
    assert losses(run) == losses(tmp_path / "whole")
    assert evaluations(run) == evaluations(tmp_path / "whole")
    assert final_bytes(run) == final_bytes(tmp_path / "whole")
    best = [load_checkpoint(folder, "best").step for folder in (run, tmp_path / "whole")]
    assert best[0] == best[1]


def test_repeating_lost_steps_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    chosen = config()
    train(TrainArgs(data, tmp_path / "whole", chosen))
    with pytest.raises(KeyboardInterrupt):
        train(TrainArgs(data, tmp_path / "run", chosen), [Collector(7, KeyboardInterrupt())])
    assert load_checkpoint(tmp_path / "run").step < 7
    train(TrainArgs(data, tmp_path / "run", resume=True))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")


@pytest.mark.quick
def test_a_signal_ends_training_after_the_step_and_saves_it(data: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    ended = train(TrainArgs(data, tmp_path / "run", config()), [interrupt])
    assert (ended.reason, ended.step) == ("interrupted", 3)
    assert load_checkpoint(tmp_path / "run").step == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failing_callback_loses_no_steps(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        train(TrainArgs(data, tmp_path / "run", config()), [Collector(6, ZeroDivisionError())])
    assert load_checkpoint(tmp_path / "run").step == 6


def test_a_finished_run_can_be_resumed_with_more_steps(data: Path, tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", config(6, schedule=ScheduleArgs(kind="constant", warmup=0))
    train(TrainArgs(data, run, chosen))
    before = final_bytes(run)
    assert train(TrainArgs(data, run, resume=True)).step == 6
    assert final_bytes(run) == before
    longer = dataclasses.replace(chosen, train=StepArgs(steps=9, batch=2))
    assert train(TrainArgs(data, run, longer, resume=True)).step == 9
    train(TrainArgs(data, tmp_path / "whole", longer))
    assert final_bytes(run) == final_bytes(tmp_path / "whole")


def test_a_run_resumes_from_an_older_checkpoint_if_best_is_damaged(data: Path, tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", config(8)
    train(TrainArgs(data, run, chosen))
    whole = final_bytes(run)
    best = load_checkpoint(run, "best").step
    (run / "best").write_text("junk\n")
    train(TrainArgs(data, run, resume=True, resume_from="step-00000005"))
    assert final_bytes(run) == whole
    assert load_checkpoint(run, "best").step == best


def test_the_suggested_checkpoint_is_older_than_the_damaged_one(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(8, checkpoint=CheckpointArgs(every=2, keep_last=9))))
    (run / "latest").write_text("step-00000004\n")
    (run / "checkpoints/step-00000004/weights.safetensors").write_bytes(b"x")
    with pytest.raises(TinyNNValueError, match="resume=True, resume_from='step-00000002'"):
        train(TrainArgs(data, run, resume=True))
    (run / "latest").write_text("junk\n")
    with pytest.raises(TinyNNValueError, match="resume=True, resume_from='step-00000008'"):
        train(TrainArgs(data, run, resume=True))


def test_training_stops_early_when_the_validation_loss_stops_falling(data: Path, tmp_path: Path) -> None:
    chosen = config(
        200,
        evaluation=EvaluationArgs(every=2, patience=3, min_delta=100.0),
        checkpoint=CheckpointArgs(every=0),
    )
    ended = train(TrainArgs(data, tmp_path / "run", chosen))
    assert (ended.reason, ended.step, ended.best_step) == ("early stop", 8, 2)
    assert load_checkpoint(tmp_path / "run", "best").step == 2
    assert train(TrainArgs(data, tmp_path / "run", resume=True)).reason == "early stop"


def test_only_the_last_checkpoints_and_the_best_are_kept(data: Path, tmp_path: Path) -> None:
    chosen = config(
        20, evaluation=EvaluationArgs(every=4, min_delta=100.0), checkpoint=CheckpointArgs(every=3, keep_last=2)
    )
    train(TrainArgs(data, tmp_path / "run", chosen))
    assert [int(name[5:]) for name in checkpoint_names(tmp_path / "run")] == [4, 18, 20]
    chosen = dataclasses.replace(chosen, checkpoint=CheckpointArgs(every=3, keep_last=1, keep_best=False))
    train(TrainArgs(data, tmp_path / "other", chosen))
    assert [int(name[5:]) for name in checkpoint_names(tmp_path / "other")] == [20]
    assert not (tmp_path / "other" / "best").exists()


def test_resuming_before_a_damaged_checkpoint_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    chosen = config(12, evaluation=EvaluationArgs(every=3), checkpoint=CheckpointArgs(every=2, keep_last=3))
    train(TrainArgs(data, whole, chosen))
    train(TrainArgs(data, run, chosen), [Collector(9)])
    older, latest = checkpoint_names(run)[-2:]
    assert (older, latest) == ("step-00000008", "step-00000009")
    moments = run / "checkpoints" / latest / "moments.safetensors"
    moments.write_bytes(moments.read_bytes()[:-1])
    with pytest.raises(TinyNNValueError, match=f"is damaged: .* resume=True, resume_from='{older}'"):
        train(TrainArgs(data, run, resume=True))
    # the run is interrupted before its first save, so the older checkpoint becomes the latest
    with pytest.raises(KeyboardInterrupt):
        train(TrainArgs(data, run, resume=True, resume_from=older), [Collector(9, KeyboardInterrupt())])
    assert load_checkpoint(run).path.name == older
    ended = train(TrainArgs(data, run, resume=True))
    assert (ended.reason, ended.step) == ("done", 12)
    assert losses(run) == losses(whole)
    assert evaluations(run) == evaluations(whole)
    assert final_bytes(run) == final_bytes(whole)
    assert load_checkpoint(run, "best").step == load_checkpoint(whole, "best").step
    assert [int(name[5:13]) for name in checkpoint_names(run)] == [int(name[5:13]) for name in checkpoint_names(whole)]


def test_resuming_from_an_older_step_drops_a_later_best_checkpoint(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    chosen = config(6, evaluation=EvaluationArgs(every=2), checkpoint=CheckpointArgs(every=1, keep_last=9))
    train(TrainArgs(data, run, chosen))
    assert load_checkpoint(run, "best").step == 6
    train(TrainArgs(data, run, resume=True, resume_from="step-00000003"), [Collector(4)])
    assert load_checkpoint(run, "best").path.name == "step-00000004-1"
    with pytest.raises(KeyboardInterrupt):
        train(TrainArgs(data, run, resume=True, resume_from="step-00000001"), [Collector(2, KeyboardInterrupt())])
    assert not (run / "best").exists(), "at step 1 there was no best checkpoint"
    train(TrainArgs(data, run, resume=True))
    assert load_checkpoint(run, "best").step == 6


def test_the_default_warmup_fits_the_steps_and_is_written_to_run_toml(data: Path, tmp_path: Path) -> None:
    assert [ScheduleArgs().warmup_of(steps) for steps in (1, 25, 1000, 5000)] == [0, 2, 100, 100]
    train(TrainArgs(data, tmp_path / "run", config(20, schedule=ScheduleArgs())))
    own = read_config(tmp_path / "run" / "run.toml")
    assert own.schedule.warmup == 2
    longer = config(30, schedule=ScheduleArgs())
    train(TrainArgs(data, tmp_path / "run", longer, resume=True))
    assert read_config(tmp_path / "run" / "run.toml").schedule.warmup == 2, (
        "the warmup must be that of the run, not that of 30 steps"
    )


# ---- starting from another model ----


def test_the_shape_may_be_repeated_when_resuming_and_is_written_to_run_toml(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "first", config(3)))
    said = dataclasses.replace(MODEL, init_scale=0.5, embedding_std=0.3)
    train(TrainArgs(data, tmp_path / "second", config(3, model=said), init=tmp_path / "first"))
    train(TrainArgs(data, tmp_path / "third", config(3, model=None), init=tmp_path / "first"))
    assert final_bytes(tmp_path / "second") == final_bytes(tmp_path / "third")
    own = read_config(tmp_path / "third" / "run.toml")
    assert own.model is not None
    assert own.model == dataclasses.replace(MODEL, head_dim=8, init_scale=0.12, embedding_std=0.02)
    repeated = dataclasses.replace(MODEL, init_scale=None, embedding_std=None)
    train(
        TrainArgs(data, tmp_path / "third", config(4, model=repeated), resume=True)
    )  # run.toml contains head_dim = 8, which is also the value that is derived here
    train(TrainArgs(data, tmp_path / "fourth", own, init=tmp_path / "first"))
    assert final_bytes(tmp_path / "fourth") == final_bytes(tmp_path / "second")


def test_a_run_can_start_from_the_weights_of_another(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "first", config()))
    chosen = config(4, model=None)
    seen = Collector()
    train(TrainArgs(data, tmp_path / "second", chosen, init=tmp_path / "first"), [seen])
    started = seen.events[0]
    assert isinstance(started, Started)
    assert started.inits is not None
    first = load_checkpoint(tmp_path / "first").model.weights
    names = checkpoint_names(tmp_path / "second")
    train(TrainArgs(data, tmp_path / "imported", config(2, model=None), init=tmp_path / "first"))
    begin = load_checkpoint(tmp_path / "imported" / "checkpoints" / "step-00000000")
    assert all((begin.model.weights[name] == values).all() for name, values in first.items())
    assert names[-1] == "step-00000004"


def test_an_imported_model_can_be_trained_in_its_own_folder(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "first", config()))
    model = load_checkpoint(tmp_path / "first").model
    write_checkpoint(tmp_path / "imported", model)
    ended = train(TrainArgs(data, tmp_path / "imported", config(3, model=None)))
    assert ended.step == 3
    train(TrainArgs(data, tmp_path / "second", config(3, model=None), init=tmp_path / "first"))
    assert final_bytes(tmp_path / "imported") == final_bytes(tmp_path / "second")


# ---- refused settings and data ----


def test_inconsistent_settings_are_refused(data: Path, tmp_path: Path) -> None:
    run, chosen = tmp_path / "run", config(3)
    train(TrainArgs(data, run, chosen))
    other_data = make_data(tmp_path / "other", seed=9)
    refused = [
        (TrainArgs(data, run, chosen), "is already a run of 3 steps; resume the run"),
        (TrainArgs(data, tmp_path / "new", chosen, resume=True), "no checkpoint to resume from"),
        (TrainArgs(other_data, run, resume=True), "the training tokens of .* differ from those that"),
        (
            TrainArgs(data, run, config(3, optimizer=OptimizerArgs(lr=0.5)), resume=True),
            r"optimizer\.lr is 0\.5, but",
        ),
        (
            TrainArgs(data, tmp_path / "b", config(model=dataclasses.replace(MODEL, d_ff=32)), init=run),
            r"model\.d_ff = 32 differs from the model in .*, which has 24",
        ),
        (
            TrainArgs(data, run, config(2, schedule=ScheduleArgs(warmup=2)), resume=True),
            r"train\.steps = 2 is too small, but the run has already taken 3",
        ),
        (
            TrainArgs(data, tmp_path / "g", config(3, schedule=ScheduleArgs(warmup=3))),
            r"schedule\.warmup must be below",
        ),
        (
            TrainArgs(data, run, resume=True, resume_from="step-00000001"),
            "no checkpoint 'step-00000001'; its checkpoints are step",
        ),
        (TrainArgs(other_data, tmp_path / "c", config(model=None), init=run), "was not prepared with the tokenizer of"),
        (TrainArgs(data, tmp_path / "d", config(train=StepArgs(t_seq=17))), r"train\.t_seq must be at most"),
        (TrainArgs(tmp_path, tmp_path / "e", chosen), "is not a data folder"),
        (TrainArgs(data, data, chosen), "exists and is not a run"),
    ]
    before = final_bytes(run)
    for args, says in refused:
        with pytest.raises(TinyNNValueError, match=says):
            train(args)
    assert final_bytes(run) == before
    assert {path.name for path in tmp_path.iterdir()} == {"run", "other", "other.txt"}, (
        "a failed command must leave no files"
    )
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; give a run"):
        train(TrainArgs(data, tmp_path / "f", chosen, init=tmp_path / "nowhere"))
    with pytest.raises(TinyNNTypeError, match="out must be a path, got NoneType"):
        train(data)  # type: ignore[call-overload]
    with pytest.raises(TinyNNValueError, match="init and resume cannot be combined"):
        TrainArgs(data, run, init=run, resume=True)
    with pytest.raises(TinyNNValueError, match="needs resume"):
        TrainArgs(data, run, resume_from="step-00000003")
    with pytest.raises(TinyNNTypeError, match="resume_from"):
        TrainArgs(data, run, resume=True, resume_from=3)  # type: ignore[arg-type]


def test_damaged_data_is_refused(data: Path, tmp_path: Path) -> None:
    for name in ("train.bin", "validation.bin", "tokenizer.json"):
        copy = tmp_path / f"copy-{name}"
        shutil.copytree(data, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(TinyNNValueError, match=f"{name} is damaged"):
            train(TrainArgs(copy, tmp_path / "run", config()))


def test_a_run_in_use_by_another_process_is_refused(data: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"), pytest.raises(RunFolderError, match="written by another process"):
        train(TrainArgs(data, tmp_path / "run", config()))


# ---- divergence ----


def test_a_nan_loss_names_the_tensor_and_keeps_the_checkpoints(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "first", config(3)))
    model = load_checkpoint(tmp_path / "first").model
    huge = {**model.weights, "blk.1.ffn_up.weight": np.full((24, 16), 3e38, dtype=np.float32)}
    write_checkpoint(tmp_path / "huge", dataclasses.replace(model, weights=huge))
    with pytest.raises(DivergedError, match=r"step 1: the loss is .*the activation blk\.1\.residual") as caught:
        train(TrainArgs(data, tmp_path / "run", config(3, model=None), init=tmp_path / "huge"))
    assert caught.value.step == 1
    assert load_checkpoint(tmp_path / "run").step == 0


def test_a_nan_gradient_names_its_weight_and_changes_no_weight(data: Path, tmp_path: Path) -> None:
    """The output head is huge and the norm before it is tiny, so logits are finite, but the norm's gradient is not."""
    train(TrainArgs(data, tmp_path / "first", config(1, model=dataclasses.replace(MODEL, untied=True))))
    model = load_checkpoint(tmp_path / "first").model
    weights = {name: values.copy() for name, values in model.weights.items()}
    weights["token_embd.weight"][:] = np.eye(1, 16, dtype=np.float32)
    weights["output_norm.weight"][:] = 1e-40
    for name in weights:
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            weights[name][:] = 0
    used = np.unique(PackedTokens.open(data, "train").tokens)
    weights["output.weight"][:] = -3e38
    weights["output.weight"][used] = 3e38
    write_checkpoint(tmp_path / "odd", dataclasses.replace(model, weights=weights))
    with pytest.raises(DivergedError, match=r"the gradients' norm is inf; .* the gradient of output_norm\.weight"):
        train(TrainArgs(data, tmp_path / "run", config(3, model=None), init=tmp_path / "odd"))
    kept = load_checkpoint(tmp_path / "run")
    assert kept.step == 0
    assert (kept.model.weights["output.weight"] == weights["output.weight"]).all()


def test_a_learning_rate_that_makes_weights_infinite_is_an_error(data: Path, tmp_path: Path) -> None:
    chosen = config(30, optimizer=OptimizerArgs(lr=3e38, kind="adamw", clip=0), schedule=ScheduleArgs(warmup=0))
    with pytest.raises(DivergedError, match="the first tensor with NaN or infinity is"):
        train(TrainArgs(data, tmp_path / "run", chosen))
    assert np.isfinite(load_checkpoint(tmp_path / "run").model.weights["token_embd.weight"]).all()


# ---- events ----


def test_callbacks_get_every_event_in_order(data: Path, tmp_path: Path) -> None:
    seen = Collector()
    ended = train(TrainArgs(data, tmp_path / "run", config(5)), [seen])
    kinds = [type(event) for event in seen.events]
    assert kinds == [Started, Saved, Stepped, Stepped, Stepped, Stepped, Saved, Stepped, Evaluated, Saved, Ended]
    assert seen.events[-1] == ended.event
    started = seen.events[0]
    assert isinstance(started, Started)
    weights = load_checkpoint(tmp_path / "run").model.weights
    assert started.parameters == sum(values.size for values in weights.values())
    assert started.batch_tokens == 32
