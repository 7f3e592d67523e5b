"""Learning a tokenizer from texts, in a process of its own.

The library's loop cannot be interrupted, and where it lacks memory it ends its process: as a child it can be ended, and
ends nobody else.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from toynn.errors import TinyNNMemoryError, TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.text.tokenizer_json import parsed_tokenizer
from toynn.tinynn.memory import want_memory

with naming_the_extra():
    from tokenizers import Tokenizer

# The child finds packages where this process does, before it imports any.
_START = "import sys; file, *sys.path = sys.argv[1:]; import runpy; runpy.run_path(file, run_name='__main__')"
_CHILD = Path(__file__).with_name("bpe_process.py")
# BpeTrainer sets room aside for all tokens before it starts: 33 bytes in a table of a power of two of places, of which
# at most 7/8 are taken, and 24 in a list.
_BYTES_A_TOKEN = 100


def learned_bpe(texts: Iterator[str], text_bytes: int, vocab_size: int, eos: str) -> Tokenizer:
    """A byte-level BPE of GPT-2's kind, learned from texts of so many bytes: the same texts give the same tokenizer.

    It has fewer than vocab_size tokens where the texts have nothing left to merge. From words beyond 1024 characters it
    learns in parts of that length.

    Raises TinyNNMemoryError where the memory does not suffice, and what `texts` raises.
    """
    most = min(vocab_size, text_bytes + 257)  # a merge takes a place at least out of the texts; the bytes, eos
    want_memory("vocab_size", _BYTES_A_TOKEN * most, f"{vocab_size} tokens, {most} of them from these texts,")
    task = json.dumps({"vocab_size": most, "eos": eos}).encode("utf-8")
    if not sys.executable:
        raise OSError("a tokenizer is learned in a Python process, and sys.executable does not say where Python is")
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-c", _START, str(_CHILD), *map(str, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, "RUST_BACKTRACE": "0"},  # the last line is the complaint then
        )
        try:
            content = _asked(child, task, texts)
        finally:
            child.kill()
            status = child.wait()
            for pipe in (child.stdin, child.stdout):
                _close(pipe)
        if status != 0 or not content:
            raise _failure(status, complaints, vocab_size)
    return parsed_tokenizer(content)


def _asked(child: subprocess.Popen[bytes], task: bytes, texts: Iterator[str]) -> bytes:
    """What the child answers; nothing where it died."""
    if child.stdin is None or child.stdout is None:
        raise AssertionError("both are pipes")
    try:
        _send(child.stdin, task)
        for text in texts:
            if text:
                _send(child.stdin, text.encode("utf-8"))
        _send(child.stdin, b"")
        child.stdin.flush()
    except BrokenPipeError:
        child.wait()
        return b""
    content = child.stdout.read()
    child.wait()
    return content


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):  # of what was still to be sent
            pipe.close()


def _failure(status: int, complaints: IO[bytes], vocab_size: int) -> Exception:
    complaints.seek(0)
    said = complaints.read(1 << 16).decode("utf-8", "replace").split("\n")
    lines = [line.strip() for line in said if line.strip() and not line.startswith("note:")]
    last = lines[-1] if lines else f"exit status {status}"
    if status in (-signal.SIGKILL, -signal.SIGABRT) or "memory" in last.lower():
        return TinyNNMemoryError(f"vocab_size: no memory to learn {vocab_size} tokens from these texts ({last:.200})")
    return TinyNNValueError(f"texts: the tokenizers library cannot learn from them: {last:.200}")
