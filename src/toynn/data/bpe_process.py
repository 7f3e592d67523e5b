"""A process of its own that learns a byte-level BPE: `toynn.data.learning` starts it and speaks with it through pipes.

It imports no other file of toynn, so that it starts in a moment. Tasks and texts come in as their length in 8 bytes,
little-endian, and so many bytes; first the task (JSON: vocab_size, eos), then texts in UTF-8, last an empty one. The
tokenizer.json goes out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

# GPT-2's words (its encoder.py has the pattern), none longer than this. What learning costs grows faster than a word's
# length, and a text without spaces is one word; a token of more characters serves nobody.
LONGEST_WORD = 1024  # characters
WORDS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}{1,LONGEST}| ?\p{N}{1,LONGEST}| ?[^\s\p{L}\p{N}]{1,LONGEST}"
    r"|\s{1,LONGEST}(?!\S)|\s{1,LONGEST}"
).replace("LONGEST", str(LONGEST_WORD))


def learn(texts: Iterator[str], vocab_size: int, eos: str) -> str:
    """The tokenizer.json of a byte-level BPE of GPT-2's kind; it encodes words of any length."""
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


def _received() -> bytes:
    head = sys.stdin.buffer.read(8)
    length = int.from_bytes(head, "little")
    content = sys.stdin.buffer.read(length)
    if len(head) < 8 or len(content) < length:  # who asked is gone
        os._exit(1)
    return content


def _texts() -> Iterator[str]:
    while content := _received():
        yield content.decode("utf-8")
    # Nothing more comes: what ends this read is the end of the process that asked, and there is none to learn for.
    threading.Thread(target=_received, daemon=True).start()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the terminal's processes all: the other one decides
    status = 1
    try:
        task = json.loads(_received())
        learned = learn(_texts(), task["vocab_size"], task["eos"])
        sys.stdout.buffer.write(learned.encode("utf-8"))
        sys.stdout.buffer.flush()
        status = 0
    except BaseException:  # the library's panics too
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)  # the thread is still reading, which Python's usual end would not bear


if __name__ == "__main__":
    main()
