"""The tokens of a model that chat templates use as variables, for example eos_token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toynn.model.foreign_settings import ForeignSettings, json_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def template_tokens(
    tokenizer: Tokenizer, bos_id: int | None, eos_id: int | None, foreign: ForeignSettings
) -> dict[str, str]:
    """Return the variables of chat templates that are tokens of a model, for example eos_token."""
    found: dict[str, str] = {}
    settings = json_object("tokenizer_config", foreign.tokenizer_config)
    for name in _TOKENS:
        value = settings.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    for name, token in (("bos_token", bos_id), ("eos_token", eos_id), ("pad_token", foreign.pad_id)):
        if token is not None and (text := tokenizer.id_to_token(token)) is not None:
            found[name] = text
    return found
