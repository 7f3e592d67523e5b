"""The questions of the quick start equal the output of their script, agree with each other, and are correct English."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

import write_questions
from paths import EXAMPLES, ROOT
from questions.facts import ANIMALS, DAYS, NUMBERS, OPPOSITES
from questions.kinds import KINDS, all_pairs

pytestmark = pytest.mark.quick

TEXT = (EXAMPLES / "data" / "questions.jsonl").read_bytes().decode("ascii")
TALKS = [json.loads(line)["messages"] for line in TEXT.splitlines()]
ASKED = [(talk[i]["content"], talk[i + 1]["content"]) for talk in TALKS for i in range(0, len(talk), 2)]


def test_the_file_equals_the_output_of_the_script_for_any_hash_seed() -> None:
    assert write_questions.content() == TEXT
    command = [sys.executable, write_questions.__file__, "--check"]
    assert subprocess.run(command, check=False, env={"PYTHONHASHSEED": "1"}).returncode == 0


def test_each_conversation_alternates_between_questions_and_answers() -> None:
    for talk in TALKS:
        assert [message["role"] for message in talk] == ["user", "assistant"] * (len(talk) // 2)
    assert {len(talk) // 2 for talk in TALKS} == {1, 2, 3, 4}
    assert max(Counter(json.dumps(talk) for talk in TALKS if len(talk) > 2).values()) == 1


def test_each_question_has_one_answer_and_is_asked_in_each_round_or_held_out() -> None:
    answers = dict(all_pairs())
    assert len(answers) == len(all_pairs())
    for question, n in Counter(ASKED).items():
        assert answers[question[0]] == question[1]
        assert n == write_questions.ROUNDS
    asked = {question for question, _ in ASKED}
    held_out = answers.keys() - asked
    assert held_out == {question for question in answers if write_questions.is_held_out(question)}
    assert 0.08 < len(held_out) / len(answers) < 0.17
    learned = {answer for _, answer in ASKED}
    assert sum(answers[question] in learned for question in held_out) >= 0.95 * len(held_out)


def test_the_facts_do_not_contradict_each_other() -> None:
    assert len({animal.sound for animal in ANIMALS}) == len(ANIMALS)
    opposite: dict[str, set[str]] = defaultdict(set)
    for pair in all_pairs():
        if found := re.fullmatch(r"The opposite of (\w+) is (\w+)\.", pair[1]):
            opposite[found[1]].add(found[2])
    assert all(len(words) == 1 for words in opposite.values())
    assert len(opposite) >= 2 * len(OPPOSITES) - 4
    for question, answer in all_pairs():
        if found := re.fullmatch(r"(\w+) and (\w+) make (\w+)\.", answer):
            one, other, total = (NUMBERS.index(word.lower()) + 1 for word in found.groups())
            assert one + other == total, question
        if found := re.fullmatch(r"(\w+) comes (after|before) (\w+)\.", answer):
            step = 1 if found[2] == "after" else -1
            assert DAYS.index(found[1]) == (DAYS.index(found[3]) + step) % 7


def test_the_english_is_plain() -> None:
    assert len(KINDS) == 8
    for question, answer in all_pairs():
        for text in (question, answer):
            assert re.fullmatch(r"[A-Z][A-Za-z ,.!?]*[.!?]", text), text
            assert not re.search(r"\b(\w+) \1\b", text), text
            for article, word in re.findall(r"\b([Aa]n?) (\w+)", text):
                assert (article.lower() == "an") == (word[0] in "aeiou"), text


def test_the_questions_of_the_quick_start_are_held_out() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\tprintf '(.*)' \|.*chat build/quickstart/answers", makefile, re.MULTILINE)
    answers = dict(all_pairs())
    questions = [question for question in line.split("\\n") if question]
    assert len(questions) >= 4
    for question in questions:
        assert write_questions.is_held_out(question)
        assert question in answers
        assert question in (ROOT / "README.md").read_text(encoding="utf-8")
