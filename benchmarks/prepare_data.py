"""Write the files that `benchmarks.prepare` measures: random texts and conversations that depend only on a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

END = "<|endoftext|>"
TOKENIZER, TEMPLATE = "tokenizer.json", "template.jinja"
VOCAB = 4096
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
_SYLLABLES = [first + vowel + last for first in "bdfgklmnprst" for vowel in "aeiou" for last in ("", "n", "r", "st")]
_SENTENCES = 4096


def file_of(folder: Path, kind: str) -> Path:
    """Return the path of the file with this kind of data."""
    return folder / (f"{kind}.txt" if kind == "plain" else f"{kind}.jsonl")


def separated(content: str) -> list[str]:
    """Return the documents of a plain text, as `toynn prepare` divides it."""
    documents = content.split(f"\n{END}\n")
    return [f"{one}\n" for one in documents[:-1]] + documents[-1:]


def sentences(seed: int) -> list[str]:
    """Return sentences of 4 to 20 random words. As in a language, some words are much more frequent than others."""
    draw = np.random.default_rng(seed)
    words = ["".join(draw.choice(_SYLLABLES, n)) for n in draw.integers(1, 4, 5000)]
    ranks = np.minimum(draw.zipf(1.3, 20 * _SENTENCES) - 1, len(words) - 1)
    lengths = draw.integers(4, 21, _SENTENCES)
    found, at = [], 0
    for n in lengths.tolist():
        found.append(" ".join(words[rank] for rank in ranks[at : at + n]).capitalize() + ".")
        at += n
    return found


def _texts(seed: int, most: int) -> Iterator[str]:
    """Yield texts of 1 to `most` sentences. The iterator never ends."""
    known, draw = sentences(seed), np.random.default_rng([seed, most])
    while True:
        for n in draw.integers(1, most + 1, 1000).tolist():
            yield " ".join(known[i] for i in draw.integers(0, _SENTENCES, n).tolist())


def write_data(folder: Path, samples: int, seed: int = 0) -> None:
    """Write a file of each kind with this number of samples, a tokenizer and a chat template."""
    import toynn

    texts = _texts(seed, 20)
    with file_of(folder, "texts").open("w", encoding="utf-8") as file:
        plain = []
        for _ in range(samples):
            plain.append(next(texts))
            file.write(json.dumps({"text": plain[-1]}) + "\n")
    file_of(folder, "plain").write_text(f"\n{END}\n".join(plain), encoding="utf-8")
    write_conversations(file_of(folder, "conversations"), seed, most_samples=samples)
    (folder / TEMPLATE).write_text(CHATML, encoding="utf-8")
    toynn.prepare(file_of(folder, "plain"), folder / "learned", vocab_size=VOCAB, eos=END, progress=False)
    (folder / "learned" / "tokenizer.json").rename(folder / TOKENIZER)


def write_conversations(
    path: Path, seed: int, *, most_samples: int = 1 << 62, most_bytes: int = 1 << 62, sentences_of_answer: int = 12
) -> int:
    """Write conversations of 2, 4 or 6 messages until the file has the number of samples or bytes.

    Return the number of samples.

    sentences_of_answer: the largest number of sentences in an answer.
    """
    questions, answers = _texts(seed + 1, 3), _texts(seed + 2, sentences_of_answer)
    draw = np.random.default_rng([seed, 3])
    size = samples = 0
    with path.open("w", encoding="utf-8") as file:
        while samples < most_samples and size < most_bytes:
            messages = []
            for _ in range(int(draw.integers(1, 4))):
                messages += [{"role": "user", "content": next(questions)}]
                messages += [{"role": "assistant", "content": next(answers)}]
            size += file.write(json.dumps({"messages": messages}) + "\n")
            samples += 1
    return samples
