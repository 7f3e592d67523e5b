"""TRL computes the same loss and figures of preference pairs as toynn."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

import toynn
from commands import output_of
from small_runs import MODEL, config
from toynn.training import EvaluationArgs, PreferenceArgs, StepArgs

transformers: Any = pytest.importorskip("transformers")
trl: Any = pytest.importorskip("trl")
datasets: Any = pytest.importorskip("datasets")
fingerprint: Any = pytest.importorskip("datasets.fingerprint")

BETA = 0.3
TRL_NAMES = {
    "eval_loss": "loss",
    "eval_rewards/chosen": "reward_chosen",
    "eval_rewards/rejected": "reward_rejected",
    "eval_rewards/margins": "reward_margin",
    "eval_rewards/accuracies": "reward_accuracy",
    "eval_logps/chosen": "logp_chosen",
    "eval_logps/rejected": "logp_rejected",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with preference pairs, and a model that was trained on the texts of the pairs."""
    folder = tmp_path_factory.mktemp("trl")
    records = [
        {"prompt": f"say {i % 9} of it:", "chosen": f" the {'old ' * (i % 4)}cat ran", "rejected": f" no {i % 5}"}
        for i in range(30)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, records)))
    toynn.prepare(folder / "pairs.jsonl", folder / "data", vocab_size=290, validation=0.3, progress=False)
    texts = [{"text": one["prompt"] + one[key]} for one in records for key in ("chosen", "rejected")]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    toynn.prepare(folder / "texts.jsonl", folder / "texts", tokenizer=folder / "data", progress=False)
    shape = dataclasses.replace(MODEL, ctx=32)
    toynn.train(folder / "texts", folder / "base", config=config(20, model=shape), progress=False)
    return folder


def pairs_of(folder: Path) -> list[dict[str, str]]:
    """Return the validation pairs in the order of the data folder."""
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    by_text = {one["prompt"] + one["chosen"] + "<|endoftext|>": one for one in map(json.loads, lines)}
    shown = output_of("data", "show", folder / "data", "--split", "validation", "-n", "1000", "--json")
    samples = [json.loads(line) for line in shown.splitlines()]
    return [by_text["".join(part["text"] for part in one["parts"])] for one in samples[::2]]


@pytest.mark.other_programs
@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_loss_and_figures_are_those_of_trl(
    loss: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label smoothing is 0 in this test, because TRL ignores its option label_smoothing for these losses."""
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    # The datasets library names cached files after hashes of objects, and cannot hash all objects of this process.
    monkeypatch.setattr(fingerprint.Hasher, "hash", classmethod(lambda *_: uuid.uuid4().hex))
    chosen = dataclasses.replace(
        config(8),
        model=None,
        train=StepArgs(steps=8, batch=4, objective="dpo"),
        dpo=PreferenceArgs(beta=BETA, loss=loss),
        evaluation=EvaluationArgs(every=0),
    )
    toynn.train(folder / "data", tmp_path / "run", init=folder / "base", config=chosen, progress=False)
    want = json.loads(output_of("eval", tmp_path / "run", folder / "data", "--ids", "--json"))
    models = {}
    for name, path in (("run", tmp_path / "run"), ("base", folder / "base")):
        with toynn.load(path) as model:
            model.save(tmp_path / f"hf-{name}", format="hf")
        models[name] = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / f"hf-{name}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf-run")
    tokenizer.pad_token = tokenizer.eos_token
    pairs = datasets.Dataset.from_list(pairs_of(folder))
    assert len(pairs) == want["pairs"]
    options: dict[str, Any] = {
        "per_device_eval_batch_size": len(pairs),
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
    }
    args = trl.DPOConfig(str(tmp_path / "out"), beta=BETA, loss_type=[loss], max_length=None, **options)
    trainer = trl.DPOTrainer(
        model=models["run"], ref_model=models["base"], args=args, train_dataset=pairs, eval_dataset=pairs,
        processing_class=tokenizer,
    )  # fmt: skip
    found = trainer.evaluate()
    got = {ours: found[theirs] for theirs, ours in TRL_NAMES.items()}
    assert got == pytest.approx({name: want[name] for name in got}, rel=2e-5, abs=2e-6)
