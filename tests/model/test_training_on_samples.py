"""Training and evaluation on data made of samples count only the tokens that count for the loss."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import toynn
from commands import toynn as command
from small_runs import config
from toynn import TinyNNValueError, TrainArgs, train
from toynn.data import DataFolder
from toynn.llm.engine import LlamaDecoder
from toynn.storage.checkpoint import load_checkpoint
from toynn.training.run_log import read_log


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chats")
    records = [
        {"messages": [{"role": "user", "content": f"say {i % 7}"}, {"role": "assistant", "content": f"{i % 7} it is"}]}
        for i in range(60)
    ]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, records)))
    toynn.prepare(
        folder / "chats.jsonl", folder / "data", vocab_size=280, chat_template="chatml", validation=0.2, progress=False
    )
    return folder / "data"


@pytest.fixture(scope="module")
def run(chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("samples") / "run"
    train(TrainArgs(chats, run, config(10)))
    return run


def expected_losses(chats: Path, run: Path) -> tuple[float, int]:
    """Return the sum of the losses of the counted validation tokens, in windows of 16, and the number of tokens."""
    data, model = DataFolder.open(chats).validation, load_checkpoint(run).model
    assert data.counted is not None
    ids, nats, n = np.asarray(data.tokens, np.int32), 0.0, 0
    with LlamaDecoder(model.shape, model.weights) as decoder:
        for start in range(0, len(ids) - 1, 16):
            losses = decoder.score(ids[start : start + 17])
            marks = data.counted[start + 1 : start + 17] == 1
            nats += math.fsum(losses[marks].astype(np.float64))
            n += int(marks.sum())
    return nats, n


def test_an_evaluation_counts_only_tokens_that_count(chats: Path, run: Path) -> None:
    nats, n = expected_losses(chats, run)
    assert n < len(DataFolder.open(chats).validation) / 2
    (last,) = [event for event in read_log(run) if event["event"] == "evaluated" and event["step"] == 10]
    assert last["tokens"] == n
    assert last["loss"] == pytest.approx(nats / n, rel=1e-6)
    done = command("eval", str(run), str(chats), "--ids", "--window", "16", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["tokens"] == n
    assert shown["loss"] == pytest.approx(nats / n, rel=1e-6)


def test_a_run_gets_the_chat_template_of_its_data(run: Path) -> None:
    assert "<|im_start|>" in load_checkpoint(run).model.foreign.chat_template


def test_a_run_is_not_resumed_if_other_tokens_count(chats: Path, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    source = chats.parent / "chats.jsonl"
    toynn.prepare(
        source, tmp_path / "data", tokenizer=chats, loss="all", validation=0.2, progress=False,
    )  # fmt: skip
    one, other = DataFolder.open(chats), DataFolder.open(tmp_path / "data")
    assert np.array_equal(one.train.tokens, other.train.tokens)
    with pytest.raises(TinyNNValueError, match=r"^data: the training tokens of .* differ from those that"):
        train(TrainArgs(tmp_path / "data", copy, config(12), resume=True))
    train(TrainArgs(chats, copy, config(12), resume=True))


def test_the_answers_are_learned_but_not_the_questions(chats: Path, tmp_path: Path) -> None:
    """The first steps lower the loss of answers. The loss of the other tokens changes less."""
    run = tmp_path / "run"
    train(TrainArgs(chats, run, config(40)))
    data = DataFolder.open(chats).validation
    assert data.counted is not None
    model = load_checkpoint(run).model
    with LlamaDecoder(model.shape, model.weights) as decoder:
        losses = np.concatenate([decoder.score(np.asarray(data.tokens[at : at + 17], np.int32))
                                 for at in range(0, len(data) - 1, 16)])  # fmt: skip
    marks = data.counted[1:] == 1
    assert losses[marks].mean() < 0.85 * losses[~marks].mean()
