"""A small model with a chat template, saved as a run."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from interop_models import make
from interop_models import tokenizer as plain_tokenizer
from toynn.api.save_model import save_model
from toynn.model.foreign_settings import ForeignSettings
from toynn.model.trained_model import TrainedModel

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@functools.cache
def chat_tokenizer() -> bytes:
    """Return a byte-level BPE tokenizer with the special tokens of ChatML."""
    tokenizer = Tokenizer.from_str(plain_tokenizer().decode())
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in ("<|im_start|>", "<|im_end|>")])
    text: str = tokenizer.to_str()
    return text.encode()


def chat_model(template: str = CHATML, ctx: int = 256, **sampling: object) -> TrainedModel:
    """Return a model with random weights, a chat template and sampling defaults."""
    model = make("gqa", tokens=chat_tokenizer(), ctx=ctx)
    end = Tokenizer.from_str(chat_tokenizer().decode()).token_to_id("<|im_end|>")
    assert end is not None
    foreign = ForeignSettings(chat_template=template, generation_config=json.dumps(sampling) if sampling else "")
    return dataclasses.replace(model, other_eos_ids=(end,), foreign=foreign)


def saved(model: TrainedModel, path: Path) -> Path:
    """Save a model as a run, and return its path."""
    return save_model(model, path, step=0, kind="run", dtype=None, overwrite=False, name="chat").path
