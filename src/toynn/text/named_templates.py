"""Chat templates by name, for models that come without one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedTemplate:
    """A chat template. source: the Jinja template. turn_end: the text with which the model ends a reply."""

    source: str
    turn_end: str


NAMED_TEMPLATES = {
    "chatml": NamedTemplate(
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        turn_end="<|im_end|>",
    ),
}
