"""The tokenizer and the special tokens of a trained model: training replaces none that the model had before."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from toynn.data import DataFolder
from toynn.model.foreign_settings import NO_SETTINGS, ForeignSettings
from toynn.model.resize import resized
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import Checkpoint
from toynn.text.token_rules import tokens_around
from toynn.text.tokenizer_json import ids_needed, load_tokenizer, parsed_tokenizer


@dataclass(frozen=True)
class SpecialTokens:
    """What a checkpoint of a run stores besides shape and weights; the fields are those of `TrainedModel`.

    notes: sentences for the user about what differs from the model that training started from.
    """

    tokenizer: bytes | None
    eos_id: int | None
    bos_id: int | None
    other_eos_ids: tuple[int, ...] = ()
    foreign: ForeignSettings = NO_SETTINGS
    notes: tuple[str, ...] = ()


def special_tokens(model: TrainedModel | None, resumed: bool, data: DataFolder) -> SpecialTokens:
    """Return the special tokens of a run that starts from a model, or from random weights if it is None.

    A run from random weights gets those of its data. A model keeps its tokenizer, with the rules for the tokens around
    a text, and its special tokens. If the documents of the data end with another token, generation stops at that one
    too.
    """
    meta = data.meta
    if model is None:
        return SpecialTokens(data.tokenizer, meta.eos_id, meta.bos_id)
    kept = SpecialTokens(model.tokenizer, model.eos_id, model.bos_id, model.other_eos_ids, model.foreign)
    if resumed:
        return kept
    name = kept.foreign.name
    kept = dataclasses.replace(kept, foreign=dataclasses.replace(kept.foreign, name=""))  # it is another model now
    notes = [f"the name {name!r:.60} of the model is not kept: exports use the name of the run"] if name else []
    tokenizer = parsed_tokenizer(data.tokenizer if model.tokenizer is None else model.tokenizer)

    def text(token: int | None) -> str:
        return f"{(None if token is None else tokenizer.id_to_token(token)) or token!r}"

    if meta.eos_id is not None and model.eos_id is None:
        bos = meta.bos_id if model.bos_id is None and not model.other_eos_ids else model.bos_id
        kept = dataclasses.replace(kept, eos_id=meta.eos_id, bos_id=bos)
        notes.append(f"the model had no end token: it gets {text(meta.eos_id)}, which ends the documents of the data")
    elif meta.eos_id is not None and meta.eos_id not in model.end_ids:
        kept = dataclasses.replace(kept, other_eos_ids=(*model.other_eos_ids, meta.eos_id))
        notes.append(
            f"the documents of the data end with {text(meta.eos_id)}, the model's end token is {text(model.eos_id)}: "
            "generation will stop at both"
        )
    if before := tokens_around(parsed_tokenizer(kept.tokenizer)).before if kept.tokenizer else []:
        notes.append(
            f"the model's tokenizer puts {' '.join(map(text, before))} before a prompt, but the documents of the data "
            "do not begin with it"
        )
    return dataclasses.replace(kept, notes=tuple(notes))


def with_added_tokens(init: Checkpoint, data: DataFolder) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return the model that training starts from, with the tokens that the tokenizer of the data adds, and notes.

    If the tokenizer of the data is that of the model with more added tokens, the model gets them, and its vocabulary
    grows if they need it (`resized`). Otherwise the model is returned unchanged.
    """
    model = init.model
    if model.tokenizer is None or same_tokenizer(model.tokenizer, data.tokenizer):
        return init, ()
    before, now = _normal(model.tokenizer), _normal(data.tokenizer)
    known = [token["content"] for token in before["added_tokens"]]
    new = [token for token in now["added_tokens"] if token["content"] not in known]
    now["added_tokens"] = [token for token in now["added_tokens"] if token["content"] in known]
    if not new or now != before:
        return init, ()
    described = json.loads(model.tokenizer)
    described["added_tokens"] = sorted([*described["added_tokens"], *new], key=lambda token: int(token["id"]))
    tokenizer = json.dumps(described, ensure_ascii=False, indent=2).encode("utf-8")
    vocab = max(model.shape.vocab, ids_needed(parsed_tokenizer(tokenizer)))
    texts = ", ".join(repr(token["content"]) for token in new[:3]) + (", ..." if len(new) > 3 else "")
    note = f"the tokenizer of the data adds {len(new)} tokens to that of the model ({texts})"
    if vocab > model.shape.vocab:
        note += f": the vocabulary grows from {model.shape.vocab} to {vocab}, each new row is the mean of the others"
    return dataclasses.replace(init, model=resized(model, vocab, tokenizer)), (note,)


def same_tokenizer(a: bytes, b: bytes) -> bool:
    """Return whether two tokenizer.json give a text the same tokens, apart from those that they put around it."""
    return a == b or _normal(a) == _normal(b)


def _normal(tokenizer: bytes) -> Any:
    content = json.loads(load_tokenizer(tokenizer, "a checkpoint").to_str())
    content["post_processor"] = None  # a data folder has the tokens of texts without it
    return content
