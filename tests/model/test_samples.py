"""Texts that the model writes at each evaluation (evaluation.prompts): in the log, the report and TensorBoard."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from small_runs import config, final_bytes, losses
from toynn import ConfigurationError, TrainArgs
from toynn.training import EvaluationArgs, trainer
from toynn.training.report import write_report
from toynn.training.run_log import read_log
from toynn.training.tensorboard import TensorBoardView

PROMPTS = ("the cat", 'a = "hen" <b>\x1b')


def trained(data: Path, run: Path, *callbacks: Any, steps: int = 10, **settings: Any) -> Path:
    evaluation = EvaluationArgs(every=5, prompts=PROMPTS, sample_tokens=8, **settings)
    toynn.train(TrainArgs(data, run, config(steps, evaluation=evaluation)), callbacks)
    return run


def test_the_log_contains_the_texts_that_the_model_of_the_step_generates(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", sample_temperature=0.5)
    evaluated = [event for event in read_log(run) if event["event"] == "evaluated"]
    assert [event["step"] for event in evaluated] == [5, 10]
    assert all(event["prompts"] == list(PROMPTS) for event in evaluated)
    with toynn.load(run) as model:
        assert evaluated[-1]["samples"] == [model.generate(one, max_tokens=8, temperature=0.5) for one in PROMPTS]


def test_the_texts_do_not_change_the_run(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run")
    plain = tmp_path / "plain"
    toynn.train(TrainArgs(data, plain, config(10, evaluation=EvaluationArgs(every=5))))
    assert losses(run) == losses(plain)
    assert final_bytes(run) == final_bytes(plain)


def test_the_report_shows_the_texts(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run")
    page = write_report(run)[-1].read_text(encoding="utf-8")
    assert "<b>a = &quot;hen&quot; &lt;b&gt;\u241b</b>" in page
    assert page.count("<b>the cat</b>") == 2
    assert "<tr><th>epochs</th><td>" in page
    toynn.train(TrainArgs(data, tmp_path / "plain", config(5)))
    assert "<h2>Texts</h2>" not in write_report(tmp_path / "plain")[-1].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompts": ("the cat " * 50,)}, r"evaluation.prompts cannot be used: the prompt has \d+ tokens, but the"),
        ({"prompts": "the cat"}, "evaluation.prompts must be a list of texts, got str"),
        ({"prompts": ["x"] * 17}, "evaluation.prompts must contain at most 16 texts, got 17"),
        ({"prompts": ["x" * 1001]}, r"evaluation.prompts\[0\] must have at most 1000 characters, got 1001"),
        ({"prompts": [3]}, r"evaluation.prompts\[0\] must be a str"),
        ({"sample_tokens": 0}, "evaluation.sample_tokens must be an integer from 1 to 1000, got 0"),
        ({"sample_temperature": -1.0}, "evaluation.sample_temperature must be a finite number, 0 or above"),
    ],
)
def test_wrong_prompts_are_refused_before_the_first_step(
    settings: dict[str, Any], says: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises((ConfigurationError, toynn.TinyNNValueError, toynn.TinyNNTypeError), match=says):
        toynn.train(TrainArgs(data, tmp_path / "run", config(5, evaluation=EvaluationArgs(**settings))))
    assert not (tmp_path / "run").exists()


def test_prompts_need_a_tokenizer_and_a_function_that_generates(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "ids.bin"
    file.write_bytes(np.tile(np.arange(20, dtype=np.int32), 50).tobytes())
    ids = toynn.prepare_ids(file, tmp_path / "ids", vocab_size=20)
    with pytest.raises(ConfigurationError, match=r"evaluation\.prompts needs data with a tokenizer, but this data has"):
        trained(Path(ids), tmp_path / "run")
    wanted = config(5, evaluation=EvaluationArgs(prompts=("a",)))
    with pytest.raises(ConfigurationError, match=r"evaluation.prompts needs a function .* use toynn.train"):
        trainer.train(TrainArgs(data, tmp_path / "run", wanted))


def test_prompts_can_be_given_by_name_and_in_toml(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[evaluation]\nprompts = ["the cat", "a"]\nsample_tokens = 3\n', encoding="utf-8")
    sizes = {
        "steps": 3,
        "d_model": 16,
        "n_heads": 2,
        "n_kv": 1,
        "d_ff": 24,
        "n_layers": 1,
        "ctx": 16,
        "progress": False,
    }
    for name, given in (("a", {"config": file}), ("b", {"prompts": ["the cat", "a"], "sample_tokens": 3})):
        toynn.train(data, tmp_path / name, **given, **sizes)  # type: ignore[call-overload]
    texts = [
        [event["samples"] for event in read_log(tmp_path / name) if event["event"] == "evaluated"] for name in "ab"
    ]
    assert texts[0] == texts[1]
    assert len(texts[0][0]) == 2


def test_tensorboard_files_contain_the_texts(data: Path, tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event as Record

    with TensorBoardView(tmp_path / "tb") as view:
        run = trained(data, tmp_path / "run", view, steps=5)
    (event,) = [event for event in read_log(run) if event["event"] == "evaluated"]
    (file,) = (tmp_path / "tb").iterdir()
    content, texts = file.read_bytes(), []
    while content:  # each record: u64 length, u32 checksum of the length, content, u32 checksum of the content
        (length,) = struct.unpack("<Q", content[:8])
        for value in Record.FromString(content[12 : 12 + length]).summary.value:
            texts += [text.decode() for text in value.tensor.string_val]
        content = content[16 + length :]
    assert texts == [prompt + text for prompt, text in zip(PROMPTS, event["samples"], strict=True)]
