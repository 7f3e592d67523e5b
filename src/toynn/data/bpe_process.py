"""The child process in which a byte-level BPE is learned; `toynn.data.learning` starts it.

It imports no other module of toynn, so that it starts quickly. Its arguments are the path of this file and the number
of an open descriptor, one end of a `multiprocessing.Pipe()`. It receives `(vocab_size, eos)`, then texts, then None,
and sends the content of a tokenizer.json.
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

# The words of GPT-2 (the pattern in its encoder.py), but of limited length: the cost of learning grows faster than the
# length of a word, a text without spaces is one word, and longer tokens are of no use.
LONGEST_WORD = 1024  # characters
WORDS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}{1,LONGEST}| ?\p{N}{1,LONGEST}| ?[^\s\p{L}\p{N}]{1,LONGEST}"
    r"|\s{1,LONGEST}(?!\S)|\s{1,LONGEST}"
).replace("LONGEST", str(LONGEST_WORD))


def learn(texts: Iterator[str], vocab_size: int, eos: str) -> str:
    """Return the tokenizer.json of a byte-level BPE like that of GPT-2, which encodes words of any length."""
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
    """Return what the parent process sent; end this process if the parent has ended."""
    try:
        return parent.recv()
    except (EOFError, ConnectionError):
        os._exit(1)


def _texts(parent: Connection) -> Iterator[str]:
    while (text := _received(parent)) is not None:
        yield text
    # The library's loop cannot be interrupted. The parent sends nothing more, so this thread waits for its end.
    threading.Thread(target=_received, args=[parent], daemon=True).start()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent decides and ends this one
    status = 1
    try:
        parent = Connection(int(sys.argv[2]))
        vocab_size, eos = _received(parent)
        parent.send(learn(_texts(parent), vocab_size, eos))
        status = 0
    except BaseException:  # also the panics of the library
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)  # Python's usual end would wait for the thread that reads


if __name__ == "__main__":
    main()
