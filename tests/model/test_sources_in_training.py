"""Data with several sources: each evaluation has the loss of each source, and the number of tokens of each source read
so far.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from small_runs import MODEL, evaluations, final_bytes, losses
from small_runs import config as small_config
from toynn import FileFormatError, TrainArgs, train
from toynn.api.plain_progress import PlainProgress
from toynn.data import DataFolder, load_meta
from toynn.llm.engine import LlamaDecoder, LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.serve.watch_data import watch_data
from toynn.storage.checkpoint import load_checkpoint
from toynn.text.tokenizer_json import load_tokenizer
from toynn.training import DataArgs, Evaluated, EvaluationArgs, Event, TrainConfig
from toynn.training.evaluation import Validation
from toynn.training.logged_figures import figures_of
from toynn.training.report import write_report
from toynn.training.run_log import read_log
from toynn.training.sources import distinct

T, STEPS = MODEL.ctx, 90


def config(steps: int, **sections: Any) -> TrainConfig:
    """Return a configuration in which windows can begin and end inside samples."""
    return small_config(steps, data=DataArgs(document_attention=False), **sections)


def write_chats(path: Path, n: int, word: str) -> Path:
    records = [
        {"messages": [{"role": "user", "content": f"say {i % 7}"}, {"role": "assistant", "content": f"{word} {i % 7}"}]}
        for i in range(n)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with three sources.

    Two sources have the same name. The validation split has no sample of the last source.
    """
    folder = tmp_path_factory.mktemp("sources")
    files = [write_chats(folder / "a" / "chats.jsonl", 30, "yes"), write_chats(folder / "b" / "chats.jsonl", 25, "no"),
             write_chats(folder / "one.jsonl", 1, "never")]  # fmt: skip
    toynn.prepare(files, folder / "data", vocab_size=280, chat_template="chatml", validation=0.25, weights=[1, 2.5, 3],
                  progress=False)  # fmt: skip
    return folder / "data"


