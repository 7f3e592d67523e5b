"""Settings of an imported model that toynn does not use, but that an export writes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from toynn.arguments import integer
from toynn.errors import TinyNNTypeError, TinyNNValueError


@dataclass(frozen=True)
class ForeignSettings:
    """The settings that were imported with a model. A model that toynn trained from random weights has none.

    name, license: the name and the license of the model.
    chat_template: the Jinja template that turns a conversation into text.
    pad_id: the token that fills up short sequences of a batch.
    tokenizer_config, generation_config: the content of the Hugging Face files with these names, as the text of a JSON
        object, without the tokens and ids that `TrainedModel` contains; "" if there is no such file.

    Raises TinyNNTypeError or TinyNNValueError, which name the field.
    """

    name: str = ""
    license: str = ""
    chat_template: str = ""
    pad_id: int | None = None
    tokenizer_config: str = ""
    generation_config: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "license", "chat_template", "tokenizer_config", "generation_config"):
            if not isinstance(value := getattr(self, name), str):
                raise TinyNNTypeError(f"{name} must be a str, got {type(value).__name__}")
        if self.pad_id is not None:
            object.__setattr__(self, "pad_id", integer("pad_id", self.pad_id, 0, 2**31 - 1))
        for name in ("tokenizer_config", "generation_config"):
            json_object(name, getattr(self, name))


def json_object(name: str, text: str) -> dict[str, Any]:
    """Return the JSON object that a text contains; {} for "". Raises TinyNNValueError, which names the field."""
    if not text:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TinyNNValueError(f"{name} must be the text of a JSON object: {error}") from None
    if not isinstance(content, dict):
        raise TinyNNValueError(f"{name} must be the text of a JSON object, got {type(content).__name__}")
    return content


NO_SETTINGS = ForeignSettings()
