"""Training a tokenizer: division into words, very long words, limits on memory, and a process that can be stopped."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from paths import CORPUS
from processes import run_with_toynn
from toynn import TinyNNMemoryError
from toynn.data import load_meta
from toynn.data.bpe_process import LONGEST_WORD, WORDS
from toynn.data.learning import learned_bpe
from toynn.data.prepare import END_OF_TEXT, prepare


def words_of(text: str) -> list[str]:
    """Return the words of a text in the byte-level alphabet."""
    rules = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return [word for word, _ in rules.pre_tokenize_str(text)]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("aB1 \n\t'st.\u00a0\x1c\u4f60"), st.characters()), max_size=300))
def test_short_words_are_split_like_in_the_library(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode("utf-8")
    expected = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert words_of(text) == [word for word, _ in expected]


@pytest.mark.parametrize("character", ["a", "\U0001d54f", "7", "!", " ", "\n"])
def test_long_words_are_split_between_characters(character: str) -> None:
    n = 3 * LONGEST_WORD + 7
    words = words_of(character * n)
    size = len(character.encode("utf-8"))
    assert [len(word) for word in words] == [LONGEST_WORD * size] * 3 + [7 * size]


def test_the_learned_tokenizer_equals_that_of_the_library() -> None:
    text = CORPUS.read_text(encoding="utf-8")[:300_000]
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator([text], trainer)
    assert learned_bpe(iter([text]), len(text.encode()), 1000, END_OF_TEXT).to_str() == model.to_str()


@pytest.mark.parametrize("text", ["\U0001d54f\u00e9" * 50_000, "ab" * 500_000], ids=["two characters", "ab"])
def test_a_tokenizer_can_be_learned_from_one_very_long_word(text: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text(text, encoding="utf-8")
    prepare([tmp_path / "text"], tmp_path / "data", vocab_size=300, validation=0.0)
    tokenizer = Tokenizer.from_file(str(tmp_path / "data/tokenizer.json"))
    assert max(map(len, tokenizer.get_vocab())) > 100
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_vocabulary_larger_than_the_texts_allow_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some words, and some more words\n" * 20)
    for size, name in ((2000, "a"), (2**31 - 1, "b")):
        prepare([tmp_path / "text"], tmp_path / name, vocab_size=size)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    assert 257 < load_meta(tmp_path / "b").vocab_size < 2000


def test_a_vocabulary_too_large_for_memory_is_refused_with_its_size() -> None:
    with pytest.raises(
        TinyNNMemoryError, match=r"^vocab_size: the tables for learning 2147483647 tokens need 214748364700 bytes"
    ):
        learned_bpe(iter(["a b"]), 2**40, 2**31 - 1, "")


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer needs the addresses")
def test_a_library_crash_for_lack_of_memory_becomes_an_error() -> None:
    out = run_with_toynn("""
        from toynn.data import learning
        learning.want_memory = lambda *_: None  # as if memory ran out after the check
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        try:
            learning.learned_bpe(iter(["a b"]), 2**40, 2**31 - 1, "")
        except TinyNNMemoryError as error:
            print(error)
    """)
    assert out.startswith(
        "vocab_size: there is not enough memory to learn 2147483647 tokens from these texts (memory all"
    )


def test_an_error_raised_by_the_texts_is_passed_on() -> None:
    def texts() -> object:
        yield "a b"
        raise ZeroDivisionError("the third text")

    with pytest.raises(ZeroDivisionError, match="the third text"):
        learned_bpe(texts(), 100, 300, "")  # type: ignore[arg-type]


LEARNS_FOR_MINUTES = """
import sys
from pathlib import Path
from toynn.data.prepare import prepare
try:
    prepare([Path("text")], Path("data"), vocab_size=10**6, progress=lambda *told: print(*told, flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.fixture
def learner(tmp_path: Path) -> subprocess.Popen[str]:
    """Return a process that has started to train a tokenizer and leads its own process group."""
    rng = random.Random(0)
    text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6_000_000))
    (tmp_path / "text").write_text(text)
    child = subprocess.Popen(
        [sys.executable, "-c", LEARNS_FOR_MINUTES],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline().startswith("learning")
    return child


def wait_for_the_end_of(group: int) -> None:
    """Wait until no process of the group is left. If this takes too long, the test fails."""
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("a process of the group is still running")


@pytest.mark.parametrize("to_all", [False, True], ids=["the caller", "the terminal's group"])
def test_ctrl_c_stops_learning_and_leaves_no_process(learner: subprocess.Popen[str], to_all: bool) -> None:
    (os.killpg if to_all else os.kill)(learner.pid, signal.SIGINT)
    try:
        out, _ = learner.communicate(timeout=60)
    finally:
        learner.kill()
    assert out.endswith("interrupted\n")
    wait_for_the_end_of(learner.pid)


def test_the_learning_process_ends_with_its_parent(learner: subprocess.Popen[str]) -> None:
    learner.kill()
    learner.communicate()
    wait_for_the_end_of(learner.pid)
