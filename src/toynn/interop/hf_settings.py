"""tokenizer_config.json and generation_config.json: special tokens, chat template and sampling defaults.

toynn uses only the tokens that end a text. The other settings are kept with the model, and an export writes them back.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.file_errors import naming
from toynn.interop.hf_config import ids_of, token_ids_of
from toynn.model.foreign_settings import ForeignSettings, json_object
from toynn.model.trained_model import TrainedModel
from toynn.storage.json_files import read_json
from toynn.storage.regular_files import read_regular
from toynn.text.chat_template import DEFAULT, named_templates
from toynn.text.token_rules import tokens_around

TOKENIZER_CONFIG, GENERATION_CONFIG = "tokenizer_config.json", "generation_config.json"
TEMPLATE, README = "chat_template.jinja", "README.md"
_LARGEST = 1 << 20  # the largest size of a kept setting in bytes
# Keys that are not kept: tokenizer.json contains them too, or they name files, or code that transformers would run.
_DERIVED = ("added_tokens_decoder", "auto_map", "name_or_path", "tokenizer_file", "chat_template")
# Keys that only a class for a tokenizer.model uses.
_OF_CLASS = ("tokenizer_class", "legacy", "sp_model_kwargs", "use_default_system_prompt", "add_prefix_space")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "_from_model_config")
_LICENSE = re.compile(r"^license: *[\"']?([A-Za-z0-9._-]+)[\"']? *$", re.MULTILINE)


def read_settings(folder: Path, config: dict[str, Any], vocab: int) -> tuple[list[int], list[int], ForeignSettings]:
    """Return the begin tokens, the end tokens, and the other settings of a Hugging Face folder.

    The end tokens of config.json come first, and then the end tokens that only generation_config.json has. Raises
    FileFormatError.
    """
    generation, tokenizer = json_object_of(folder / GENERATION_CONFIG), json_object_of(folder / TOKENIZER_CONFIG)
    with naming(folder / "config.json"):
        begins, ends, pads = (token_ids_of(config, vocab, f"{name}_token_id") for name in ("bos", "eos", "pad"))
    with naming(folder / GENERATION_CONFIG):
        ends = list(dict.fromkeys([*ends, *token_ids_of(generation, vocab, "eos_token_id")]))
        begins = begins or token_ids_of(generation, vocab, "bos_token_id")
        pads = pads or token_ids_of(generation, vocab, "pad_token_id")
    template = _template(folder, tokenizer)
    kept = {key: value for key, value in tokenizer.items() if key not in _DERIVED}
    rest = {key: value for key, value in generation.items() if key not in _IDS}
    foreign = ForeignSettings(
        name=folder.resolve().name,
        license=_license(folder / README),
        chat_template=template,
        pad_id=pads[0] if pads else None,
        tokenizer_config=_text(folder / TOKENIZER_CONFIG, kept),
        generation_config=_text(folder / GENERATION_CONFIG, rest),
    )
    return begins, ends, foreign


def generation_config(model: TrainedModel) -> dict[str, Any]:
    """Return the content of generation_config.json: the settings of the imported model, and the token ids of this
    model.
    """
    ids = {key: value for key, value in ids_of(model).items() if value is not None}
    return {**json_object("generation_config", model.foreign.generation_config), **ids}


def tokenizer_config(model: TrainedModel, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of tokenizer_config.json: the settings of the imported model, and defaults for missing
    settings.
    """
    content: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.shape.ctx,
        "clean_up_tokenization_spaces": False,
        **json_object("tokenizer_config", model.foreign.tokenizer_config),
    }
    ids = (("bos_token", model.bos_id), ("eos_token", model.eos_id), ("pad_token", model.foreign.pad_id))
    for key, token in ids:
        if content.get(key) is None and token is not None and (text := tokenizer.id_to_token(token)) is not None:
            content[key] = text
    around = tokens_around(tokenizer)
    for key, added, token in (("add_bos_token", around.before, model.bos_id),
                              ("add_eos_token", around.after, model.eos_id)):  # fmt: skip
        # transformers reads add_bos_token and add_eos_token from tokenizer.json, but the converter of llama.cpp reads
        # them from this file.
        if added and added == [token]:
            content[key] = True
    if model.foreign.chat_template:
        content["chat_template"] = model.foreign.chat_template
    return content


