"""Render conversations as text with the chat template of a model, as transformers does.

A chat template is a program in the language Jinja that comes with a model, so it is not trusted. It runs in the sandbox
of jinja2, in a child process with limits on its time and its memory. Needs the library jinja2 (extra toynn[cli]).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from toynn.arguments import boolean, integer, kind_of, text
from toynn.errors import FileFormatError, SessionError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError
from toynn.extras import EXTRA_OF, how_to_install
from toynn.initialised import Initialised
from toynn.text.child_process import start_child

if TYPE_CHECKING:
    import subprocess
    from multiprocessing.connection import Connection

_CHILD = Path(__file__).with_name("template_process.py")
_SECONDS = 10  # largest CPU time in seconds that the child process may use for a request
_PATIENCE = 120  # a child process that does not answer for this number of seconds is ended, even if it gets no CPU time
_MEMORY = 1 << 30  # largest address space of the child in bytes
_CHARACTERS = 1 << 24  # largest number of characters in a rendered text
_LONGEST_ANSWER = 1 << 28  # largest number of bytes in an answer of the child
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "TZ")
_REASONING = ("reasoning_content", "thinking", "reasoning")  # names of the same field of a message
_CONTENT = "messages, tools, documents and variables"

DEFAULT = "default"  # the name of the template that is used if no other is chosen

Message = Mapping[str, Any]


class RenderedChat(NamedTuple):
    """A conversation as text, and the parts that the model generates, as pairs (start, end): text[start:end]."""

    text: str
    spans: list[tuple[int, int]]


@dataclass(frozen=True)
class RenderRequest:
    """A conversation to render.

    messages: dicts with the keys "role" and "content", and further keys that the template reads.
    add_generation_prompt: add the text that begins an answer of the model.
    tools, documents: lists of dicts, or None.
    variables: further variables of the template, for example enable_thinking.
    spans: the parts of the text whose positions are returned: "none", "generated" (the parts that the model generates)
        or "completion" (one part: all text after the prompt and the generation prompt).
    prompt: for "completion", the number of messages at the beginning that are the prompt.
    """

    messages: Sequence[Message]
    add_generation_prompt: bool = False
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] | None = None
    spans: str = "none"
    prompt: int = 0


class ChatTemplate(Initialised):
    """Turns conversations into the text that a model was trained on.

    The output equals that of `apply_chat_template(..., tokenize=False)` of transformers. The template runs in a child
    process, which is started when it is first needed and ended by `close`, or when this object is not used any more.
    Several threads may use one object; they take turns.

    Args:
        source: the Jinja template.
        bos_token, eos_token: the texts of these tokens, which templates use as variables. None: not defined.
        special_tokens: further variables of this kind, for example {"pad_token": "<pad>"}.
        name: the name of the template in messages.

    Raises FileFormatError, when the first text is rendered, if the source is not a valid template.
    """

    def __init__(
        self,
        source: str,
        bos_token: str | None = None,
        eos_token: str | None = None,
        *,
        special_tokens: Mapping[str, str] | None = None,
        name: str = "the chat template",
    ) -> None:
        self.source, self.name = text("source", source), text("name", name)
        given = {"bos_token": bos_token, "eos_token": eos_token}
        tokens = {**(special_tokens or {}), **{key: value for key, value in given.items() if value is not None}}
        self._tokens = {key: text(key, value) for key, value in tokens.items()}
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False
        if find_spec("jinja2") is None:
            raise ModuleNotFoundError(f"jinja2 is not installed; {how_to_install(EXTRA_OF['jinja2'])}", name="jinja2")

    @property
    def has_generation_blocks(self) -> bool:
        """True if the template marks the text that the model generates with `{% generation %}`."""
        with self._lock:
            return self._running().has_generation_blocks

    def check(self) -> None:
        """Check that the source is a valid template. Raises FileFormatError if it is not."""
        with self._lock:
            self._running()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the text of a conversation.

        messages, tools, documents, variables: as in `RenderRequest`. add_generation_prompt: add the text that begins an
            answer of the model.

        Raises TinyNNValueError if the template refuses the messages or needs too much time; FileFormatError if the
        template is not valid; TinyNNMemoryError if the template needs too much memory; or TinyNNTypeError for an
        argument of the wrong type.
        """
        request = RenderRequest(
            messages, boolean("add_generation_prompt", add_generation_prompt), tools, documents, variables
        )
        return self._one(request).text

    def render_with_spans(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedChat:
        """Return the text of a conversation, and the spans of characters that the model generates.

        These spans are the generation blocks of the template. Without generation blocks, the span of an assistant
        message begins after its generation prompt, and ends with the message. Two shorter conversations are rendered
        to find both positions: the conversation up to the generation prompt, and the conversation up to the end of the
        message. The text must begin with both results.

        Raises the errors of `render`. It also raises TinyNNValueError if the text does not begin with the text of a
        shorter conversation, because the template renders a message differently when other messages follow.
        """
        return self._one(RenderRequest(messages, False, tools, documents, variables, spans="generated"))

    def render_all(
        self, requests: Sequence[RenderRequest]
    ) -> list[RenderedChat | TinyNNValueError | TinyNNMemoryError]:
        """Return the result of each request, or its error. This is faster than one call for each request.

        Raises FileFormatError if the template is not valid.
        """
        packed = [self._packed_or_error(request) for request in requests]
        answers = iter(self._answers([one for one in packed if isinstance(one, str)]))
        return [self._result(next(answers)) if isinstance(one, str) else one for one in packed]

    def close(self) -> None:
        """End the child process. Closing twice is harmless; rendering after closing raises SessionError."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.end()

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    # ---- requests and results ----

    def _one(self, request: RenderRequest) -> RenderedChat:
        found = self._result(self._answers([self._packed(request)])[0])
        if isinstance(found, Exception):
            raise found
        return found

    def _packed_or_error(self, request: RenderRequest) -> str | TinyNNValueError:
        try:
            return self._packed(request)
        except TinyNNValueError as error:
            return error

    def _packed(self, request: RenderRequest) -> str:
        """Return a request as JSON. Raises TinyNNTypeError or TinyNNValueError for a value that JSON does not have."""
        messages = [_normalised(i, message) for i, message in enumerate(_list("messages", request.messages))]
        variables = {
            **self._tokens,
            **(request.variables or {}),
            "messages": messages,
            "tools": None if request.tools is None else _list("tools", request.tools),
            "documents": None if request.documents is None else _list("documents", request.documents),
            "add_generation_prompt": request.add_generation_prompt,
        }
        prompt = integer("prompt", request.prompt, 0, len(messages))
        try:
            return json.dumps({"variables": variables, "spans": request.spans, "prompt": prompt}, allow_nan=False)
        except TypeError as error:
            raise TinyNNTypeError(f"{_CONTENT} must consist of texts, numbers, lists and dicts: {error}") from None
        except (ValueError, RecursionError) as error:
            reason = "they are nested too deeply" if isinstance(error, RecursionError) else error
            raise TinyNNValueError(f"{_CONTENT} cannot be written as JSON: {reason}") from None

    def _result(self, answer: Mapping[str, Any]) -> RenderedChat | TinyNNValueError | TinyNNMemoryError:
        if "text" in answer:
            rendered: str = answer["text"]
            try:
                rendered.encode("utf-8")
            except UnicodeEncodeError as error:
                return TinyNNValueError(
                    f"{self.name} makes text that is not Unicode: {error.reason} at character {error.start}"
                )
            return RenderedChat(rendered, [(start, end) for start, end in answer["spans"]])
        kind, message = answer["kind"], " ".join(str(answer["message"]).split())
        if kind == "memory":
            return TinyNNMemoryError(f"{self.name} needs more than {_MEMORY >> 20} MiB of memory for these messages")
        if kind == "prefix":
            return TinyNNValueError(
                f"{self.name} renders the first {message} messages differently when other messages follow, so the "
                "places of the answers are unknown; use a template with generation blocks"
            )
        said = {
            "refused": f"refuses these messages: {message:.500}",
            "failed": f"fails for these messages: {message:.500}",
            "long": f"makes a text of more than {_CHARACTERS} characters from these messages",
            "time": f"needs more than {_SECONDS} seconds for these messages",
            "ended": f"makes its process end: {message:.500}",
        }
        return TinyNNValueError(f"{self.name} {said[kind]}")

    def _answers(self, packed: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the answers to requests. If the child ends, send each request alone to find out which request ends the
        child.
        """
        if not packed:
            return []
        with self._lock:
            answers = self._running().answers(packed)
            if isinstance(answers, list):
                return answers
            self._child = None
        return [answers] if len(packed) == 1 else [self._answers([one])[0] for one in packed]

    def _running(self) -> _Child:
        """Return the child process, and start it if necessary. A child process that was started before a fork of this
        process is not used.
        """
        if self._closed:
            raise SessionError(f"{self.name} was closed; make a new ChatTemplate")
        if self._child is None or self._child.owner != os.getpid():
            self._child = _Child(self.source, self.name)
        return self._child


def named_templates(found: object) -> dict[str, str]:
    """Return the templates in the value of "chat_template" of a tokenizer_config.json: a text, or a list of objects.

    Raises TinyNNValueError if the value is neither.
    """
    if isinstance(found, str):
        return {DEFAULT: found}
    if isinstance(found, list):
        pairs = [(one.get("name"), one.get("template")) for one in found if isinstance(one, dict)]
        if len(pairs) == len(found) and all(isinstance(key, str) and isinstance(text, str) for key, text in pairs):
            return {str(key): str(text) for key, text in pairs}
    raise TinyNNValueError(
        f"chat_template must be a text, or a list of objects whose name and template are texts, got {found!r:.60}"
    )


class _Child:
    """A running child process. Raises FileFormatError if the template is not valid."""

    def __init__(self, source: str, name: str) -> None:
        import subprocess  # slow imports, which a model needs only for conversations
        from multiprocessing.connection import Pipe

        self.owner = os.getpid()
        self._pipe, theirs = Pipe()
        with theirs:
            environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
            self._process = start_child(_CHILD, theirs, "rendering a chat template", environment, subprocess.DEVNULL)
        self.end = weakref.finalize(self, _end, self._process, self._pipe, self.owner)
        limits = {"seconds": _SECONDS, "memory": _MEMORY, "characters": _CHARACTERS}
        answer = self._asked({"source": source, **limits})
        if "generation_blocks" not in answer:
            self.end()
            message = " ".join(str(answer["message"]).split())
            raise FileFormatError(f"{name} is not a valid Jinja template: {message or answer['kind']:.500}")
        self.has_generation_blocks: bool = answer["generation_blocks"]

    def answers(self, packed: Sequence[str]) -> list[Mapping[str, Any]] | Mapping[str, Any]:
        """Return the answers to requests, or one answer that says why the child has ended."""
        answer: list[Mapping[str, Any]] | Mapping[str, Any] = self._asked(f"[{','.join(packed)}]")
        return answer

    def _asked(self, message: object) -> Any:
        """Send a message and return the answer."""
        content = message if isinstance(message, str) else json.dumps(message)
        try:
            self._pipe.send_bytes(content.encode("ascii"))
            if self._pipe.poll(_PATIENCE):
                return json.loads(self._pipe.recv_bytes(_LONGEST_ANSWER))
            ended = {"kind": "time", "message": "it needs too much time"}
        except (EOFError, ConnectionError):
            ended = _reason(self._process.wait())
        except OSError as error:  # the pipe raises OSError if the answer is too long
            ended = {"kind": "ended", "message": str(error)}
        # For example Ctrl-C: the child must end, because its answer would be read as the answer to the next message.
        except BaseException:
            self.end()
            raise
        self.end()
        return ended


def _reason(status: int) -> dict[str, str]:
    if status == -signal.SIGPROF:
        return {"kind": "time", "message": "it needs too much time"}
    return {"kind": "memory" if status == 3 else "ended", "message": f"exit status {status}"}


def _end(process: subprocess.Popen[bytes], pipe: Connection, owner: int) -> None:
    pipe.close()
    # after a fork, both processes have this object; only the owner may end the child process of the template
    if os.getpid() == owner:
        process.kill()
        process.wait()


def _list(name: str, value: object) -> list[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TinyNNTypeError(f"{name} must be a sequence of dicts, got {kind_of(value)}")
    for i, one in enumerate(value):
        if not isinstance(one, Mapping):
            raise TinyNNTypeError(f"{name}[{i}] must be a dict, got {kind_of(one)}")
    return [dict(one) for one in value]


def _normalised(i: int, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as transformers passes it to a template: without keys whose value is None, and with its
    reasoning under the names that templates use.
    """
    if not isinstance(message.get("role"), str):
        raise TinyNNTypeError(f"messages[{i}]['role'] must be a str, got {kind_of(message.get('role'))}")
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in _REASONING if key in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}
