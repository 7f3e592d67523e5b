"""Write data/corpus.txt: the stories of the grammar and the hand-written ones, in an order that looks random.

    python tools/corpus/write_corpus.py            # writes the file anew
    python tools/corpus/write_corpus.py --check    # only compares: exit code 1 if it is not up to date

The same bytes on every Python. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grammar.schemas import SCHEMAS
from grammar.telling import Teller
from paths import CORPUS

HANDWRITTEN = Path(__file__).with_name("handwritten.txt")
SEPARATOR = "<|endoftext|>"  # what `toynn prepare` takes for the end of a document

STORIES_PER_SCHEMA = 25
SHINGLE = 8  # words
# Of the shingles of the shorter of two stories, the share that both may have.
MOST_SHARED = 0.25
_ATTEMPTS = 60  # for one story; a schema that needs more has too little to choose from


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """All runs of SHINGLE words."""
    words = text.split()
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def shared(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """The share of the smaller set that the other has too."""
    return len(a & b) / min(len(a), len(b))


def told(schema: str, n: int) -> list[str]:
    """n stories of a schema, no two of them too much alike. Raises ValueError where so many cannot be had."""
    stories: list[str] = []
    seen: list[frozenset[tuple[str, ...]]] = []
    for attempt in range(n * _ATTEMPTS):
        if len(stories) == n:
            break
        teller = Teller(f"{schema}:{attempt}")
        SCHEMAS[schema](teller)
        text = teller.text()
        own = shingles(text)
        if all(shared(own, other) <= MOST_SHARED for other in seen):
            stories.append(text)
            seen.append(own)
    if len(stories) < n:
        raise ValueError(f"{schema}: only {len(stories)} of {n} are unlike enough: give it more to choose from")
    return stories


def handwritten() -> list[str]:
    """The stories of handwritten.txt, where a line of three asterisks stands between two."""
    return [story.strip() for story in HANDWRITTEN.read_text(encoding="ascii").split("\n***\n")]


def documents() -> list[str]:
    """Every story once, in the order of their hashes, so that a new one moves no other."""
    stories = [story for schema in SCHEMAS for story in told(schema, STORIES_PER_SCHEMA)] + handwritten()
    return sorted(stories, key=lambda story: hashlib.sha256(story.encode("ascii")).digest())


def corpus() -> str:
    return "".join(f"{story}\n{SEPARATOR}\n" for story in documents())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare with the file that is there")
    text = corpus().encode("ascii")
    if not parser.parse_args().check:
        CORPUS.write_bytes(text)
        print(f"wrote {CORPUS.name}: {text.count(SEPARATOR.encode())} stories, {len(text)} bytes")
    elif not CORPUS.is_file() or CORPUS.read_bytes() != text:
        print(f"{CORPUS.name} is not what this script makes: run it without --check", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
