"""The program of the child process that learns a byte-level BPE. `toynn.data.learning` starts the process.

The program imports no other module of toynn, so that it starts quickly. Its arguments are the path of this file and the
number of an open file descriptor, which is one end of a `multiprocessing.Pipe()`. Through this pipe the process
receives `(vocab_size, eos)`, then texts, then None, and sends the content of a tokenizer.json.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

LONGEST_WORD = 1024  # characters
# The pattern of words in GPT-2's encoder.py, with a limit on the length of a word. Without the limit, a text without
# spaces would be one word, and the time to learn from this text would grow faster than its length.
WORDS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}{1,LONGEST}| ?\p{N}{1,LONGEST}| ?[^\s\p{L}\p{N}]{1,LONGEST}"
    r"|\s{1,LONGEST}(?!\S)|\s{1,LONGEST}"
).replace("LONGEST", str(LONGEST_WORD))


def learn(texts: Iterator[str], vocab_size: int, eos: str) -> str:
    """Learn a byte-level BPE like the one of GPT-2 from texts, with at most vocab_size tokens and the end token `eos`.

    Return its tokenizer.json.

    The limit on the length of a word applies only while the BPE is learned. The tokenizer encodes words of any length.
    """
    model = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[eos] if eos else [],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    result: str = model.to_str()
    return result


def _received(parent: Connection) -> Any:
    """Wait for the next message of the parent process and return it. End this process if the parent has ended."""
    try:
        return parent.recv()
    except (EOFError, ConnectionError):
        os._exit(1)


def _texts(parent: Connection) -> Iterator[str]:
    while (text := _received(parent)) is not None:
        yield text
    # The library's learning loop cannot be interrupted. The parent sends no more messages, so this thread waits until
    # the parent ends, and then ends this process.
    threading.Thread(target=_received, args=[parent], daemon=True).start()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent handles it
    status = 1
    try:
        parent = Connection(int(sys.argv[2]))
        vocab_size, eos = _received(parent)
        parent.send(learn(_texts(parent), vocab_size, eos))
        status = 0
    except BaseException:  # a panic of the Rust library is a BaseException
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)  # a normal exit of Python could wait for the thread


if __name__ == "__main__":
    main()
