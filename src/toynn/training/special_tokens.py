"""Choose the tokenizer and the special tokens of a trained model. A run that starts from a model keeps them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from toynn.data import DataFolder
from toynn.extras import naming_the_extra
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.model.foreign_settings import NO_SETTINGS, ForeignSettings
from toynn.model.resize import resized
from toynn.model.trained_model import DescribedModel
from toynn.storage.checkpoint import Checkpoint
from toynn.text.encoding_rules import encoding_rules, same_encoding
from toynn.text.token_rules import TokensAround, tokens_around
from toynn.text.tokenizer_json import ids_needed, parsed_tokenizer

with naming_the_extra():
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class SpecialTokens:
    """The tokenizer and the special tokens that a checkpoint stores. `TrainedModel` describes the fields.

    notes: sentences for the user about differences from the model that training started from.
    """

    tokenizer: bytes | None
    eos_id: int | None
    bos_id: int | None
    other_eos_ids: tuple[int, ...] = ()
    foreign: ForeignSettings = NO_SETTINGS
    notes: tuple[str, ...] = ()


def special_tokens(model: DescribedModel | None, resumed: bool, data: DataFolder) -> SpecialTokens:
    """Return the special tokens of a run. model: the model that the run starts from, or None for random weights.

    A run from random weights gets the special tokens of its data. A model keeps its own tokenizer and special tokens,
    also the rules for tokens around a text, but it gets the chat template of the data if there is one. If the
    documents of the data end with another token than the model's texts, generation will stop at both tokens.
    resumed: the model was trained by the same run, so nothing changes.
    """
    meta = data.meta
    theirs = None if data.tokenizer is None else parsed_tokenizer(data.tokenizer)
    if model is None:
        if theirs is None:
            return SpecialTokens(None, None, None)
        before = tokens_around(theirs).before
        note = tuple(_note_of_begin("the tokenizer of the data", theirs, before, meta.eos_id))
        begin = before[0] if before else meta.bos_id
        foreign = ForeignSettings(chat_template=data.chat_template or "")
        return SpecialTokens(data.tokenizer, meta.eos_id, begin, foreign=foreign, notes=note)
    kept = SpecialTokens(model.tokenizer, model.eos_id, model.bos_id, model.other_eos_ids, model.foreign)
    if resumed:
        return kept
    name = kept.foreign.name
    # The run makes a new model, so the name of the model that it starts from is dropped.
    kept = dataclasses.replace(kept, foreign=dataclasses.replace(kept.foreign, name=""))
    renamed = f"exported files will have the name of the run, not {name!r:.60}, the name of the model before training"
    notes = [renamed] if name else []
    kept, of_template = _with_template(kept, data)
    notes += of_template
    if theirs is None:
        if model.tokenizer is not None:
            notes.append("the data has no tokenizer, so its ids must be those of the model's tokenizer")
        return dataclasses.replace(kept, notes=tuple(notes))
    tokenizer = theirs if model.tokenizer is None else parsed_tokenizer(model.tokenizer)
    around = TokensAround([], []) if model.tokenizer is None else tokens_around(tokenizer)
    if meta.eos_id is not None and model.eos_id is None:
        bos = model.bos_id
        if bos is None and not model.other_eos_ids:
            bos = around.before[0] if around.before else meta.eos_id
        kept = dataclasses.replace(kept, eos_id=meta.eos_id, bos_id=bos)
        end = _texts(tokenizer, [meta.eos_id])
        notes.append(f"the model had no end token, so it gets {end}, the end token of the data")
    elif meta.eos_id is not None and meta.eos_id not in model.end_ids:
        kept = dataclasses.replace(kept, other_eos_ids=(*model.other_eos_ids, meta.eos_id))
        own = "None" if model.eos_id is None else _texts(tokenizer, [model.eos_id])
        notes.append(
            f"the documents of the data end with {_texts(tokenizer, [meta.eos_id])}, but the model's end token is "
            f"{own}, so generation will stop at both"
        )
    if (of_data := tokens_around(theirs)) not in (around, TokensAround([], [])):
        notes.append(
            f"the tokenizer of the data puts {_described(theirs, of_data)} a text, but the model's tokenizer puts "
            f"{_described(tokenizer, around)} it; the run keeps the rule of the model"
        )
    notes += _note_of_begin("the model's tokenizer", tokenizer, around.before, meta.eos_id)
    return dataclasses.replace(kept, notes=tuple(notes))


def _with_template(kept: SpecialTokens, data: DataFolder) -> tuple[SpecialTokens, list[str]]:
    """Return the tokens with the chat template of the data, if the data has one, and notes for the user."""
    template, own = data.chat_template, kept.foreign.chat_template
    if template is None or template == own:
        return kept, []
    notes = ["the chat template of the data replaces the chat template of the model, which is different"] if own else []
    return dataclasses.replace(kept, foreign=dataclasses.replace(kept.foreign, chat_template=template)), notes


def _note_of_begin(whose: str, tokenizer: Tokenizer, before: list[int], eos_id: int | None) -> list[str]:
    """Return a note if prompts begin with tokens that the documents of the data do not begin with.

    If prompts begin with the end token of the data, no note is needed: in the data, each document except the first one
    follows the end token of the document before.
    """
    if not before or before == [eos_id]:
        return []
    return [
        f"{whose} puts {_texts(tokenizer, before)} before a prompt, but the documents of the data do not begin with it"
    ]


def _texts(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Return the texts of tokens for a message."""
    return " ".join(repr(tokenizer.id_to_token(token) or token) for token in ids)


def _described(tokenizer: Tokenizer, around: TokensAround) -> str:
    """Return the tokens around a text for a message."""
    before, after = (_texts(tokenizer, ids) or "nothing" for ids in around)
    return f"{before} before and {after} after"


def with_added_tokens(init: Checkpoint, data: DataFolder) -> tuple[Checkpoint, tuple[str, ...]]:
    """Add the new tokens of the data's tokenizer to the model that training starts from. Return the model, and notes.

    If the tokenizer of the data has more special tokens and otherwise equals that of the model, the model gets these
    tokens, and its vocabulary grows if necessary (`resized`). Otherwise the model is returned unchanged.
    """
    if isinstance(init.contents, ModelOnBase):  # a base is frozen, so its vocabulary cannot grow
        return init, ()
    model = init.model
    if model.tokenizer is None or data.tokenizer is None or same_encoding(model.tokenizer, data.tokenizer):
        return init, ()
    known = encoding_rules(model.tokenizer)["added"]
    added = json.loads(parsed_tokenizer(data.tokenizer).to_str())["added_tokens"]
    new = [token for token in added if token["content"] not in known]
    described = json.loads(model.tokenizer)
    described["added_tokens"] = sorted([*described["added_tokens"], *new], key=lambda token: int(token["id"]))
    tokenizer = json.dumps(described, ensure_ascii=False, indent=2).encode("utf-8")
    if not new or not same_encoding(tokenizer, data.tokenizer):
        return init, ()
    vocab = max(model.shape.vocab, ids_needed(parsed_tokenizer(tokenizer)))
    texts = ", ".join(repr(token["content"]) for token in new[:3]) + (", ..." if len(new) > 3 else "")
    count = "1 more token" if len(new) == 1 else f"{len(new)} more tokens"
    note = f"the tokenizer of the data has {count} than the tokenizer of the model ({texts})"
    if vocab > model.shape.vocab:
        note += (
            f", so the vocabulary grows from {model.shape.vocab} to {vocab}, and each new row of the embedding is the "
            "mean of the old rows"
        )
    return dataclasses.replace(init, contents=resized(model, vocab, tokenizer)), (note,)
