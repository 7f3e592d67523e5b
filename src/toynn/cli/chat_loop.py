"""The conversation of `toynn chat`: read a line, print the reply, and carry out the commands that begin with /."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

import click

from toynn.api.reply_stream import ReplyStream
from toynn.errors import TinyNNError, TinyNNValueError
from toynn.storage.durable_files import replace_file
from toynn.storage.regular_files import naming_file
from toynn.storage.text_files import decoded
from toynn.text.terminal_text import terminal_text

_COMMANDS = {
    "/undo": "Remove your last message and the reply.",
    "/reset": "Start a new conversation.",
    "/save FILE": "Write the conversation to FILE as one line of JSON.",
    "/help": "Print this list.",
    "/exit": "End the program, as Ctrl-D does.",
}


class ChatLoop:
    """A conversation in the terminal, or with the lines of a file.

    reply: returns the reply to a conversation.
    n_ctx: the context length, for notes.
    system: the system prompt, or None.
    is_interactive: whether stdin is a terminal. Then there is a prompt, and an error does not end the program.
    """

    def __init__(
        self,
        reply: Callable[[list[dict[str, str]]], ReplyStream],
        n_ctx: int,
        system: str | None,
        *,
        is_interactive: bool,
    ) -> None:
        self._reply, self._n_ctx, self._is_interactive = reply, n_ctx, is_interactive
        self._start = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._start)
        self._dropped = 0

    def run(self) -> None:
        """Read lines and reply to them until the input or the user ends the conversation."""
        for line in self._lines():
            if not line.strip():
                continue
            try:
                if line.startswith("/"):
                    if not self._command(line):
                        return
                else:
                    self._answer(line)
            except KeyboardInterrupt:
                if not self._is_interactive:
                    raise
                click.echo()
            except (TinyNNError, OSError) as error:
                if not self._is_interactive:
                    raise
                click.echo(f"toynn: {error}", err=True)

    def _lines(self) -> Iterator[str]:
        if not self._is_interactive:
            for number, line in enumerate(sys.stdin.buffer, 1):
                yield decoded(line, f"stdin: line {number}").rstrip("\r\n")
            return
        import readline  # noqa: F401  (lets `input` edit a line)

        while True:
            try:
                yield input("> ")
            except EOFError:  # noqa: PERF203 (reading a line takes longer than entering the block)
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo("\n(Ctrl-D or /exit ends the program)")

    def _answer(self, text: str) -> None:
        """Print the reply to a message, and add both to the conversation."""
        conversation = [*self._messages, {"role": "user", "content": text}]
        pieces = []
        with _CtrlC(self._is_interactive) as ctrl_c:
            stream = ctrl_c.stream = self._reply(conversation)
            for piece in stream:
                pieces.append(piece)
                click.echo(terminal_text(piece), nl=False)
        click.echo()
        if pieces or stream.finish_reason != "stopped":
            self._messages = [*conversation, {"role": "assistant", "content": "".join(pieces)}]
        self._note(stream)

    def _note(self, stream: ReplyStream) -> None:
        if stream.dropped_messages > self._dropped:
            click.echo(
                f"note: the model no longer sees the oldest {stream.dropped_messages} messages, because the context of "
                f"{self._n_ctx} tokens is full",
                err=True,
            )
        self._dropped = stream.dropped_messages
        if stream.finish_reason == "context_full":
            click.echo(f"note: the reply ends here because the context of {self._n_ctx} tokens is full", err=True)
        elif stream.finish_reason == "max_tokens":
            click.echo("note: the reply ends here because of --max-tokens", err=True)

    # ---- commands ----

    def _command(self, line: str) -> bool:
        """Carry out a command. Return False if it ends the program."""
        name, _, rest = line.strip().partition(" ")
        if name == "/exit":
            return False
        if name == "/help":
            for command, meaning in _COMMANDS.items():
                click.echo(f"{command:<12} {meaning}")
        elif name == "/undo":
            self._undo()
        elif name == "/reset":
            self._messages, self._dropped = list(self._start), 0
        elif name == "/save":
            self._save(rest)
        else:
            names = ", ".join(command.partition(" ")[0] for command in _COMMANDS)
            raise TinyNNValueError(
                f"there is no command {name!r:.40}; the commands are {names}; put a space before a message that begins "
                "with /"
            )
        return True

    def _undo(self) -> None:
        if len(self._messages) == len(self._start):
            raise TinyNNValueError("/undo has nothing to remove, because the conversation has no messages")
        del self._messages[-2:]

    def _save(self, rest: str) -> None:
        try:
            (name,) = shlex.split(rest)
        except ValueError:
            raise TinyNNValueError("/save needs the name of one file, for example /save talk.jsonl") from None
        path = Path(name)
        if path.exists():
            raise TinyNNValueError(f"{path} exists; give the name of a new file")
        line = json.dumps({"messages": self._messages}, ensure_ascii=False) + "\n"
        with naming_file(path):
            replace_file(path, line.encode("utf-8", "surrogatepass"))
        click.echo(f"saved {len(self._messages)} messages to {path}", err=True)


class _CtrlC:
    """A context manager: in its block, Ctrl-C ends the reply `stream` instead of the program, if is_on is true."""

    def __init__(self, is_on: bool) -> None:
        self._is_on, self._asked = is_on, False
        self._stream: ReplyStream | None = None

    @property
    def stream(self) -> ReplyStream | None:
        return self._stream

    @stream.setter
    def stream(self, stream: ReplyStream) -> None:
        self._stream = stream
        if self._asked:
            stream.stop()

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signature of a handler)
        self._asked = True
        if self._stream is not None:
            self._stream.stop()

    def __enter__(self) -> _CtrlC:
        self._before = signal.signal(signal.SIGINT, self._handle) if self._is_on else None
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_on:
            signal.signal(signal.SIGINT, self._before)
