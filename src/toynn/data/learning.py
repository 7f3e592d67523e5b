"""Learn a tokenizer from texts, in a child process.

The learning loop of the tokenizers library cannot be interrupted. If it runs out of memory, it aborts its process. A
child process can be ended at any time, and if it aborts, this module raises an exception.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO

from toynn.errors import TinyNNMemoryError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.text.child_process import start_child
from toynn.text.tokenizer_json import parsed_tokenizer
from toynn.tinynn.memory import want_memory

with naming_the_extra():
    from tokenizers import Tokenizer

_CHILD = Path(__file__).with_name("bpe_process.py")
# BpeTrainer allocates the memory for all tokens before it starts: a hash table, and a list with 24 bytes per token. An
# entry of the table has 33 bytes. The number of entries is a power of two, and at most 7/8 of the entries are used.
_BYTES_PER_TOKEN = 100


def learned_bpe(texts: Iterator[str], text_bytes: int, vocab_size: int, eos: str) -> Tokenizer:
    """Return a byte-level BPE like the one of GPT-2, learned from texts. The same texts give the same tokenizer.

    text_bytes: the size of all texts in UTF-8, in bytes. A tokenizer learned from short texts has fewer than vocab_size
    tokens. Words of more than 1024 characters are divided into parts of this length for learning.

    Raises TinyNNMemoryError if there is not enough memory. Also raises the errors of `texts`.
    """
    # The vocabulary begins with 256 bytes and eos. Each further token shortens the texts by at least one token.
    most = min(vocab_size, text_bytes + 257)
    want_memory("vocab_size", _BYTES_PER_TOKEN * most, f"the tables for learning {most} tokens")
    ours, theirs = Pipe()
    with ours, tempfile.TemporaryFile() as messages:
        with theirs:
            environment = {**os.environ, "RUST_BACKTRACE": "0"}  # without a backtrace, the last line is the message
            child = start_child(_CHILD, theirs, "learning a tokenizer", environment, messages)
        try:
            content = _answer(ours, most, eos, texts)
            if content is None:
                child.wait()  # the child has failed and is ending; its exit status shows the cause
        finally:
            child.kill()
            status = child.wait()
        if content is None:
            raise _failure(status, messages, vocab_size)
    return parsed_tokenizer(content.encode("utf-8"))


def _answer(child: Connection, vocab_size: int, eos: str, texts: Iterator[str]) -> str | None:
    """Send the task and the texts to the child. Return the tokenizer.json, or None if the child failed."""
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
    """Return the exception for a child process that ended without a tokenizer."""
    messages.seek(0)
    lines = [line.strip() for line in messages.read(1 << 16).decode("utf-8", "replace").split("\n")]
    lines = [line for line in lines if line and not line.startswith("note:")]
    last = lines[-1] if lines else f"exit status {status}"
    if status in (-signal.SIGKILL, -signal.SIGABRT) or "memory" in last.lower():
        return TinyNNMemoryError(
            f"vocab_size: there is not enough memory to learn {vocab_size} tokens from these texts ({last:.200}); "
            "use a smaller vocab_size or fewer texts"
        )
    return TinyNNValueError(f"texts: the tokenizers library cannot learn a tokenizer from these texts: {last:.200}")