def added_tokens_of(config: dict[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """Yield the key, the id and the description of each added token in a tokenizer_config.json.

    The id is -1 if the key is not a number. Raises FileFormatError if the descriptions are not a JSON object.
    """
    added = config.get("added_tokens_decoder") or {}
    if not isinstance(added, dict):
        raise FileFormatError(f"added_tokens_decoder must be a JSON object, got {added!r:.60}")
    for key, described in added.items():
        yield key, int(key) if key.isascii() and key.isdecimal() and len(key) < 10 else -1, described


def check_agreement(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise FileFormatError if tokenizer_config.json contradicts tokenizer.json.

    transformers would then add tokens to the tokenizer, or use other ids than toynn.
    """
    content = json_object_of(folder / TOKENIZER_CONFIG)
    with naming(folder / TOKENIZER_CONFIG):
        for key, token, described in added_tokens_of(content):
            text = _token_text(f"added_tokens_decoder.{key:.20}", described)
            if token < 0 or (found := tokenizer.id_to_token(token)) is None:
                raise FileFormatError(f"added_tokens_decoder gives {text!r:.60} the id {key:.20}, which tokenizer.json "
                                      "does not have")  # fmt: skip
            if found != text:
                raise FileFormatError(
                    f"added_tokens_decoder gives {text!r:.60} the id {token}, but tokenizer.json gives this id to "
                    f"{found!r:.60}"
                )
        for key in ("bos_token", "eos_token"):
            if content.get(key) is not None and tokenizer.token_to_id(text := _token_text(key, content[key])) is None:
                raise FileFormatError(f"{key} is {text!r:.60}, but tokenizer.json has no such token")


def _token_text(key: str, described: Any) -> str:
    """Return the text of a token, which is described by its text or by a JSON object with the key "content"."""
    text = described.get("content") if isinstance(described, dict) else described
    if not isinstance(text, str):
        raise FileFormatError(f"{key} must be the text of a token, got {described!r:.60}")
    return text


def without_class(settings: ForeignSettings) -> ForeignSettings:
    """Return the settings without the class of the tokenizer, so that transformers uses only its tokenizer.json."""
    config = json_object("tokenizer_config", settings.tokenizer_config)
    kept = {key: value for key, value in config.items() if key not in _OF_CLASS}
    return dataclasses.replace(settings, tokenizer_config=json.dumps(kept) if kept else "")


def json_object_of(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} if the file does not exist.

    Raises FileFormatError if the file cannot be read, or does not contain a JSON object.
    """
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: the content must be a JSON object, got {type(content).__name__}")
    return content


def _text(path: Path, content: dict[str, Any]) -> str:
    text = json.dumps(content) if content else ""
    if len(text) > _LARGEST:
        raise FileFormatError(f"{path} has {len(text)} bytes of settings, but the limit is {_LARGEST}")
    return text


def _template(folder: Path, tokenizer: dict[str, Any]) -> str:
    """Return the chat template: from its own file, or else from tokenizer_config.json.

    If tokenizer_config.json has a list of templates, return the template with the name "default".
    """
    path = folder / TEMPLATE
    if path.is_file():
        try:
            return read_regular(path, _LARGEST).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{path} must be UTF-8 text, but byte {error.start} is not UTF-8") from None
    if (template := tokenizer.get("chat_template")) is None:
        return ""
    try:
        return named_templates(template).get(DEFAULT, "")
    except TinyNNValueError as error:
        raise FileFormatError(f"{folder / TOKENIZER_CONFIG}: {error}") from None


def _license(readme: Path) -> str:
    """Return the license that the model card names in its YAML header (between two lines "---"), or ""."""
    if not readme.is_file():
        return ""
    with readme.open("rb") as file:
        start = file.read(1 << 16).decode("utf-8", "replace")
    if not start.startswith("---"):
        return ""
    found = _LICENSE.search(start.replace("\r\n", "\n").split("\n---", 1)[0])
    return found[1] if found else ""
