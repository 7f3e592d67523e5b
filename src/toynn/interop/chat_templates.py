"""Read all chat templates of a model and their names, without reading the weights."""

from __future__ import annotations

from pathlib import Path

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.gguf_model import GgufModel
from toynn.interop.hf_settings import TEMPLATE, TOKENIZER_CONFIG
from toynn.storage.json_files import read_json
from toynn.storage.text_files import read_text
from toynn.text.chat_template import DEFAULT, named_templates

_KEY, _MORE = "tokenizer.chat_template", "additional_chat_templates"
_LARGEST = 1 << 24  # largest number of bytes in a template


def gguf_chat_templates(path: Path) -> dict[str, str]:
    """Return the chat templates of a GGUF file by name.

    The key of a template ends with the name of the template. The default template has a key without a name.
    """
    with GgufModel(path) as model:
        values = model.values
        found = {DEFAULT: values.text(_KEY)} if _KEY in values else {}
        more = [key for key in values.keys() if key.startswith(f"{_KEY}.")]  # noqa: SIM118 (it is not a dict)
        return found | {key[len(_KEY) + 1 :]: values.text(key) for key in more}


def hf_chat_templates(folder: Path) -> dict[str, str]:
    """Return the chat templates of a Hugging Face folder by name.

    They are in chat_template.jinja and additional_chat_templates/NAME.jinja, or else in tokenizer_config.json.

    Raises FileFormatError if a file is damaged, or OSError if a file cannot be read.
    """
    found = {DEFAULT: read_text(folder / TEMPLATE, _LARGEST)} if (folder / TEMPLATE).is_file() else {}
    found |= {path.stem: read_text(path, _LARGEST) for path in sorted((folder / _MORE).glob("*.jinja"))}
    config = folder / TOKENIZER_CONFIG
    return found or (config_chat_templates(config) if config.is_file() else {})


def config_chat_templates(path: Path) -> dict[str, str]:
    """Return the chat templates of a tokenizer_config.json by name. Raises FileFormatError if the file is damaged."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise FileFormatError(f"{path}: the content must be a JSON object, got {type(content).__name__}")
    if (given := content.get("chat_template")) is None:
        return {}
    try:
        return named_templates(given)
    except TinyNNValueError as error:
        raise FileFormatError(f"{path}: {error}") from None
