"""The program of the child process that renders chat templates. `toynn.text.chat_template` starts the process.

A template is a program that comes with a model, so the process that runs the template has limits. The sandbox of jinja2
gives the template no access to Python. The system ends the process if a request needs too much time. The memory of the
process and the size of its files are limited.

The program imports no other module of toynn, so that it starts quickly. Its arguments are the path of this file and the
number of an open file descriptor, which is one end of a `multiprocessing.Pipe()`. All messages are JSON. The first
message is the limits and the template. Each further message is a list of requests, and the answer is a list of results.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from multiprocessing.connection import Connection
from typing import Any

import jinja2
import jinja2.ext
from jinja2.nodes import CallBlock, EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment


class RenderError(Exception):
    """A request cannot be fulfilled. The exception has two arguments: the kind of the error, and the message."""


class _Track:
    """The parts of a text that were rendered so far, and the spans of its generation blocks."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        # for each generation block, the position of its first character, and its text
        self.spans: list[tuple[int, str]] = []


_TRACK: ContextVar[_Track | None] = ContextVar("_TRACK", default=None)


class GenerationBlocks(jinja2.ext.Extension):
    """The tag `{% generation %}...{% endgeneration %}`, which marks the text that a model generates."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares a set)

    def parse(self, parser: Parser) -> CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        block = CallBlock(self.call_method("_mark"), [], [], body)
        block.set_lineno(line)
        return block

    @jinja2.pass_eval_context
    def _mark(self, context: EvalContext, caller: Macro) -> str:  # noqa: ARG002 (jinja2's signature)
        text: str = caller()
        if (track := _TRACK.get()) is not None:
            track.spans.append((track.length, text))
        return text


class _Namespace(jinja2.utils.Namespace):
    """jinja2's namespace without names that begin with an underscore, as in transformers."""

    # the object is args[0], as in jinja2, so that an attribute can have the name `self`
    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _Namespace._check(name)
        jinja2.utils.Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(
                f"the name of a namespace attribute must not begin with _, got {name!r:.60}"
            )


class _Dict:
    """The function `dict` of templates, without the attributes of the class `dict`."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


def _raise_exception(message: Any) -> None:
    raise RenderError("refused", str(message))


def _strftime_now(pattern: str) -> str:
    return dt.datetime.now().strftime(pattern)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment() -> ImmutableSandboxedEnvironment:
    """Return the environment in which transformers compiles chat templates."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = _tojson
    names = {"raise_exception": _raise_exception, "strftime_now": _strftime_now, "dict": _Dict()}
    env.globals.update(names, namespace=_Namespace)
    return env


def has_generation_blocks(env: jinja2.Environment, source: str) -> bool:
    tokens = [(kind, value) for _, kind, value in env.lex(source) if kind != "whitespace"]
    return any(one[0] == "block_begin" and two == ("name", "generation") for one, two in itertools.pairwise(tokens))


class Renderer:
    """Renders one template. most: the largest number of characters of a text."""

    def __init__(self, source: str, most: int) -> None:
        env = environment()
        self._template = env.from_string(source)
        self._most = most
        self.has_blocks = has_generation_blocks(env, source)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the text of a request, and the spans that the model generates, as pairs (start, end): text[start:end].

        request: "variables" of the template; "spans": "none", "generated" or "completion"; with "completion",
            "prompt": the number of messages that belong to the prompt.
        """
        try:
            text, spans = self._rendered(request["variables"])
            if request["spans"] == "none":
                spans = []
            elif request["spans"] == "completion":
                spans = [(self._prompt(text, request["variables"], request["prompt"]), len(text))]
            elif not self.has_blocks:
                spans = self._by_prefixes(text, request["variables"])
            return {"text": text, "spans": spans}
        except RenderError as error:
            return {"kind": error.args[0], "message": error.args[1]}
        except MemoryError:
            return {"kind": "memory", "message": ""}
        except RecursionError:
            return {"kind": "failed", "message": "the template calls itself too often"}
        except Exception as error:  # a template can cause any error of Python
            return {"kind": "failed", "message": f"{type(error).__name__}: {str(error)[:500]}"}

    def _rendered(self, variables: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
        track = _Track()
        token = _TRACK.set(track)
        try:
            for part in self._template.generate(variables):
                track.parts.append(part)
                track.length += len(part)
                if track.length > self._most:
                    raise RenderError("long", "")
        finally:
            _TRACK.reset(token)
        text = "".join(track.parts)
        for start, inside in track.spans:
            if text[start : start + len(inside)] != inside:
                raise RenderError("failed", "the place of its generation blocks is unknown: move them out of macros")
        return text, [(start, start + len(inside)) for start, inside in track.spans]

    def _prompt(self, text: str, variables: Mapping[str, Any], n: int) -> int:
        """Return the length of the text of the first n messages with the generation prompt.

        The text of the whole conversation must begin with this text.
        """
        first = {**variables, "messages": variables["messages"][:n], "add_generation_prompt": True}
        prompt, _ = self._rendered(first)
        if not text.startswith(prompt):
            raise RenderError("prefix", str(n))
        return len(prompt)

    def _by_prefixes(self, text: str, variables: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Return the span of each assistant message, from the end of its generation prompt to the end of the message.

        Two shorter conversations are rendered to find the start and the end. The text must begin with both results.
        """
        messages, spans = variables["messages"], []
        for i, message in enumerate(messages):
            if not isinstance(message, dict) or message.get("role") != "assistant":
                continue
            start = self._prompt(text, variables, i)
            shorter, _ = self._rendered({**variables, "messages": messages[: i + 1], "add_generation_prompt": False})
            if not text.startswith(shorter):
                raise RenderError("prefix", str(i + 1))
            spans.append((start, len(shorter)))
        return spans


def _limit(kind: int, most: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # the system lacks this limit, or a smaller limit is already set
        resource.setrlimit(kind, (most, most))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent handles it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # SIGPROF ends the process if a request takes too long
    parent = Connection(int(sys.argv[2]))
    try:
        task = json.loads(parent.recv_bytes())
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_FSIZE, 0)
        _limit(resource.RLIMIT_AS, task["memory"])
        signal.setitimer(signal.ITIMER_PROF, task["seconds"])
        try:
            renderer = Renderer(task["source"], task["characters"])
            answer: dict[str, Any] = {"generation_blocks": renderer.has_blocks}
        except jinja2.TemplateSyntaxError as error:
            answer = {"message": f"{error.message} in line {error.lineno}"}
        except MemoryError:
            answer = {"message": "it needs too much memory"}
        except Exception as error:  # the compiler of Python can raise SyntaxError, RecursionError and others
            answer = {"message": f"{type(error).__name__}: {str(error)[:500]}"}
        parent.send_bytes(json.dumps(answer).encode())
        while True:
            signal.setitimer(signal.ITIMER_PROF, 0)
            requests = json.loads(parent.recv_bytes())
            signal.setitimer(signal.ITIMER_PROF, task["seconds"])
            parent.send_bytes(json.dumps([renderer.answer(one) for one in requests]).encode())
    except (EOFError, ConnectionError):
        os._exit(0)  # the parent has ended or needs no more texts
    except MemoryError:
        os._exit(3)


if __name__ == "__main__":
    main()
