"""Read the chat templates of a model, or the chat templates that a user names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from toynn.data.meta import TEMPLATE
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.storage.checkpoint import load_checkpoint
from toynn.storage.checkpoint.foreign import kind_of_path
from toynn.storage.regular_files import path_of
from toynn.storage.text_files import read_text
from toynn.text.chat_template import DEFAULT
from toynn.text.named_templates import NAMED_TEMPLATES
from toynn.wording import spelled

_LARGEST = 1 << 24  # largest number of bytes in a template


def given_templates(given: object, argument: str) -> dict[str, str]:
    """Return the chat templates that a user names: a built-in template, a file, or the path of a model.

    argument: the name of the argument in Python, for messages.

    Raises TinyNNTypeError for an argument of the wrong type; TinyNNValueError if the path has no template;
    FileNotFoundError if the path does not exist; FileFormatError if a file is damaged; or OSError if a file cannot be
    read.
    """
    if isinstance(given, str) and given in NAMED_TEMPLATES:
        return {DEFAULT: NAMED_TEMPLATES[given]}
    if isinstance(given, Mapping):
        raise TinyNNTypeError(f"{argument} must be a name or a path, got {type(given).__name__}")
    path = path_of(argument, given)
    name = spelled(argument, f"--{argument.replace('_', '-')}")
    names = ", ".join(NAMED_TEMPLATES)
    if not path.exists():
        raise FileNotFoundError(
            f"{name}: {str(path)!r:.200} does not exist; give a Jinja file, a model, or one of {names}"
        )
    if not (path.is_file() or path.is_dir()):
        raise TinyNNValueError(f"{name}: {path} is neither a file nor a folder; give a Jinja file, or one of {names}")
    if path.is_file() and kind_of_path(path) != "gguf":
        if path.suffix == ".json":
            from toynn.interop.chat_templates import config_chat_templates

            found = config_chat_templates(path)
        else:
            found = {DEFAULT: read_text(path, _LARGEST)}
    else:
        found = templates_in(path)
    if not any(found.values()):
        raise TinyNNValueError(f"{name}: {path} has no chat template; give a Jinja file, or one of {names}")
    return found


def templates_in(path: Path) -> dict[str, str]:
    """Return the templates of a GGUF file, a Hugging Face folder, a data folder, a run or a checkpoint."""
    kind = kind_of_path(path)
    if kind == "data":
        return {DEFAULT: read_text(path / TEMPLATE, _LARGEST)} if (path / TEMPLATE).is_file() else {}
    if kind == "gguf":
        from toynn.interop.chat_templates import gguf_chat_templates  # this module needs the extra toynn[interop]

        return gguf_chat_templates(path)
    if kind == "hf" or (path / "tokenizer_config.json").is_file() or (path / TEMPLATE).is_file():
        from toynn.interop.chat_templates import hf_chat_templates

        return hf_chat_templates(path)
    if (path / "tokenizer.json").is_file() and not (path / "meta.json").is_file():
        return {}  # a folder with only a tokenizer has no templates
    template = load_checkpoint(path).model.foreign.chat_template
    return {DEFAULT: template} if template else {}
