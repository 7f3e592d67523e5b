"""The tokens that count are those from which TRL's trainer learns, with `assistant_only_loss` and with completions."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from chat_templates import CONVERSATIONS, TEMPLATES
from toynn.data import DataFolder
from training_tokenizers import byte_level_tokenizer

trl: Any = pytest.importorskip("trl")
pyarrow: Any = pytest.importorskip("pyarrow")
datasets: Any = pytest.importorskip("datasets")
transformers: Any = pytest.importorskip("transformers")
pytestmark = pytest.mark.other_programs

# Templates that TRL ships for training.
SHIPPED = ("qwen2_5", "qwen3", "llama3", "phi3", "gemma", "glm4moe", "deepseekv3")
BLOCKS = ("generation blocks", "generation blocks with tools")
CHATS = [
    CONVERSATIONS["an answer"],
    [{"role": "user", "content": "Where does the owl live?"}, {"role": "assistant", "content": " In a  tree.\n\n"},
     {"role": "user", "content": "日本 é\n"}, {"role": "assistant", "content": "<|im_end|> 🍐"}],
    [{"role": "user", "content": "one"}, {"role": "assistant", "content": "x"}],
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [message["content"] for chat in CONVERSATIONS.values() for message in chat] * 3
    return byte_level_tokenizer(texts, tmp_path_factory.mktemp("byte-level"))


def source_of(name: str) -> str:
    if name in TEMPLATES:
        return TEMPLATES[name]
    return (resources.files("trl") / "chat_templates" / f"{name}_training.jinja").read_text(encoding="utf-8")


def of_toynn(records: list[dict[str, Any]], template: str, tokenizer: Path, scratch: Path) -> list[tuple[Any, Any]]:
    """Return for each record its token ids, and its labels: the ids that count, and -100 for the others."""
    (scratch / "data.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    (scratch / "t.jinja").write_text(template, encoding="utf-8")
    toynn.prepare(scratch / "data.jsonl", scratch / "data", tokenizer=tokenizer, validation=0,
                  chat_template=scratch / "t.jinja", progress=False)  # fmt: skip
    data = DataFolder.open(scratch / "data").train
    assert data.starts is not None
    assert data.counted is not None
    labels = np.where(data.counted == 1, data.tokens.astype(np.int64), -100)
    samples = [np.split(part, data.starts[1:]) for part in (data.tokens, labels)]
    return [(ids.tolist(), marks.tolist()) for ids, marks in zip(*samples, strict=True)]


def of_trl(records: list[dict[str, Any]], template: str, tokenizer: Path, scratch: Path) -> list[tuple[Any, Any]]:
    """Return the ids and labels of the batches of TRL's SFTTrainer."""
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer / "tokenizer.json"), bos_token="<|endoftext|>", eos_token="<|endoftext|>",
        chat_template=template,
    )  # fmt: skip
    config = transformers.LlamaConfig(
        vocab_size=len(tokens), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    is_chat = "messages" in records[0]
    args = trl.SFTConfig(
        output_dir=str(scratch / "trl"), assistant_only_loss=is_chat, per_device_train_batch_size=1, max_length=None,
        report_to=[], use_cpu=True, bf16=False, dataset_num_proc=None,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=transformers.LlamaForCausalLM(config),
        args=args,
        train_dataset=datasets.Dataset(pyarrow.Table.from_pylist(records), fingerprint="records"),
        processing_class=tokens,
    )
    batches = [trainer.data_collator([one]) for one in trainer.train_dataset]
    return [(one["input_ids"][0].tolist(), one["labels"][0].tolist()) for one in batches]


@pytest.mark.parametrize("name", [*BLOCKS, *SHIPPED])
def test_the_counted_tokens_are_the_labels_of_assistant_only_loss(name: str, tokenizer: Path, tmp_path: Path) -> None:
    records, template = [{"messages": chat} for chat in CHATS], source_of(name)
    found = of_toynn(records, template, tokenizer, tmp_path)
    assert found == of_trl(records, template, tokenizer, tmp_path)
    assert all(0 < sum(label != -100 for label in labels) < len(labels) for _, labels in found)


@pytest.mark.parametrize("name", ["generation blocks", "qwen2_5"])
def test_the_counted_tokens_of_a_completion_are_the_labels_of_trl(name: str, tokenizer: Path, tmp_path: Path) -> None:
    records = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in CHATS]
    template = source_of(name)
    assert of_toynn(records, template, tokenizer, tmp_path) == of_trl(records, template, tokenizer, tmp_path)