@pytest.fixture(scope="module")
def run(chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(TrainArgs(chats, run, config(STEPS)))
    return run


def source_of_each_token(data: Path, split: str) -> np.ndarray[Any, Any]:
    """Return the number of the source of each token, found by the words of the answers."""
    folder = DataFolder.open(data)
    packed = getattr(folder, split)
    assert packed.starts is not None
    assert folder.tokenizer is not None
    tokenizer = load_tokenizer(folder.tokenizer, "data")
    ends, found = [*packed.starts[1:], len(packed)], []
    for start, end in zip(packed.starts, ends, strict=True):
        text = tokenizer.decode(packed.tokens[start:end].tolist(), skip_special_tokens=False)
        found += [next(i for i, word in enumerate(("yes", "no", "never")) if f"{word} " in text)] * int(end - start)
    return np.array(found)


def test_meta_json_counts_the_tokens_of_each_source(chats: Path) -> None:
    meta = load_meta(chats)
    for name, split in meta.splits.items():
        of_tokens = source_of_each_token(chats, name)
        assert split.source_tokens == np.bincount(of_tokens, minlength=3).tolist()
        assert list(of_tokens) == sorted(of_tokens)
    assert meta.splits["validation"].source_tokens is not None
    assert meta.splits["validation"].source_tokens[2] == 0


def test_plain_texts_are_sources_too_and_one_source_is_not_counted(tmp_path: Path) -> None:
    texts = [tmp_path / f"{name}.txt" for name in ("one", "none", "three")]
    texts[0].write_text("a cat saw a dog\n<|endoftext|>\nthe hen ran home\n" * 3, encoding="utf-8")
    texts[1].write_text("", encoding="utf-8")
    texts[2].write_text("an owl sat\n<|endoftext|>\nthe moon was red\n" * 4, encoding="utf-8")
    for count, files in ((3, texts), (1, texts[:1])):
        meta = toynn.prepare(files, tmp_path / f"data{count}", vocab_size=270, validation=0.3, progress=False).meta
        alone = [toynn.prepare(one, tmp_path / f"{one.stem}{count}", tokenizer=tmp_path / f"data{count}", validation=0,
                               progress=False).tokens["train"] for one in files if one.stat().st_size]  # fmt: skip
        counts = [split.source_tokens for split in meta.splits.values()]
        if count == 1:
            assert counts == [None, None]
            assert "source_tokens" not in (tmp_path / "data1" / "meta.json").read_text()
        else:
            sums = [a + b for a, b in zip(*[one or [] for one in counts], strict=True)]
            assert sums == [alone[0], 0, alone[1]]


def test_each_evaluation_has_the_loss_of_each_source(chats: Path, run: Path) -> None:
    data, model = DataFolder.open(chats).validation, load_checkpoint(run).model
    assert data.counted is not None
    ids, sources = np.asarray(data.tokens, np.int32), source_of_each_token(chats, "validation")
    nats: list[list[float]] = [[], [], []]
    with LlamaDecoder(model.shape, model.weights) as decoder:
        for start in range(0, len(ids) - 1, T):
            for at, loss in enumerate(decoder.score(ids[start : start + T + 1]), start + 1):
                if data.counted[at]:
                    nats[sources[at]].append(float(loss))
    last = [event for event in read_log(run) if event["event"] == "evaluated"][-1]
    assert last["step"] == STEPS
    assert last["sources"] == ["chats.jsonl", "chats.jsonl 2", "one.jsonl"]
    *found, never = last["source_losses"]
    assert never is None
    assert found == pytest.approx([math.fsum(one) / len(one) for one in nats[:2]], rel=1e-5)
    whole = sum(loss * len(one) for loss, one in zip(found, nats, strict=False)) / sum(map(len, nats))
    assert whole == pytest.approx(last["loss"], rel=1e-6)
    for batch in (1, 3, 16):
        with LlamaSeqEngine() as engine:
            engine.realize(model.shape, RecipeOptions(T, batch, layout="fused"), model.weights)
            whole_split = Validation(data, T, batch, 0).loss(engine)
            assert (whole_split.mean, *whole_split.of_sources) == (last["loss"], *found, None)
            part = Validation(data, T, batch, 3)
            assert part.loss(engine).of_sources[1:] == (None, None)
            assert part.loss(engine).of_sources[0] == part.loss(engine).mean


def test_the_tokens_read_are_those_of_the_windows_of_the_steps(chats: Path, run: Path, tmp_path: Path) -> None:
    sources, data = source_of_each_token(chats, "train"), DataFolder.open(chats).train
    windows = toynn.data.WindowBatcher(data.tokens, T, 0, data.counted)
    for event in (one for one in read_log(run) if one["event"] == "evaluated"):
        starts = [windows.start_of(i) for i in range(2 * event["step"])]
        expected = np.bincount(np.concatenate([sources[at : at + T] for at in starts]), minlength=3)
        assert event["source_tokens"] == expected.tolist()
        assert sum(event["source_tokens"]) == event["step"] * 2 * T
    assert windows.windows_per_epoch < STEPS * 2, "the run must read more than one epoch"
    resumed = tmp_path / "run"
    train(TrainArgs(chats, resumed, config(20)))
    train(TrainArgs(chats, resumed, config(STEPS), resume=True))
    for path in (run, resumed):
        (last,) = [one for one in read_log(path) if one["event"] == "evaluated" and one["step"] == STEPS]
        assert last["source_tokens"] == event["source_tokens"]


def test_a_validation_split_without_counted_tokens_is_noted(chats: Path, tmp_path: Path) -> None:
    train(TrainArgs(chats, tmp_path / "run", config(2, evaluation=EvaluationArgs(every=1, windows=1))))
    events = read_log(tmp_path / "run")
    assert "evaluated" not in [event["event"] for event in events]
    (note,) = events[0]["notes"]
    assert note.startswith(
        "no token of the first validation window counts for the loss, so the model is never evaluated"
    )


def test_data_folders_without_these_counts_give_the_same_run(chats: Path, run: Path, tmp_path: Path) -> None:
    meta = json.loads((chats / "meta.json").read_text())
    older = tmp_path / "data"
    older.mkdir()
    for path in chats.iterdir():
        (older / path.name).write_bytes(path.read_bytes())
    for split in meta["splits"].values():
        del split["source_tokens"]
    (older / "meta.json").write_text(json.dumps(meta))
    train(TrainArgs(older, tmp_path / "run", config(STEPS)))
    assert (losses(tmp_path / "run"), evaluations(tmp_path / "run")) == (losses(run), evaluations(run))
    assert final_bytes(tmp_path / "run") == final_bytes(run)
    assert {json.dumps(one["sources"]) for one in read_log(tmp_path / "run") if one["event"] == "evaluated"} == {"[]"}
    meta["splits"]["train"]["source_tokens"] = [1, 2]
    (older / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(FileFormatError, match=r"the sum of source_tokens must be \d+ \(the number of tokens\), got 3"):
        load_meta(older)
    meta["splits"]["train"]["source_tokens"] = [meta["splits"]["train"]["tokens"]]
    (older / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(FileFormatError, match=r"source_tokens must have 3 numbers, one for each source, got 1"):
        load_meta(older)


def test_console_report_page_and_loggers_show_the_sources(
    chats: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Event] = []
    train(TrainArgs(chats, tmp_path / "run", config(3)), [PlainProgress(), seen.append])
    last = [event for event in read_log(run) if event["event"] == "evaluated"][-1]
    (event,) = [one for one in seen if isinstance(one, Evaluated)]
    first, second, _ = event.source_losses
    shown = f"step 3: validation by source: chats.jsonl {first:.4f}, chats.jsonl 2 {second:.4f}, one.jsonl -\n"
    assert shown in capsys.readouterr().err
    figures = figures_of(event)
    assert figures["validation/loss of chats.jsonl 2"] == second
    assert figures["train/tokens of one.jsonl"] > 0
    assert "validation/loss of one.jsonl" not in figures
    write_report(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    read, losses_read = last["source_tokens"], last["source_losses"]
    assert f'<tr><td>chats.jsonl 2</td><td class="n">{losses_read[1]:.4f}</td>' in page
    assert f'<tr><td>one.jsonl</td><td class="n">-</td><td class="n">-</td><td class="n">{read[2]:,}</td></tr>' in page
    assert page.count("data:image/png;base64,") == 4
    assert f"<th>tokens read</th><td>{STEPS * 2 * T:,}</td>" in page
    assert f"<th>epochs</th><td>{STEPS * 2 / (len(DataFolder.open(chats).train) // T):.2f}</td>" in page
    assert watch_data(read_log(run))["sources"] == [
        {"name": name, "loss": loss, "tokens": tokens}
        for name, loss, tokens in zip(last["sources"], losses_read, read, strict=True)
    ]


@pytest.mark.quick
def test_names_of_sources_are_distinct() -> None:
    assert distinct(["a", "b", "a", "a 2", "a"]) == ("a", "b", "a 2", "a 2 2", "a 3")
