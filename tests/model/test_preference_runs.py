"""Runs on preference pairs: `toynn prepare`, the reference model, rewards, resuming, adapters, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import toynn
from commands import toynn as command
from preference_pairs import make_pairs, pair_records, write_lines
from small_runs import MODEL, config, evaluations, losses
from toynn import ConfigurationError, FileFormatError, TinyNNValueError, TrainArgs, train
from toynn.api.plain_progress import PlainProgress
from toynn.data import DataFolder, load_meta
from toynn.data.pairs import PairBatcher
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.llm.engine import LlamaDecoder
from toynn.model.weights import ADAPTER_B
from toynn.serve.watch_data import watch_data
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import (
    AdapterArgs,
    DivergedError,
    Ended,
    Evaluated,
    EvaluationArgs,
    Event,
    PreferenceArgs,
    ReferenceProgress,
    Saved,
    Started,
    StepArgs,
    Stepped,
    StopTraining,
    TrainConfig,
)
from toynn.training.report import write_report
from toynn.training.run_log import read_log

BETA = 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, texts with the same tokenizer, and a model that was trained on the texts."""
    folder = tmp_path_factory.mktemp("pairs")
    make_pairs(folder)
    return folder


def of_pairs(steps: int = 6, batch: int = 2, accumulate: int = 2, **sections: Any) -> TrainConfig:
    train = StepArgs(steps=steps, batch=batch, accumulate=accumulate, objective="dpo")
    given = {"dpo": PreferenceArgs(beta=BETA), "evaluation": EvaluationArgs(every=3), **sections}
    return dataclasses.replace(config(steps), model=None, train=train, **given)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    toynn.train(folder / "data", run, init=folder / "base", config=of_pairs(), progress=False)
    return run


def content(run: Path) -> dict[str, bytes]:
    """Return the files of the latest checkpoint, and the files with the log-probabilities of the reference model."""
    files = [*load_checkpoint(run).path.iterdir(), run / "reference.json", run / "reference.bin"]
    return {file.name: file.read_bytes() for file in files}


def log_probs(model: Any, split: Any) -> np.ndarray[Any, Any]:
    """Return the log-probability of each sequence of a split, computed one by one."""
    starts, found = [*split.starts.tolist(), len(split)], []
    with LlamaDecoder(model.shape, model.weights) as decoder:
        for first, end in itertools.pairwise(starts):
            nats = decoder.score(np.asarray(split.tokens[first:end], np.int32)).astype(np.float64)
            found.append(-math.fsum(nats[split.counted[first + 1 : end] == 1]))
    return np.array(found)


# ---- what a run computes ----


def test_the_reference_is_the_model_at_the_start(folder: Path, run: Path) -> None:
    data, base = DataFolder.open(folder / "data"), load_checkpoint(folder / "base").model
    stored = np.fromfile(run / "reference.bin", dtype="<f8")
    want = np.concatenate([log_probs(base, data.train), log_probs(base, data.validation)])
    np.testing.assert_allclose(stored, want, rtol=1e-12)
    first = next(event for event in read_log(run) if event["event"] == "stepped")
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert (first["reward_margin"], first["reward_accuracy"]) == (0, 0)


