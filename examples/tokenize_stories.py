"""Turn data/stories.txt into token ids: train a small byte-level BPE tokenizer and write two files.

    python examples/tokenize_stories.py            # writes data/tokenizer.json and data/tokens.json
    python examples/tokenize_stories.py --check    # only compares; exit code 1 if the files are out of date

The script needs the package `tokenizers`, which the extra toynn[cli] installs. tokens.json contains the version of this
package. The vocabulary has 627 tokens: the end-of-story token, the 256 bytes, and 370 merges.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

DATA = Path(__file__).resolve().parent / "data"
VOCAB = 627  # the vocabulary size of SmolLM2Config.tiny
END_OF_STORY = "<|endofstory|>"
WINDOW = 32  # number of tokens in the sequence of examples/smoke_projection_lens.py
WINDOW_LABELS = 26  # number of distinct labels in the sequence, as in the curve that the Ruby project toy published


def stories_of(text: str) -> list[str]:
    """Return the stories. Each paragraph of the text is a story."""
    return [story.strip() for story in text.split("\n\n") if story.strip()]


def train(stories: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END_OF_STORY],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return tokenizer


def next_ids(window: list[int]) -> list[int]:
    """Return the labels of a sequence: the next id for each position, and the last id itself for the last position."""
    return window[1:] + window[-1:]


def smoke_window(stream: list[int]) -> int:
    """Return the offset of the first window of the stream with exactly WINDOW_LABELS distinct labels."""
    for offset in range(len(stream) - WINDOW + 1):
        if len(set(next_ids(stream[offset : offset + WINDOW]))) == WINDOW_LABELS:
            return offset
    raise ValueError(f"no window of {WINDOW} tokens has {WINDOW_LABELS} distinct labels")


def tokens_of(text: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of tokens.json.

    Its stream contains all stories in order, with END_OF_STORY after each story.
    """
    end: int = tokenizer.get_vocab()[END_OF_STORY]
    ids = [tokenizer.encode(story).ids for story in stories_of(text)]
    stream = [i for story in ids for i in [*story, end]]
    offset = smoke_window(stream)
    window = stream[offset : offset + WINDOW]
    return {
        "tokenizer": f"byte-level BPE trained by tokenizers {tokenizers.__version__}",
        "text": "stories.txt",
        "text_sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
        "vocab_size": tokenizer.get_vocab_size(),
        "end_of_story_id": end,
        "smoke_window": {
            "rule": f"the first {WINDOW} tokens of the stream with exactly {WINDOW_LABELS} distinct labels",
            "offset": offset,
            "text": tokenizer.decode(window, skip_special_tokens=False),
            "ids": window,
        },
        "stream": stream,
    }


def as_json(tokens: dict[str, Any]) -> str:
    """Return indented JSON with each list of ids on one line."""
    lists: dict[str, str] = {}

    def hold(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: hold(item) for key, item in value.items()}
        if isinstance(value, list):
            name = f"list {len(lists)}"
            lists[json.dumps(name)] = json.dumps(value)
            return name
        return value

    text = json.dumps(hold(tokens), indent=2, ensure_ascii=True)
    for name, ids in lists.items():
        text = text.replace(name, ids)
    return text + "\n"


def make() -> dict[str, str]:
    """Return the contents of the two files by their names."""
    text = (DATA / "stories.txt").read_text(encoding="utf-8")
    tokenizer = train(stories_of(text))
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True) + "\n",
        "tokens.json": as_json(tokens_of(text, tokenizer)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the existing files instead of writing them")
    check = parser.parse_args().check
    stale = 0
    for name, content in make().items():
        path = DATA / name
        if not check:
            path.write_text(content, encoding="utf-8", newline="\n")
            print(f"wrote {name}")
        elif not path.is_file() or path.read_text(encoding="utf-8") != content:
            stale += 1
            print(f"{name} is out of date; run this script without --check", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
