"""Learn a tokenizer from texts, in a child process.

The loop of the tokenizers library cannot be interrupted, and if it runs out of memory it aborts its process. A child
process can be ended at any time, and its abort becomes an exception here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO

from toynn.errors import TinyNNMemoryError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.text.tokenizer_json import parsed_tokenizer
from toynn.tinynn.memory import want_memory

with naming_the_extra():
    from tokenizers import Tokenizer

# The child gets the module search path of this process before it imports anything. multiprocessing.Process would import
# the caller's main module in the child, and so needs a guard in it.
_START = "import sys; file, _, *sys.path = sys.argv[1:]; import runpy; runpy.run_path(file, run_name='__main__')"
_CHILD = Path(__file__).with_name("bpe_process.py")
# BpeTrainer allocates the memory for all tokens before it starts: a table with a power of two of entries of 33 bytes,
# at most 7/8 of them used, and a list with 24 bytes per token.
_BYTES_PER_TOKEN = 100


def learned_bpe(texts: Iterator[str], text_bytes: int, vocab_size: int, eos: str) -> Tokenizer:
    """Return a byte-level BPE like that of GPT-2, learned from texts. The same texts give the same tokenizer.

    text_bytes: the size of all texts in UTF-8. The tokenizer has fewer than vocab_size tokens if the texts have nothing
    left to merge. Words of more than 1024 characters are learned from in parts of that length.

    Raises TinyNNMemoryError if the memory does not suffice, and what `texts` raises.
    """
    # Each merge shortens the texts by at least one token; the bytes and eos are there from the start.
    most = min(vocab_size, text_bytes + 257)
    want_memory("vocab_size", _BYTES_PER_TOKEN * most, f"{vocab_size} tokens, {most} of them from these texts,")
    if not sys.executable:
        raise OSError(
            "sys.executable is empty, but a tokenizer is learned in a new Python process: "
            "set sys.executable to the path of the Python interpreter"
        )
    ours, theirs = Pipe()
    with ours, tempfile.TemporaryFile() as messages:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-c", _START, str(_CHILD), str(theirs.fileno()), *map(str, sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                env={**os.environ, "RUST_BACKTRACE": "0"},  # so that the last line is the message
            )
        try:
            content = _answer(ours, most, eos, texts)
            if content is None:
                child.wait()  # the child has closed its end of the pipe; its exit status says why
        finally:
            child.kill()
            status = child.wait()
        if content is None:
            raise _failure(status, messages, vocab_size)
    return parsed_tokenizer(content.encode("utf-8"))


def _answer(child: Connection, vocab_size: int, eos: str, texts: Iterator[str]) -> str | None:
    """Send the task and the texts; return the tokenizer.json, or None if the child ended without one."""
    try:
        child.send((vocab_size, eos))
        for text in texts:
            child.send(text)
        child.send(None)
        content: str = child.recv()
    except (EOFError, ConnectionError):
        return None
    return content


def _failure(status: int, messages: IO[bytes], vocab_size: int) -> Exception:
    """Return the exception for a child that ended without an answer."""
    messages.seek(0)
    lines = [line.strip() for line in messages.read(1 << 16).decode("utf-8", "replace").split("\n")]
    lines = [line for line in lines if line and not line.startswith("note:")]
    last = lines[-1] if lines else f"exit status {status}"
    if status in (-signal.SIGKILL, -signal.SIGABRT) or "memory" in last.lower():
        return TinyNNMemoryError(
            f"vocab_size: not enough memory to learn {vocab_size} tokens from these texts ({last:.200})"
        )
    return TinyNNValueError(f"texts: the tokenizers library cannot learn from them: {last:.200}")
