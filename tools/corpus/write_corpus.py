"""Write examples/data/corpus.txt: the stories of the grammar and the handwritten stories, ordered by their hashes.

    python tools/corpus/write_corpus.py            # write the file
    python tools/corpus/write_corpus.py --check    # only compare; exit status 1 if the file is not up to date

The file has the same bytes with every Python version. The script needs only the standard library.
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
SEPARATOR = "<|endoftext|>"  # the line at which `toynn prepare` ends a document

STORIES_PER_SCHEMA = 25
SHINGLE = 8  # words
# Largest share of the sequences of words that two stories may have in common, relative to the smaller set of sequences.
MOST_SHARED = 0.25
_ATTEMPTS = 60  # attempts per story; a schema that needs more attempts has too few choices


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return all sequences of SHINGLE words in a text."""
    words = text.split()
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def shared(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Return which share of the smaller set is also in the larger set."""
    return len(a & b) / min(len(a), len(b))


def stories_of(schema: str, n: int) -> list[str]:
    """Return n stories of a schema that are not too similar. Raise ValueError if the schema has too few choices."""
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
        raise ValueError(
            f"the schema {schema} gives only {len(stories)} of {n} stories that differ enough; add choices to it"
        )
    return stories


def handwritten() -> list[str]:
    """Return the stories of handwritten.txt, which are separated by lines of three asterisks."""
    return [story.strip() for story in HANDWRITTEN.read_text(encoding="ascii").split("\n***\n")]


def documents() -> list[str]:
    """Return all stories in the order of their hashes, so that a new story does not move the others."""
    stories = [story for schema in SCHEMAS for story in stories_of(schema, STORIES_PER_SCHEMA)] + handwritten()
    return sorted(stories, key=lambda story: hashlib.sha256(story.encode("ascii")).digest())


def corpus() -> str:
    return "".join(f"{story}\n{SEPARATOR}\n" for story in documents())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Compare with the existing file instead of writing it.")
    text = corpus().encode("ascii")
    if not parser.parse_args().check:
        CORPUS.write_bytes(text)
        print(f"wrote {CORPUS.name}: {text.count(SEPARATOR.encode())} stories, {len(text)} bytes")
    elif not CORPUS.is_file() or CORPUS.read_bytes() != text:
        print(f"{CORPUS.name} is not up to date; run this script without --check", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
