"""Write examples/data/corpus.txt: the stories of the grammar and the handwritten stories, ordered by their hashes.

    python tools/corpus/write_corpus.py            # write the file
    python tools/corpus/write_corpus.py --check    # only compare; exit status 1 if the file is not up to date
    python tools/corpus/write_corpus.py --stories 75 --out FILE    # write another file, with more stories

The file has the same bytes with every Python version. The script needs only the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter, defaultdict
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
_ATTEMPTS = 300  # attempts per schema; a schema that gives fewer than STORIES_PER_SCHEMA stories has too few choices


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return all sequences of SHINGLE words in a text."""
    words = text.split()
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1))


def stories_of(schema: str, n: int) -> list[str]:
    """Return n stories of a schema that are not too similar, or fewer if the schema does not have enough choices.

    Raise ValueError if there are fewer than STORIES_PER_SCHEMA, and fewer than n.
    """
    stories: list[str] = []
    sizes: list[int] = []
    # for each sequence of words, the stories that contain it
    found_in: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for attempt in range(_ATTEMPTS):
        if len(stories) == n:
            break
        teller = Teller(f"{schema}:{attempt}")
        SCHEMAS[schema](teller)
        text = teller.text()
        own = shingles(text)
        common = Counter(i for one in own for i in found_in.get(one, ()))
        if all(count <= MOST_SHARED * min(len(own), sizes[i]) for i, count in common.items()):
            for one in own:
                found_in[one].append(len(stories))
            stories.append(text)
            sizes.append(len(own))
    fewest = min(n, STORIES_PER_SCHEMA)
    if len(stories) < fewest:
        raise ValueError(
            f"the schema {schema} gives only {len(stories)} of {fewest} stories that differ enough; add choices to it"
        )
    return stories


def handwritten() -> list[str]:
    """Return the stories of handwritten.txt, which are separated by lines of three asterisks."""
    return [story.strip() for story in HANDWRITTEN.read_text(encoding="ascii").split("\n***\n")]


def documents(per_schema: int = STORIES_PER_SCHEMA) -> list[str]:
    """Return all stories in the order of their hashes, so that a new story does not move the others.

    per_schema: largest number of stories of each schema.
    """
    stories = [story for schema in SCHEMAS for story in stories_of(schema, per_schema)] + handwritten()
    return sorted(stories, key=lambda story: hashlib.sha256(story.encode("ascii")).digest())


def corpus(per_schema: int = STORIES_PER_SCHEMA) -> str:
    return "".join(f"{story}\n{SEPARATOR}\n" for story in documents(per_schema))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Compare with the existing file instead of writing it.")
    parser.add_argument(
        "--stories", type=int, default=STORIES_PER_SCHEMA, help="Largest number of stories of each schema."
    )
    parser.add_argument("--out", type=Path, default=None, help="Write this file instead of the corpus.")
    flags = parser.parse_args()
    if flags.stories != STORIES_PER_SCHEMA and flags.out is None:
        parser.error("--stories needs --out, because the corpus has a fixed number of stories")
    text, out = corpus(flags.stories).encode("ascii"), flags.out or CORPUS
    if not flags.check:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(text)
        print(f"wrote {out.name}: {text.count(SEPARATOR.encode())} stories, {len(text)} bytes")
    elif not CORPUS.is_file() or CORPUS.read_bytes() != text:
        print(f"{CORPUS.name} is not up to date; run this script without --check", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