def test_an_evaluation_has_the_figures_of_the_validation_pairs(folder: Path, run: Path) -> None:
    data, model = DataFolder.open(folder / "data").validation, load_checkpoint(run).model
    now, before = log_probs(model, data), log_probs(load_checkpoint(folder / "base").model, data)
    rewards = BETA * (now - before)
    margins = rewards[::2] - rewards[1::2]
    want = {
        "loss": np.mean(np.log1p(np.exp(-margins))),
        "reward_chosen": rewards[::2].mean(),
        "reward_rejected": rewards[1::2].mean(),
        "reward_margin": margins.mean(),
        "reward_accuracy": (margins > 0).mean(),
        "logp_chosen": now[::2].mean(),
        "logp_rejected": now[1::2].mean(),
    }
    (last,) = [event for event in read_log(run) if event["event"] == "evaluated" and event["step"] == 6]
    assert {name: last[name] for name in want} == pytest.approx(want, rel=1e-5)
    assert last["perplexity"] is None
    assert last["bits_per_byte"] is None
    assert want["reward_margin"] > 0.02
    done = command("eval", str(run), str(folder / "data"), "--ids", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx({"pairs": len(margins), **want}, rel=1e-5)
    shown = command("eval", str(run), str(folder / "data"), "--ids")
    assert f"reward margin    {margins.mean():.4f}" in shown.stdout
    refused = command("eval", str(folder / "base"), str(folder / "data"), "--ids")
    assert refused.returncode != 0
    assert (
        "stores no log-probabilities of a reference model for these pairs; name the model with --reference"
        in refused.stderr
    )
    given = command("eval", str(run), str(folder / "data"), "--ids", "--reference", str(run), "--json")
    assert json.loads(given.stdout)["reward_margin"] == 0


def test_batches_do_not_change_a_bit(folder: Path, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    toynn.train(folder / "data", other, init=folder / "base", config=of_pairs(batch=4, accumulate=1), progress=False)
    assert losses(other) == losses(run)
    assert evaluations(other) == evaluations(run)
    ours, theirs = content(other), content(run)
    for name in ("weights.safetensors", "moments.safetensors", "reference.bin"):
        assert ours[name] == theirs[name]


def test_a_resumed_run_reaches_the_same_bytes(folder: Path, run: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"

    def stop(event: Any) -> None:
        if isinstance(event, Stepped) and event.step == 4:
            raise StopTraining

    args = TrainArgs(folder / "data", part, of_pairs(), init=folder / "base")
    toynn.train(args, callbacks=[stop])
    moved = tmp_path / "moved"
    shutil.move(part, moved)
    toynn.train(TrainArgs(folder / "data", moved, of_pairs(), resume=True))
    assert content(moved) == content(run)
    assert losses(moved) == losses(run)


def test_a_killed_run_uses_the_reference_that_it_stored(folder: Path, run: Path, tmp_path: Path) -> None:
    """The process kills itself before the first checkpoint. The same command then starts again."""
    out = tmp_path / "run"
    program = (
        "import os, signal, sys, toynn\n"
        "from toynn.training.saving import Saver\n"
        "Saver.save = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.argv = ['toynn', *sys.argv[1:]]\n"
        "from toynn.cli.start import main\n"
        "main()\n"
    )
    settings = tmp_path / "run.toml"
    settings.write_text((run / "run.toml").read_text())
    arguments = ["train", str(folder / "data"), "--init", str(folder / "base"), "--out", str(out)]
    command_line = [*arguments, "--config", str(settings)]
    killed = subprocess.run([sys.executable, "-c", program, *command_line], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr
    before = (out / "reference.bin").stat().st_mtime_ns
    done = command(*command_line)
    assert done.returncode == 0, done.stderr
    assert (out / "reference.bin").stat().st_mtime_ns == before
    assert content(out) == content(run)


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(bytes(16)), Path.unlink], ids=["other", "missing"])
def test_a_run_without_checkpoints_computes_a_reference_again_that_a_kill_left_incomplete(
    folder: Path, run: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """A process that is killed between writing the two files leaves numbers that reference.json does not describe."""
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    for name in ("reference.json", "reference.bin"):
        shutil.copy(run / name, out)
    change(out / "reference.bin")
    toynn.train(TrainArgs(folder / "data", out, of_pairs(), init=folder / "base"))
    assert content(out) == content(run)


def test_with_an_adapter_the_base_is_the_reference(folder: Path, run: Path, tmp_path: Path) -> None:
    adapter = AdapterArgs(rank=2, alpha=8.0)
    chosen = of_pairs(adapter=adapter)
    toynn.train(folder / "data", tmp_path / "one", base=folder / "base", config=chosen, progress=False)
    assert (tmp_path / "one" / "reference.bin").read_bytes() == (run / "reference.bin").read_bytes()
    found = [event["reward_margin"] for event in read_log(tmp_path / "one") if event["event"] == "evaluated"]
    assert found[-1] > found[0] > 0
    toynn.train(
        folder / "data", tmp_path / "two", init=tmp_path / "one", config=of_pairs(adapter=adapter), progress=False
    )
    assert (tmp_path / "two" / "reference.bin").read_bytes() == (run / "reference.bin").read_bytes()
    first = next(event for event in read_log(tmp_path / "two") if event["event"] == "stepped")
    assert first["reward_margin"] > 0.02  # the adapter that the run continues has changed the log-probabilities
    contents = load_checkpoint(tmp_path / "one").contents
    assert isinstance(contents, ModelOnBase)
    trained = contents.adapter
    assert trained is not None
    assert any(np.any(values) for name, values in trained.tensors.items() if name.endswith(ADAPTER_B))
    done = command("eval", str(tmp_path / "one"), str(folder / "data"), "--ids", "--json")
    assert json.loads(done.stdout)["reward_margin"] == pytest.approx(found[-1], rel=1e-6)


def test_the_report_has_the_figures_of_pairs(run: Path) -> None:
    write_report(run)
    page = (run / "report.html").read_text()
    (last,) = [event for event in read_log(run) if event["event"] == "evaluated" and event["step"] == 6]
    assert "<h2>Preference pairs</h2>" in page
    for name in ("Rewards", "Margins", "Accuracy"):
        assert f'<img alt="{name} by step" src="data:image/png;base64,' in page
    for name in ("reward_margin", "reward_accuracy", "logp_chosen"):
        assert f"<th>{name.replace('_', ' ')}</th>" in page
        assert f'<td class="n">{last[name]:.4f}</td>' in page


def test_the_page_of_watch_has_the_rewards(run: Path) -> None:
    events = read_log(run)
    found = watch_data(events)
    for name in ("reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy"):
        for curve, kind in ((name, "stepped"), (f"validation_{name}", "evaluated")):
            points = [[event["step"], event[name]] for event in events if event["event"] == kind]
            assert len(points) > 1
            assert found["curves"][curve] == points
    last = [event for event in events if event["event"] == "stepped"][-1]
    assert found["figures"]["reward_margin"] == last["reward_margin"]
    assert found["figures"]["reward_accuracy"] == last["reward_accuracy"]


def test_the_progress_of_the_reference_is_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Event] = []
    args = TrainArgs(folder / "data", tmp_path / "run", of_pairs(1), init=folder / "base")
    train(args, [seen.append, PlainProgress()])
    kinds = [type(event) for event in seen]
    reports = [event for event in seen if isinstance(event, ReferenceProgress)]
    assert [report.done for report in reports] == [*range(2, len(reports) * 2, 2), 40]
    assert {report.pairs for report in reports} == {40}
    assert kinds == [Started, *[ReferenceProgress] * len(reports), Saved, Stepped, Evaluated, Saved, Ended]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reference")]
    assert lines == [f"reference: {done} of 40 pairs" for done in range(4, 44, 4)]
    assert {event["event"] for event in read_log(tmp_path / "run")} == {
        "started", "saved", "stepped", "evaluated", "ended",
    }  # fmt: skip
    seen.clear()
    toynn.train(folder / "data", tmp_path / "run", resume=True, steps=2, progress=False, callbacks=[seen.append])
    assert Stepped in map(type, seen)
    assert ReferenceProgress not in map(type, seen)


def test_a_start_note_says_how_full_the_windows_of_pairs_are(folder: Path, run: Path) -> None:
    data = DataFolder.open(folder / "data")
    assert data.train.starts is not None
    lengths = np.diff(data.train.starts, append=len(data.train)) - 1
    assert data.validation.starts is not None
    validation = np.diff(data.validation.starts, append=len(data.validation)) - 1
    t_seq = max(*lengths, *validation)
    (started,) = [event for event in read_log(run) if event["event"] == "started"]
    full = lengths.sum() / (t_seq * lengths.size)
    note = f"each training pair has two windows of {t_seq} tokens; the windows are {full:.1%} full on average"
    assert note in started["notes"]


def test_each_evaluation_has_the_loss_of_the_pairs_of_each_source(folder: Path, tmp_path: Path) -> None:
    lines = pair_records(50)
    sources = [write_lines(tmp_path / "a.jsonl", lines[:20]), write_lines(tmp_path / "b.jsonl", lines[20:49]),
               write_lines(tmp_path / "c.jsonl", lines[49:])]  # fmt: skip
    toynn.prepare(sources, tmp_path / "data", tokenizer=folder / "data", validation=0.3, progress=False)
    out = tmp_path / "run"
    toynn.train(tmp_path / "data", out, init=folder / "base", config=of_pairs(steps=12), progress=False)
    data, model = DataFolder.open(tmp_path / "data"), load_checkpoint(out).model
    before = load_checkpoint(folder / "base").model
    change = BETA * (log_probs(model, data.validation) - log_probs(before, data.validation))
    pair_losses = np.log1p(np.exp(-(change[::2] - change[1::2])))
    tokens = data.meta.splits["validation"].source_tokens
    assert tokens is not None
    assert data.validation.starts is not None
    source = np.searchsorted(np.cumsum(tokens), data.validation.starts[::2], side="right")
    *_, last = [event for event in read_log(out) if event["event"] == "evaluated"]
    assert last["sources"] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert {0, 1} <= set(source)
    for number, loss in enumerate(last["source_losses"]):
        own = pair_losses[source == number]
        assert loss == (pytest.approx(own.mean(), rel=1e-5) if own.size else None)
    # the 48 pairs of the loop below are more than an epoch
    pairs, order = PairBatcher(data.train, 32, of_pairs().train.seed), np.zeros(3, dtype=np.int64)
    of_sources = data.meta.splits["train"].source_tokens
    assert of_sources is not None
    borders = np.cumsum(of_sources)
    assert data.train.starts is not None
    ends = [*data.train.starts[2::2], len(data.train)]
    for number in pairs.numbers(0, 48):
        first = data.train.starts[2 * number]
        order[np.searchsorted(borders, first, side="right")] += ends[number] - first
    assert last["source_tokens"] == order.tolist()
    write_report(out)
    page = (out / "report.html").read_text()
    assert f'<tr><td>b.jsonl</td><td class="n">{last["source_losses"][1]:.4f}</td>' in page


def test_a_divergence_names_a_tensor_of_the_graph_of_pairs(folder: Path, tmp_path: Path) -> None:
    """The loss of the next token is finite. The loss of the pairs is not finite, because 1 / beta is huge."""
    chosen = of_pairs(dpo=PreferenceArgs(beta=1e-30, loss="ipo"))
    with pytest.raises(DivergedError, match=r"the loss is inf; the first tensor with NaN or infinity is the loss\."):
        toynn.train(folder / "data", tmp_path / "run", init=folder / "base", config=chosen, progress=False)
    assert load_checkpoint(tmp_path / "run").step == 0


# ---- refused arguments ----


def test_a_resumed_run_needs_its_reference(folder: Path, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    again = TrainArgs(folder / "data", copy, of_pairs(8), resume=True)
    numbers = copy / "reference.bin"
    kept = numbers.read_bytes()
    numbers.write_bytes(kept[:-8] + bytes(8))
    with pytest.raises(
        FileFormatError, match=r"reference\.bin is damaged: its [0-9]+ bytes do not have the size and the SHA-256"
    ):
        toynn.train(again)
    numbers.unlink()
    with pytest.raises(FileFormatError, match=r"reference\.bin is missing"):
        toynn.train(again)
    (copy / "reference.json").unlink()
    with pytest.raises(FileFormatError, match=r"reference\.json is missing, so the run cannot be resumed"):
        toynn.train(again)
    other = tmp_path / "other"
    toynn.train(folder / "data", other, init=run, config=of_pairs(1), progress=False)
    for name in ("reference.json", "reference.bin"):
        shutil.copy(other / name, copy / name)
    with pytest.raises(FileFormatError, match=r"has the SHA-256 .*, but must have the SHA-256 .*, as at the start"):
        toynn.train(again)


def test_objective_and_data_must_fit(folder: Path, tmp_path: Path) -> None:
    def refused(data: str, message: str, chosen: TrainConfig, **options: Any) -> None:
        with pytest.raises(ConfigurationError, match=message):
            toynn.train(folder / data, tmp_path / "run", config=chosen, progress=False, **options)
        assert not (tmp_path / "run").exists()

    base = {"init": folder / "base"}
    plain = dataclasses.replace(config(2), model=None)
    refused("data", 'train.objective must be "dpo" for .*, which contains preference pairs', plain, **base)
    refused("texts", 'train.objective must be "next_token" for .* contains no preference pairs', of_pairs(), **base)
    refused("data", 'train.objective = "dpo" needs a model to start from', of_pairs())
    short = dataclasses.replace(of_pairs(), train=dataclasses.replace(of_pairs().train, t_seq=5))
    refused("data", r"train.t_seq = 5 is too small: the longest .* prepare the pairs with max_tokens=6", short, **base)
    for wrong in ({"beta": 0}, {"loss": "kto"}, {"label_smoothing": 0.5}, {"loss": "ipo", "label_smoothing": 0.1}):
        with pytest.raises(ConfigurationError, match=rf"^dpo\.{next(reversed(wrong))}"):
            PreferenceArgs(**wrong)
    with pytest.raises(ConfigurationError, match=r'the settings in the section dpo need train\.objective = "dpo"'):
        TrainConfig(dpo=PreferenceArgs(beta=0.2))


def test_pairs_longer_than_the_context_are_refused(folder: Path, tmp_path: Path) -> None:
    shape = dataclasses.replace(MODEL, ctx=8)
    toynn.train(folder / "texts", tmp_path / "base", config=config(2, model=shape), progress=False)
    with pytest.raises(ConfigurationError, match=r"must be at most model.ctx = 8; prepare the pairs with max_tokens=9"):
        toynn.train(folder / "data", tmp_path / "run", init=tmp_path / "base", config=of_pairs(), progress=False)
    source = folder / "pairs.jsonl"
    toynn.prepare(source, tmp_path / "data", tokenizer=folder / "data", max_tokens=9, progress=False)
    toynn.train(tmp_path / "data", tmp_path / "run", init=tmp_path / "base", config=of_pairs(2), progress=False)
    assert load_checkpoint(tmp_path / "run").step == 2


# ---- prepare ----


def prepared(folder: Path, tmp_path: Path, lines: list[Any], **options: Any) -> DataFolder:
    source = write_lines(tmp_path / "some.jsonl", lines)
    toynn.prepare(source, tmp_path / "data", tokenizer=folder / "data", validation=0, progress=False, **options)
    return DataFolder.open(tmp_path / "data")


def shown(data: DataFolder) -> list[tuple[str, str]]:
    """Return the text of each sequence: the part before the first token that counts, and the rest."""
    assert data.train.starts is not None
    assert data.train.counted is not None
    assert data.tokenizer is not None
    model = Tokenizer.from_str(data.tokenizer.decode())
    found = []
    for first, end in zip(data.train.starts, [*data.train.starts[1:], len(data.train)], strict=True):
        at = int(first) + int(np.argmax(data.train.counted[first:end]))
        assert data.train.counted[at:end].all()
        parts = (data.train.tokens[first:at], data.train.tokens[at:end])
        prompt, continuation = (model.decode(part.tolist(), skip_special_tokens=False) for part in parts)
        found.append((prompt, continuation))
    return found


def test_a_pair_is_read_in_each_of_its_forms(folder: Path, tmp_path: Path) -> None:
    end = "<|endoftext|>"
    data = prepared(folder, tmp_path, [
        {"prompt": "say 1. ", "chosen": "the cat", "rejected": "no"},
        {"chosen": "say 2. the dog", "rejected": "say 2. no"},
    ])  # fmt: skip
    assert data.meta.pairs
    assert [a + b for a, b in shown(data)] == [
        f"say 1. the cat{end}", f"say 1. no{end}", f"say 2. the dog{end}", f"say 2. no{end}",
    ]  # fmt: skip
    assert [b for _, b in shown(data)] == [f" the cat{end}", f" no{end}", f" the dog{end}", f" no{end}"]
    assert data.meta.sources[0].samples is not None
    assert data.meta.sources[0].samples.samples == 2


def test_conversations_are_rendered_with_the_chat_template(folder: Path, tmp_path: Path) -> None:
    question, good, bad = said("user", "say 3"), said("assistant", "the hen"), said("assistant", "no")
    data = prepared(folder, tmp_path, [
        {"prompt": [question], "chosen": [good], "rejected": [bad]},
        {"chosen": [question, good], "rejected": [question, bad]},
        {"prompt": "say 3", "chosen": [question, good], "rejected": [question, bad], "messages": [question, good]},
    ], chat_template="chatml")  # fmt: skip
    start = "<|im_start|>user\nsay 3<|im_end|>\n<|im_start|>assistant\n"
    assert shown(data) == [(start, "the hen<|im_end|>\n"), (start, "no<|im_end|>\n")] * 3


def test_hostile_pairs_are_refused_or_counted(folder: Path, tmp_path: Path) -> None:
    good = pair_records(2)
    for wrong, message in (
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "'chosen' must have text or messages after the prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, "'rejected' must have text or messages after the prompt"),
        ({"chosen": "a b", "rejected": ["a"]}, "'rejected' must be a text"),
        ({"prompt": [], "chosen": [{"role": "user", "content": "b"}], "rejected": [{"role": "user", "content": "c"}]},
         "prompt must contain at least one message"),
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "'chosen' must be a list"),
    ):  # fmt: skip
        with pytest.raises(FileFormatError, match=rf"line 3: {message}"):
            prepared(folder, tmp_path, [*good, wrong])
        data = prepared(folder, tmp_path, [*good, wrong], skip_bad=1)
        assert data.meta.sources[0].samples is not None
        assert (data.meta.sources[0].samples.samples, data.meta.sources[0].samples.skipped) == (2, 1)
        shutil.rmtree(tmp_path / "data")
    notes: list[str] = []
    lines = [*good, {"prompt": "a ", "chosen": "the cat", "rejected": "the cat"},
             {"prompt": "say ", "chosen": "the cat ran home " * 4, "rejected": "no"},
             {"prompt": "say the cat ran home " * 3, "chosen": "the cat", "rejected": "no"}]  # fmt: skip
    with pytest.warns(UserWarning, match="sample was left out") as warned:
        data = prepared(folder, tmp_path, lines, max_tokens=18)
    notes = [str(one.message) for one in warned]
    assert any("chosen and rejected have the same tokens" in one for one in notes)
    assert any("too many tokens" in one for one in notes)
    counts = data.meta.sources[0].samples
    assert counts is not None
    assert (counts.samples, counts.dropped, counts.truncated, counts.longest) == (3, 2, 1, 18)
    pairs = shown(data)
    assert pairs[4][0] == pairs[5][0]  # chosen and rejected begin with the same shortened prompt
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(TinyNNValueError, match="loss must be assistant for preference pairs, got all"):
        prepared(folder, tmp_path, good, loss="all")
    with pytest.raises(
        TinyNNValueError, match="for the train split: 2 samples were left out because they have too many"
    ):
        prepared(folder, tmp_path, good, max_tokens=3, truncate="drop")


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_long_pairs_lose_their_oldest_turns(folder: Path, tmp_path: Path) -> None:
    turns = [
        said("system", "be kind"),
        *(said(role, f"{role} {i}") for i in range(3) for role in ("user", "assistant")),
    ]
    talk, good, bad = turns[:-1], said("assistant", "the hen ran home"), said("assistant", "no")
    line = {"prompt": talk, "chosen": [good], "rejected": [bad]}
    (whole, other) = shown(prepared(folder, tmp_path, [line], chat_template="chatml"))
    counts = load_meta(tmp_path / "data").sources[0].samples
    assert counts is not None
    longest = counts.longest
    assert whole[0] == other[0]
    for most, first in ((longest, 0), (longest - 1, 1), (longest // 2 + 4, 2)):
        shutil.rmtree(tmp_path / "data")
        data = prepared(folder, tmp_path, [line], chat_template="chatml", max_tokens=most, truncate="turns")
        start = whole[0].index("<|im_start|>user\nuser 0")
        kept = whole[0][:start] + whole[0][whole[0].index(f"<|im_start|>user\nuser {first}") :]
        assert shown(data) == [(kept, "the hen ran home<|im_end|>\n"), (kept, "no<|im_end|>\n")]
        found = data.meta.sources[0].samples
        assert found is not None
        assert (found.truncated, found.longest <= most) == (int(first > 0), True)
    shutil.rmtree(tmp_path / "data")
    texts = {"prompt": "say the cat ran home " * 3, "chosen": "the cat", "rejected": "no"}
    with pytest.warns(UserWarning, match="1 sample was left out because it has too many tokens"):
        data = prepared(folder, tmp_path, [texts, *pair_records(1)], max_tokens=18, truncate="turns")
    assert len(shown(data)) == 2


def test_commands_count_pairs(folder: Path, tmp_path: Path) -> None:
    words = ("prepare", str(folder / "pairs.jsonl"), "--tokenizer", str(folder / "data"), "--out")
    done = command(*words, str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    assert "pairs      40\n" in done.stdout
    assert "documents" not in done.stdout
    assert json.loads(command(*words, str(tmp_path / "again"), "--json").stdout)["documents"] == 40
    assert "pairs       40\n" in command("info", str(tmp_path / "data")).stdout
    headings = [line.split(":")[0] for line in command("data", "show", str(tmp_path / "data")).stdout.splitlines()
                if line.startswith("---")]  # fmt: skip
    assert headings == [f"--- sample {i} (pair {i // 2}, {('chosen', 'rejected')[i % 2]})" for i in range(3)]
    with pytest.raises(TinyNNValueError, match="the only sample cannot be divided"):
        toynn.prepare(write_lines(tmp_path / "one.jsonl", pair_records(1)), tmp_path / "one", tokenizer=folder / "data")
    assert repr(toynn.prepare(folder / "pairs.jsonl", tmp_path / "c", tokenizer=folder / "data", progress=False)).count(
        "40 preference pairs,") == 1  # fmt: skip


def test_pairs_and_other_samples_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    sources = [write_lines(tmp_path / "pairs.jsonl", pair_records(4)), folder / "texts.jsonl"]
    with pytest.raises(TinyNNValueError, match="some files contain preference pairs and others do not"):
        toynn.prepare(sources, tmp_path / "data", tokenizer=folder / "data", progress=False)
