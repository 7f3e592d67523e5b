"""Chat templates in Jinja, each with a name, and the choice between the templates of a model."""

from __future__ import annotations

from collections.abc import Mapping

from toynn.errors import TinyNNValueError
from toynn.text.chat_template import DEFAULT

NAMED_TEMPLATES = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
}


def default_template(sources: Mapping[str, str], argument: str) -> str:
    """Return the only template. If there are several templates, return the one with the name "default".

    sources: the templates by name.
    argument: the name of the argument for messages.

    Raises TinyNNValueError if none of several templates is called "default".
    """
    if len(sources) == 1:
        return next(iter(sources.values()))
    if DEFAULT not in sources:
        names = ", ".join(map(repr, sources)) or "none"
        raise TinyNNValueError(f"{argument}: one of the templates must be called {DEFAULT!r}, got {names:.100}")
    return sources[DEFAULT]
