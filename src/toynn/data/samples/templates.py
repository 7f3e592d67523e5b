"""ChatTemplates: the chat templates of a model, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from toynn.errors import TinyNNMemoryError, TinyNNValueError
from toynn.text.chat_template import DEFAULT, ChatTemplate, RenderedChat, RenderRequest
from toynn.text.named_templates import default_template

TOOL_USE = "tool_use"


class ChatTemplates:
    """Renders conversations with one of several named templates, chosen as in transformers.

    A conversation with tools is rendered with the template "tool_use" if it exists. Otherwise the template is
    "default".

    sources: the templates by name.
    tokens: the variables bos_token, eos_token and others of the templates.

    Raises TinyNNValueError if there are several templates, but none with the name "default".
    """

    def __init__(self, sources: Mapping[str, str], tokens: Mapping[str, str]) -> None:
        self.source = default_template(sources, "chat_template")
        used = {DEFAULT: self.source} if len(sources) == 1 else sources
        others = {name: token for name, token in tokens.items() if name not in ("bos_token", "eos_token")}
        self._templates = {
            name: ChatTemplate(source, tokens.get("bos_token"), tokens.get("eos_token"), special_tokens=others)
            for name, source in used.items()
            if name in (DEFAULT, TOOL_USE)
        }

    def render_all(
        self, requests: Sequence[RenderRequest]
    ) -> list[RenderedChat | TinyNNValueError | TinyNNMemoryError]:
        """Return the result of each request, or its error: see `ChatTemplate.render_all`."""
        names = [TOOL_USE if one.tools is not None and TOOL_USE in self._templates else DEFAULT for one in requests]
        found = {
            name: iter(template.render_all([one for one, use in zip(requests, names, strict=True) if use == name]))
            for name, template in self._templates.items()
        }
        return [next(found[name]) for name in names]

    def close(self) -> None:
        for template in self._templates.values():
            template.close()

    def __enter__(self) -> ChatTemplates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()
