"""Write examples/data/questions.jsonl: conversations with questions about the world of the stories, and their answers.

    python tools/corpus/write_questions.py            # write the file
    python tools/corpus/write_questions.py --check    # only compare; exit status 1 if the file is not up to date

Some questions are in no conversation. The conversations contain the same facts in other words, so the answers to these
questions show what a model has learned. The file has the same bytes with every Python version. The script needs only
the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grammar.telling import Draw
from paths import EXAMPLES
from questions.kinds import Pair, all_pairs

QUESTIONS = EXAMPLES / "data" / "questions.jsonl"
ROUNDS = 2  # how often each question is in a conversation
_MOST_TURNS = 4
_HELD_OUT = 8  # one of 8 questions is in no conversation


def is_held_out(question: str) -> bool:
    """Return whether a question is in no conversation."""
    return hashlib.sha256(question.encode("ascii")).digest()[0] % _HELD_OUT == 0


def conversations() -> list[list[Pair]]:
    """Return the conversations. Each question is in ROUNDS conversations, together with random other questions."""
    pairs = [pair for pair in all_pairs() if not is_held_out(pair[0])]
    found = []
    for number in range(ROUNDS):
        draw = Draw(f"questions:{number}")
        left = draw.some(pairs, len(pairs))
        while left:
            n = 1 + draw.below(_MOST_TURNS)
            found.append(left[:n])
            del left[:n]
    return found


def content() -> str:
    lines = []
    for talk in conversations():
        messages = [
            {"role": role, "content": text}
            for pair in talk
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    return "".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Compare with the existing file instead of writing it.")
    text = content().encode("ascii")
    if not parser.parse_args().check:
        QUESTIONS.write_bytes(text)
        print(f"wrote {QUESTIONS.name}: {text.count(10)} conversations, {len(text)} bytes")
    elif not QUESTIONS.is_file() or QUESTIONS.read_bytes() != text:
        print(f"{QUESTIONS.name} is not up to date; run this script without --check", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
