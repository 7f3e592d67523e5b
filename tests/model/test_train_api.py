"""toynn.prepare and toynn.train: settings by keyword, training from any model, progress, and the reason of the end."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

import toynn
from small_runs import config, final_bytes, losses
from toynn.api.train_settings import overrides_of
from toynn.data import PackedTokens
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.training import CheckpointArgs, Event, ModelArgs, Stepped, StopTraining
from toynn.training.run_log import read_log
from toynn.training.toml_config import read_config, to_toml

SMALL: dict[str, Any] = {
    "d_model": 16, "n_heads": 2, "n_kv": 1, "d_ff": 24, "n_layers": 2, "ctx": 16, "init_scale": 1.0,
    "batch": 2, "warmup": 2, "lr": 1e-2, "optimizer": {"kind": "adamw"},
    "evaluation": {"every": 5}, "checkpoint": {"every": 4}, "progress": False,
}  # fmt: skip


def test_settings_by_keyword_give_the_bytes_of_a_configuration(data: Path, tmp_path: Path) -> None:
    toynn.train(toynn.TrainArgs(data, tmp_path / "whole", config(6)))
    result = toynn.train(data, tmp_path / "run", steps=6, **SMALL)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    assert (result.reason, result.step, result.run) == ("done", 6, tmp_path / "run")
    assert result.checkpoint == load_checkpoint(result).path  # type: ignore[arg-type]
    assert result.event.step == 6
    assert repr(result).startswith(f"<toynn.TrainingResult '{tmp_path / 'run'}': done after step 6, loss ")
    with result.load("best") as model:
        assert model.step == result.best_step


def test_settings_override_a_configuration_or_a_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(to_toml(config(9)))
    for i, given in enumerate((config(9), tmp_path / "my.toml", str(tmp_path / "my.toml"))):
        run = tmp_path / f"run{i}"
        toynn.train(data, run, config=given, steps=3, seed=None, progress=False, **{"schedule.warmup": 1})  # type: ignore[call-overload]
        made = read_config(run / "run.toml")
        assert (made.train.steps, made.schedule.warmup, made.optimizer.lr) == (3, 1, 1e-2)
        assert made.train.seed == 0, "None changes nothing"


def test_training_starts_from_a_loaded_model_and_from_any_path(data: Path, tmp_path: Path) -> None:
    first = toynn.train(data, tmp_path / "first", steps=4, **SMALL)
    with first.load() as model:
        model.save(tmp_path / "m.gguf")
        model.save(tmp_path / "hf", format="hf")
        starts: list[Any] = [model, first, tmp_path / "m.gguf", str(tmp_path / "hf")]
        for i, init in enumerate(starts):
            toynn.train(data, tmp_path / f"on{i}", init=init, steps=2, batch=2, warmup=1, progress=False)
    assert losses(tmp_path / "on0") == losses(tmp_path / "on1") == losses(tmp_path / "on2") == losses(tmp_path / "on3")
    assert losses(tmp_path / "on0")[0] != losses(tmp_path / "first")[0]
    assert read_log(tmp_path / "on2")[0]["inits"] == str(tmp_path / "m.gguf")


def test_a_run_is_resumed_with_its_own_configuration(data: Path, tmp_path: Path) -> None:
    toynn.train(data, tmp_path / "whole", steps=8, **SMALL)

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 4:
            raise StopTraining

    stopped = toynn.train(data, tmp_path / "run", steps=8, callbacks=[stop], **SMALL)
    assert (stopped.reason, stopped.step) == ("stopped", 4)
    resumed = toynn.train(data, stopped, resume=True, progress=False)
    assert (resumed.reason, resumed.step) == ("done", 8)
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    older = toynn.train(data, stopped, resume=True, resume_from="step-00000005", steps=6, progress=False)
    assert older.step == 6
    with pytest.raises(toynn.TinyNNValueError, match=r"train\.batch is 4, but the run has 2"):
        toynn.train(data, stopped, resume=True, batch=4, progress=False)


def test_progress_is_a_few_lines_on_stderr(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    toynn.train(data, tmp_path / "run", steps=50, **{**SMALL, "progress": True})
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 20 < len(lines) < 50
    assert [line.split("/")[0] for line in lines if "/50: loss " in line] == [
        f"step {i}" for i in (1, *range(3, 51, 3), 50)
    ]
    assert any(line.startswith("step 48/50: loss ") and ", epoch 0.66, " in line for line in lines)
    assert lines[-1] == f"ended after step 50 (done): {tmp_path / 'run/checkpoints/step-00000050'}"
    toynn.train(data, tmp_path / "quiet", steps=3, **SMALL)
    toynn.train(toynn.TrainArgs(data, tmp_path / "as before", config(2)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"stepz": 3}, toynn.ConfigurationError, "unknown setting 'stepz'; did you mean 'steps'"),
        (
            {"every": 3},
            toynn.ConfigurationError,
            "every is ambiguous: it could be evaluation.every or checkpoint.every",
        ),
        ({"optimizer.lrr": 3}, toynn.ConfigurationError, "did you mean 'optimizer.lr'"),
        ({"qwxyz": 3}, toynn.ConfigurationError, "`toynn train --show-config` lists all settings"),
        ({"checkpoint": 3}, toynn.TinyNNTypeError, "checkpoint is a section"),
        ({"checkpoint": {"evry": 3}}, toynn.ConfigurationError, "did you mean 'checkpoint.every'"),
        (
            {"lr": [1.5]},
            toynn.TinyNNTypeError,
            r"optimizer.lr must be a number, a bool, a str, or a list of integers or of str, got \[1.5\]",
        ),
        ({"lr": "fast"}, toynn.TinyNNTypeError, "optimizer.lr must be a number"),
        ({"lr": -1.0}, toynn.TinyNNValueError, "optimizer.lr must be"),
        ({"lr": float("nan")}, toynn.TinyNNValueError, "optimizer.lr must be"),
        ({"steps": 2.5}, toynn.TinyNNTypeError, "train.steps must be an integer"),
        ({"init": 3}, toynn.TinyNNTypeError, "init must be a path"),
        ({"init": "nowhere"}, FileNotFoundError, "nowhere does not exist"),
        ({"config": 3}, toynn.TinyNNTypeError, "config must be a path"),
        ({"config": "nowhere.toml"}, FileNotFoundError, "nowhere.toml"),
        ({"resume": 1}, toynn.TinyNNTypeError, "resume must be"),
        ({"progress": 1}, toynn.TinyNNTypeError, "progress must be"),
        ({"callbacks": [3]}, toynn.TinyNNTypeError, r"callbacks\[0\] must be"),
        ({"n_threads": 0}, toynn.TinyNNValueError, "n_threads"),
        ({"resume_from": "step-00000001"}, toynn.TinyNNValueError, "needs resume"),
    ],
)
def test_a_wrong_setting_is_named_and_leaves_nothing(
    settings: dict[str, Any], error: type[Exception], says: str, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        toynn.train(data, "run", **{**SMALL, **settings})
    assert list(tmp_path.iterdir()) == []


def test_train_args_contain_all_arguments_except_callbacks_and_progress(data: Path, tmp_path: Path) -> None:
    args = toynn.TrainArgs(data, tmp_path / "run", config(2))
    seen: list[Event] = []
    result = toynn.train(args, [seen.append])
    assert (result.reason, len(seen) > 3) == ("done", True)
    for wrong in ({"steps": 3}, {"init": data}, {"resume": True}, {"n_threads": 1}):
        with pytest.raises(toynn.TinyNNTypeError, match=f"{next(iter(wrong))} cannot be combined with a TrainArgs"):
            toynn.train(args, **wrong)
    with pytest.raises(toynn.TinyNNTypeError, match="callbacks are given twice"):
        toynn.train(args, [seen.append], callbacks=[seen.append])  # type: ignore[call-overload]


def test_sections_may_be_mappings_or_dataclasses() -> None:
    assert overrides_of({"checkpoint": CheckpointArgs(every=7)})[0] == "checkpoint.every=7"
    assert 'model.rope_scaling.kind="none"' in overrides_of({"model": ModelArgs()})
    assert overrides_of({"lr": 1e-3, "schedule.kind": "wsd", "steps": 3, "keep_best": False}) == [
        "optimizer.lr=0.001", 'schedule.kind="wsd"', "train.steps=3", "checkpoint.keep_best=false",
    ]  # fmt: skip


# ---- prepare ----

DOCUMENTS = [f"Story {i}: the cat saw a hen and ran." for i in range(40)]


def test_a_file_several_files_and_documents_give_the_same_tokens(tmp_path: Path) -> None:
    text = "<|endoftext|>\n".join(f"{document}\n" for document in DOCUMENTS)
    (tmp_path / "all.txt").write_text(text)
    (tmp_path / "one.txt").write_text(text)
    one = toynn.prepare(str(tmp_path / "all.txt"), tmp_path / "a", vocab_size=300)
    several = toynn.prepare([tmp_path / "one.txt"], tmp_path / "b", vocab_size=300)
    given = toynn.prepare(documents=iter(DOCUMENTS), out=tmp_path / "c", vocab_size=300)
    for split in ("train", "validation"):
        hashes = {prepared.meta.splits[split].sha256 for prepared in (one, several, given)}
        assert len(hashes) == 1
        assert one.tokens[split] == len(PackedTokens.open(tmp_path / "a", split))
    assert (one.path, one.vocab_size) == (tmp_path / "a", 300)
    assert repr(one) == (
        f"<toynn.PreparedData '{tmp_path / 'a'}': {one.documents} documents, {one.tokens['train']} train tokens, "
        f"{one.tokens['validation']} validation tokens, vocabulary 300>"
    )


def test_the_tokenizer_comes_from_a_file_a_model_or_a_path(data: Path, tmp_path: Path) -> None:
    run = toynn.train(data, tmp_path / "run", steps=1, **{**SMALL, "warmup": 0}).run
    with toynn.load(run) as model:
        model.save(tmp_path / "m.gguf")
        tokenizers: list[Any] = [data / "tokenizer.json", model, run, tmp_path / "m.gguf"]
        made = [
            toynn.prepare(documents=DOCUMENTS, out=tmp_path / f"d{i}", tokenizer=one)
            for i, one in enumerate(tokenizers)
        ]
    assert len({one.meta.splits["train"].sha256 for one in made}) == 1
    toynn.train(made[3], tmp_path / "on", init=run, steps=1, warmup=0, batch=2, progress=False)


def test_progress_can_be_a_function(tmp_path: Path) -> None:
    stages: list[str] = []
    toynn.prepare(
        documents=DOCUMENTS, out=tmp_path / "d", vocab_size=300, progress=lambda stage, *_: stages.append(stage)
    )
    assert set(stages) == {"learning", "encoding"}


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"paths": "x"}, toynn.TinyNNTypeError, "out is missing"),
        ({"out": "d"}, toynn.TinyNNTypeError, "exactly one of paths and documents must be"),
        (
            {"paths": "x", "documents": ["a"], "out": "d"},
            toynn.TinyNNTypeError,
            "exactly one of paths and documents must be",
        ),
        ({"paths": "Once upon a time", "out": "d"}, FileNotFoundError, "to give texts, use documents="),
        ({"paths": b"x", "out": "d"}, toynn.TinyNNTypeError, "paths must be a path or a sequence of paths, got bytes"),
        ({"paths": [3], "out": "d"}, toynn.TinyNNTypeError, r"paths\[0\] must be a path, got int"),
        ({"paths": [], "out": "d"}, toynn.TinyNNValueError, "at least one file"),
        ({"documents": "text", "out": "d"}, toynn.TinyNNTypeError, "documents must be an iterable of str, got str"),
        ({"documents": ["a", 3], "out": "d"}, toynn.TinyNNTypeError, r"documents\[1\] must be a str, got int"),
        ({"documents": ["\ud800"], "out": "d"}, toynn.TinyNNValueError, r"documents\[0\] is not Unicode text"),
        ({"documents": [], "out": "d"}, toynn.TinyNNValueError, "text"),
        ({"documents": ["a"], "out": "d", "vocab_size": 3}, toynn.TinyNNValueError, "vocab_size"),
        (
            {"documents": ["a"], "out": "d", "vocab_size": 300, "tokenizer": "t"},
            toynn.TinyNNValueError,
            "cannot be combined",
        ),
        ({"documents": ["a"], "out": "d", "tokenizer": "t"}, FileNotFoundError, "t does not exist"),
        ({"documents": ["a"], "out": "d", "progress": 1}, toynn.TinyNNTypeError, "progress must be"),
        ({"documents": ["a"], "out": 3}, toynn.TinyNNTypeError, "out must be a path"),
    ],
)
def test_wrong_arguments_of_prepare_are_named_and_leave_nothing(
    arguments: dict[str, Any], error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        toynn.prepare(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_tokenizer_cannot_be_used_is_refused(tmp_path: Path) -> None:
    from interop_models import make

    write_checkpoint(tmp_path / "mute", make("gqa", tokens=None))
    with pytest.raises(toynn.TinyNNValueError, match="mute has no tokenizer"):
        toynn.prepare(documents=DOCUMENTS, out=tmp_path / "d", tokenizer=tmp_path / "mute")
    write_checkpoint(tmp_path / "run", make("gqa"))
    with pytest.raises(toynn.TinyNNValueError, match=r"the given tokenizer\.json has no token '<end>'"):
        toynn.prepare(documents=DOCUMENTS, out=tmp_path / "d", tokenizer=tmp_path / "run", eos="<end>")


# ---- in a terminal ----


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_bars(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    toynn.train(data, tmp_path / "run", steps=3, **{**SMALL, "progress": True})
    assert "3/3" in terminal.getvalue()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    toynn.prepare(documents=DOCUMENTS, out=tmp_path / "d", vocab_size=300)
    assert "reading" in terminal.getvalue()
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    toynn.train(data, tmp_path / "plain", steps=3, **{**SMALL, "progress": True})
    assert "step 3/3: loss " in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue(), "plain lines without rich"
