"""Ask a model the questions that are in no conversation of questions.jsonl, and count its correct answers.

    python tools/corpus/count_answers.py build/quickstart/answers

The script prints each wrong answer. An answer is correct if it equals the expected answer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import toynn
from questions.kinds import all_pairs
from write_questions import is_held_out

_MOST_TOKENS = 40  # largest number of tokens in a reply


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="A run, a GGUF file or a Hugging Face folder, with a chat template.")
    flags = parser.parse_args()
    expected = {question: answer for question, answer in all_pairs() if is_held_out(question)}
    correct = 0
    with toynn.load(flags.model) as model:
        for question, answer in expected.items():
            reply = model.chat([{"role": "user", "content": question}], greedy=True, max_tokens=_MOST_TOKENS).strip()
            correct += reply == answer
            if reply != answer:
                print(f"{question} {reply!r} instead of {answer!r}")
    print(f"{correct} of {len(expected)} answers are correct")
    return 0


if __name__ == "__main__":
    sys.exit(main())
