"""Samples to packed tokens: what counts for the loss, truncation, weights, splits, and the files of a data folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import toynn
from chat_templates import CHATML, TEMPLATES
from commands import toynn as command
from toynn import FileFormatError, TinyNNTypeError, TinyNNValueError
from toynn.data import DataFolder, PackedTokens, WindowBatcher, load_meta
from toynn.data.samples.encoding import Encoder
from toynn.data.samples.rendering import Place, Rendered
from toynn.data.samples.settings import SampleSettings
from toynn.data.samples.splits import Division
from toynn.data.sources import Text
from toynn.llm.labels import IGNORED

WORDS = [
    "an",
    "owl",
    "sat",
    "in",
    "the",
    "barn",
    "and",
    "the",
    "mice",
    "kept",
    "very",
    "still",
    "until",
    "the",
    "moon",
    "had",
    "gone",
]


def say(i: int, n: int = 4) -> str:
    return " ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(n))


def chat(i: int, turns: int = 2) -> list[dict[str, str]]:
    found = [{"role": "system", "content": f"rule {i}"}]
    for k in range(turns):
        found += [{"role": "user", "content": f"q{i}.{k} {say(i)}"}, {"role": "assistant", "content": f"a{i}.{k}"}]
    return found


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lines(tmp_path_factory.mktemp("chats") / "chats.jsonl", [{"messages": chat(i)} for i in range(30)])


@pytest.fixture(scope="module")
def tokenizer(chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    toynn.prepare(chats, folder / "data", vocab_size=300, chat_template="chatml", progress=False)
    return folder / "data" / "tokenizer.json"


def samples_in(folder: Path, split: str = "train") -> list[str]:
    """Return the samples of a split as text, with the counted tokens in [[ and ]]."""
    data = DataFolder.open(folder)
    packed: PackedTokens = getattr(data, split)
    assert data.tokenizer is not None
    assert packed.starts is not None
    model = Tokenizer.from_str(data.tokenizer.decode())
    counted = np.ones(len(packed), np.uint8) if packed.counted is None else packed.counted
    ends = [*packed.starts[1:], len(packed)]
    found = []
    for start, end in zip(packed.starts, ends, strict=True):
        text, marks = "", [0, *counted[start:end].tolist(), 0]
        for n, token in enumerate(packed.tokens[start:end], 1):
            opens, closes = marks[n] > marks[n - 1], marks[n] > marks[n + 1]
            text += "[[" * opens + model.decode([int(token)], skip_special_tokens=False) + "]]" * closes
        found.append(text)
    return found


def prepared(paths: Any, out: Path, tokenizer: Path | None = None, **options: Any) -> list[str]:
    """Prepare all samples for training and return them as text."""
    options = {"chat_template": "chatml", "validation": 0, **options}
    toynn.prepare(paths, out, tokenizer=tokenizer, vocab_size=None if tokenizer else 300, progress=False, **options)
    return samples_in(out)


# ---- tokens that count ----


@pytest.mark.quick
def test_only_answers_count(chats: Path, tmp_path: Path, tokenizer: Path) -> None:
    (system, first, one, second, two) = (f"<|im_start|>{m['role']}\n" + m["content"] + "<|im_end|>\n" for m in chat(0))
    begin, one = f"{system}{first}<|im_start|>assistant\n", one.removeprefix("<|im_start|>assistant\n")
    middle, two = f"{second}<|im_start|>assistant\n", two.removeprefix("<|im_start|>assistant\n")
    expected = {
        "assistant": f"{begin}[[{one}]]{middle}[[{two}]]",
        "last": f"{begin}{one}{middle}[[{two}]]",
        "all": f"[[{begin}{one}{middle}{two}]]",
    }
    for loss, sample in expected.items():
        found = prepared(chats, tmp_path / loss, tokenizer, loss=loss)
        assert (len(found), found[0]) == (30, sample)
    meta = load_meta(tmp_path / "all")
    assert meta.loss == "all"
    samples = meta.splits["train"].samples
    assert samples is not None
    assert (samples.counted, samples.counted_tokens) == (None, meta.splits["train"].tokens)
    assert not (tmp_path / "all" / "train.counted.bin").exists()


def test_prompts_texts_and_plain_texts_are_samples(tmp_path: Path) -> None:
    end = "<|endoftext|>"
    prompts = lines(tmp_path / "p", [{"prompt": "Why?\n", "completion": "So."}, {"prompt": "", "completion": "x"}])
    texts = lines(tmp_path / "t", [{"text": "one\ntwo"}, {"text": ""}])
    (tmp_path / "plain").write_text(f"first\n{end}\nsecond\n")
    found = prepared([prompts, texts, tmp_path / "plain"], tmp_path / "out", chat_template=None)
    assert found == [f"Why?\n[[So.{end}]]", f"[[x{end}]]", f"[[one\ntwo{end}]]", f"[[{end}]]", f"[[first\n{end}]]",
                     f"[[second\n{end}]]"]  # fmt: skip
    meta = load_meta(tmp_path / "out")
    assert [one.samples.format for one in meta.sources if one.samples] == ["prompt", "text", "plain"]
    assert meta.chat_template is None
    assert prepared(prompts, tmp_path / "all", loss="all", eos="", chat_template=None) == ["[[Why?\nSo.]]", "[[x]]"]


def test_a_prompt_of_messages_counts_after_the_generation_prompt(tmp_path: Path, tokenizer: Path) -> None:
    messages = chat(0)
    path = lines(tmp_path / "p", [{"prompt": messages[:4], "completion": messages[4:]}])
    (found,) = prepared(path, tmp_path / "out", tokenizer)
    assert found.count("[[") == 1
    assert found.endswith("<|im_start|>assistant\n[[a0.1<|im_end|>\n]]")


def test_the_template_of_the_model_is_used_with_its_tokens(tmp_path: Path, chats: Path, tokenizer: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(TEMPLATES["generation blocks"] + "{{ eos_token }}")
    found = prepared(chats, tmp_path / "one", tokenizer, chat_template=template)
    assert found[0].endswith("<|im_start|>assistant\n[[a0.1<|im_end|>]]\n<|endoftext|>")
    assert prepared(chats, tmp_path / "two", tmp_path / "one", chat_template=None) == found
    assert DataFolder.open(tmp_path / "two").chat_template == template.read_text()


def test_several_templates_are_chosen_by_name(tmp_path: Path, tokenizer: Path) -> None:
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "T{{ messages[1].content }}"}]
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": named}))
    path = lines(tmp_path / "c", [{"messages": chat(0), "tools": [{"name": "f"}]}, {"messages": chat(1)}])
    found = prepared(path, tmp_path / "out", tokenizer, chat_template=config, loss="all")
    assert found[0].startswith("[[Tq0.0 ")
    assert found[1].startswith("[[<|im_start|>system")
    config.write_text(json.dumps({"chat_template": [named[1], {"name": "x", "template": ""}]}))
    with pytest.raises(TinyNNValueError, match=r"one of the templates must be called 'default', got 'tool_use', 'x'$"):
        prepared(path, tmp_path / "no", tokenizer, chat_template=config)
    config.write_text(json.dumps({"chat_template": [1]}))
    with pytest.raises(
        FileFormatError, match=r"tokenizer_config\.json: chat_template must be a text, or a list of obj"
    ):
        prepared(path, tmp_path / "no", tokenizer, chat_template=config)


@given(st.text("ab \u00e9\U0001f350\u0301\n<|im_end|>", max_size=30), st.data())
@settings(max_examples=150, deadline=None)
def test_a_token_counts_if_it_overlaps_a_span(byte_level: Tokenizer, text: str, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    spans = [(start, end) for start, end in zip(cuts[::2], cuts[1::2], strict=False) if end > start]
    encoder = Encoder(byte_level, None, None, SampleSettings())
    (found,) = encoder.encoded([Rendered(Place(0, 1), Text(""), text, spans, False)])
    offsets = byte_level.encode(text, add_special_tokens=False).offsets
    expected = [any(end > first and start < last for first, last in spans) for start, end in offsets]
    assert getattr(found, "counted").tolist() == expected  # noqa: B009 (the other type is an error)


@pytest.fixture(scope="module")
def byte_level(tokenizer: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer))


# ---- truncation and samples that are left out ----


def counts(folder: Path) -> dict[str, int]:
    (source,) = load_meta(folder).sources
    assert source.samples is not None
    return {name: getattr(source.samples, name) for name in ("samples", "longest", "truncated", "dropped", "skipped")}


def test_long_samples_lose_their_first_tokens(chats: Path, tmp_path: Path, tokenizer: Path) -> None:
    whole = prepared(chats, tmp_path / "whole", tokenizer)
    found = prepared(chats, tmp_path / "cut", tokenizer, max_tokens=40)
    assert counts(tmp_path / "cut") == {"samples": 30, "longest": 40, "truncated": 30, "dropped": 0, "skipped": 0}
    for before, after in zip(whole, found, strict=True):
        assert before.replace("[[", "").replace("]]", "").endswith(after.replace("[[", "").replace("]]", ""))
        assert before[-20:] == after[-20:]


def test_long_conversations_lose_their_oldest_turns(tmp_path: Path, tokenizer: Path) -> None:
    path = lines(
        tmp_path / "c", [{"messages": chat(0, 1)}, {"messages": chat(0, 5)}, {"prompt": "a b", "completion": "c d"}]
    )
    with pytest.raises(FileFormatError, match="line 3: the sample has no field 'messages'"):
        prepared(path, tmp_path / "no", tokenizer)
    path = lines(path, [{"messages": chat(0, 1)}, {"messages": chat(0, 5)}])
    (short, whole) = prepared(path, tmp_path / "whole", tokenizer)
    length = counts(tmp_path / "whole")["longest"]
    assert prepared(path, tmp_path / "same", tokenizer, max_tokens=length, truncate="turns") == [short, whole]
    found = prepared(path, tmp_path / "cut", tokenizer, max_tokens=length - 1, truncate="turns")
    first = whole.index("<|im_start|>user\nq0.0")
    assert found == [short, whole[:first] + whole[whole.index("<|im_start|>user\nq0.1") :]]
    assert counts(tmp_path / "cut")["truncated"] == 1
    data = DataFolder.open(tmp_path / "whole").train
    assert data.starts is not None
    one_turn = int(data.starts[1])
    assert prepared(path, tmp_path / "one", tokenizer, max_tokens=one_turn, truncate="turns")[1].count("user") == 1
    with pytest.warns(UserWarning, match=r"^1 sample was left out because it has too many tokens: .*c, line 2$"):
        assert prepared(path, tmp_path / "drop", tokenizer, max_tokens=one_turn, truncate="drop") == [short]
    assert counts(tmp_path / "drop") == {
        "samples": 1, "longest": one_turn, "truncated": 0, "dropped": 1, "skipped": 0,
    }  # fmt: skip
    with pytest.raises(TinyNNValueError, match=r"^texts: no sample is left for the train split: 2 samples were left "
                                               r"out because they have too many tokens; increase max_tok"):  # fmt: skip
        prepared(path, tmp_path / "none", tokenizer, max_tokens=one_turn - 1, truncate="turns")
    other = lines(tmp_path / "d", [{"messages": chat(0, 5)}] * 2)
    with pytest.warns(
        UserWarning, match=r"^all 2 samples were left out because they have too many tokens: .*d, line 1;"
    ):
        prepared([path, other], tmp_path / "part", tokenizer, max_tokens=one_turn, truncate="drop")
    silent = lines(tmp_path / "e", [{"messages": [{"role": "user", "content": "hm"}]}])
    with pytest.raises(TinyNNValueError, match=r": 1 sample was left out because none of its tokens counts for the "
                                               r"loss; add samples with answers, or use loss='all'$"):  # fmt: skip
        prepared(silent, tmp_path / "silent", tokenizer)


def test_samples_without_counted_tokens_are_named_and_counted(tmp_path: Path, tokenizer: Path) -> None:
    silent = {"messages": [{"role": "user", "content": "hm"}]}
    path = lines(tmp_path / "c", [silent, {"messages": chat(0)}, silent, silent, silent])
    with pytest.warns(UserWarning, match=r"^4 samples were left out because none of their tokens counts for the loss: "
                                         r"\S+c, line 1; \S+c, line 3; \S+c, line 4; \.\.\.$"):  # fmt: skip
        assert len(prepared(path, tmp_path / "out", tokenizer)) == 1
    assert counts(tmp_path / "out")["dropped"] == 4
    assert len(prepared(path, tmp_path / "all", tokenizer, loss="all")) == 5


def test_broken_samples_are_counted_with_those_that_the_template_refuses(tmp_path: Path, tokenizer: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text(TEMPLATES["system in the first user message"])
    wrong = {"messages": [{"role": "user", "content": "a"}] * 2}
    path = lines(tmp_path / "c", [{"messages": chat(0)}, wrong, {"messages": chat(1)}])
    path.write_text(path.read_text() + "\n{\n")
    for skip in (0, 1):
        with pytest.raises(FileFormatError, match="c, line"):
            prepared(path, tmp_path / "no", tokenizer, chat_template=template, skip_bad=skip)
        assert not (tmp_path / "no").exists()
    with pytest.warns(UserWarning, match=r"^2 broken samples were skipped: \S+c, line . *.*; \S+c, line "):
        prepared(path, tmp_path / "out", tokenizer, chat_template=template, skip_bad=2)
    assert (counts(tmp_path / "out")["samples"], counts(tmp_path / "out")["skipped"]) == (2, 2)


# ---- weights and splits ----


def test_weights_repeat_training_samples(tmp_path: Path) -> None:
    paths = [lines(tmp_path / name, [{"text": f"{name}{i}"} for i in range(400)]) for name in "abc"]
    folder = tmp_path / "out"
    toynn.prepare(paths, folder, vocab_size=300, weights=[1, 2.5, 0.25], validation=0.1, progress=False)
    found = {split: Counter(samples_in(folder, split)) for split in ("train", "validation")}
    assert set(found["validation"].values()) == {1}
    assert not set(found["train"]) & set(found["validation"])
    assert 90 <= len(found["validation"]) <= 150
    times = {name: Counter(n for text, n in found["train"].items() if text.startswith(f"[[{name}")) for name in "abc"}
    assert set(times["a"]) == {1}
    assert set(times["b"]) == {2, 3}
    assert times["b"][3] / times["b"].total() == pytest.approx(0.5, abs=0.1)
    assert set(times["c"]) == {1}
    held = Counter(text[2] for text in found["validation"])
    assert times["c"].total() / (400 - held["c"]) == pytest.approx(0.25, abs=0.08)
    assert times["a"].total() + held["a"] == times["b"].total() + held["b"] == 400


@given(st.integers(2, 40), st.floats(0.001, 0.999), st.integers(0, 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_no_split_is_empty(n: int, share: float, seed: int) -> None:
    division = Division(seed, share)
    for i in range(n):
        division.see(0, i)
    splits = Counter(division.split_of(0, i) for i in range(n))
    assert set(splits) == {"train", "validation"}


def test_plain_texts_keep_their_bytes_unless_a_weight_makes_them_samples(tmp_path: Path) -> None:
    text = "".join(f"{say(i, 9)}\n<|endoftext|>\n" for i in range(50))
    (tmp_path / "t.txt").write_text(text)
    one = toynn.prepare(tmp_path / "t.txt", tmp_path / "one", vocab_size=280, progress=False)
    same = toynn.prepare(
        tmp_path / "t.txt", tmp_path / "same", vocab_size=280, format="plain", weights=[1], progress=False
    )
    assert one.meta == same.meta
    assert "samples" not in (tmp_path / "one" / "meta.json").read_text()
    twice = toynn.prepare(tmp_path / "t.txt", tmp_path / "two", vocab_size=280, weights=[2], progress=False)
    assert twice.meta.splits["train"].documents == 2 * (50 - (twice.meta.splits["validation"].documents or 0))


# ---- arguments ----


@pytest.mark.quick
def test_wrong_arguments_are_refused(chats: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("some text\n")
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (
            chats,
            {},
            "chat_template: the samples are conversations, but the tokenizer comes without a chat template; giv",
        ),
        (chats, {"loss": "x"}, "loss must be one of 'assistant', 'last', 'all', got 'x'"),
        (chats, {"format": "x"}, "format must be one of 'messages', "),
        (chats, {"truncate": 1}, "truncate must be one of 'left', 'turns', 'drop', got 1"),
        (chats, {"max_tokens": 1}, "max_tokens must be an integer from 2 to 2147483647, got 1"),
        (chats, {"skip_bad": -1}, "skip_bad must be an integer from 0"),
        (chats, {"text_field": ""}, "text_field must be the name of a field, got an empty text"),
        (chats, {"weights": [1, 2]}, "weights must have one number for each of the 1 files, got 2"),
        (chats, {"weights": [0]}, "weights must be above 0 and at most 1000, got 0"),
        (chats, {"weights": [float("nan")]}, "weights must be above 0 and at most 1000, got nan"),
        (chats, {"chat_template": "chatml", "validation": 1}, "validation must be at least 0 and below 1"),
        (chats, {"chat_template": "chatml", "eos": "x"}, "eos: 'x' could occur in a text"),
        (chats, {"chat_template": plain.parent}, "is neither a checkpoint nor a run with a latest checkpoint"),
        (plain, {"loss": "last"}, "loss is for files of samples, such as JSON lines, but the files contain plain text"),
        (plain, {"max_tokens": 5}, "max_tokens is for files of samples"),
        (plain, {"chat_template": "chatml"}, "chat_template is for files of samples"),
    ]
    for path, options, message in wrong:
        with pytest.raises((TinyNNValueError, FileNotFoundError)) as error:
            toynn.prepare(path, tmp_path / "out", progress=False, **options)
        assert message in str(error.value)
        assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match=r"chat_template: 'nothing' does not exist; give a Jinja file, a model"):
        toynn.prepare(chats, tmp_path / "out", chat_template="nothing")
    with pytest.raises(TinyNNTypeError, match=r"^weights must be a sequence of numbers"):
        toynn.prepare(chats, tmp_path / "out", weights=1)  # type: ignore[arg-type]
    with pytest.raises(TinyNNValueError, match=r"^skip_bad is for files of samples"):
        toynn.prepare(documents=["a"], out=tmp_path / "out", skip_bad=1)
    with pytest.raises(TinyNNValueError, match=r"^format and weights are for files, but documents are given"):
        toynn.prepare(documents=["a"], out=tmp_path / "out", weights=[1])


def test_a_single_sample_cannot_be_divided(tmp_path: Path) -> None:
    path = lines(tmp_path / "c", [{"text": "one"}])
    with pytest.raises(TinyNNValueError, match=r"^validation: the only sample cannot be divided"):
        toynn.prepare(path, tmp_path / "out", vocab_size=280)
    path.write_text('{"text": "a"}\n{')
    with pytest.raises(FileFormatError, match="line 2: the text is not JSON"):
        toynn.prepare(path, tmp_path / "out", vocab_size=280)


# ---- files ----


@pytest.fixture(scope="module")
def folder(chats: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folder") / "data"
    toynn.prepare(chats, out, tokenizer=tokenizer, chat_template="chatml", validation=0.2, progress=False)
    return out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.counted.bin", b"\2", "each of its bytes must be 0 or 1, but one is 2"),
        ("train.counted.bin", None, "sha256 differs"),
        ("train.starts.bin", b"\xff" * 8, "its positions must not decrease"),
        ("train.starts.bin", None, "sha256 differs"),
        ("chat_template.jinja", None, "sha256 differs"),
    ],
)
def test_a_damaged_file_is_refused(
    folder: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    raw = bytearray((copy / name).read_bytes())
    before = hashlib.sha256(raw).hexdigest()
    raw[-len(content or b"x") :] = content or bytes([raw[-1] ^ 1])
    (copy / name).write_bytes(raw)
    if content is not None:  # meta.json gets the SHA-256 of the wrong content
        meta = (copy / "meta.json").read_text()
        assert meta.count(before) == 1
        (copy / "meta.json").write_text(meta.replace(before, hashlib.sha256(raw).hexdigest()))
    with pytest.raises(FileFormatError, match=f"is damaged: .*{message}"):
        DataFolder.open(copy)
    (copy / name).unlink()
    with pytest.raises((FileFormatError, FileNotFoundError)):
        DataFolder.open(copy)


def test_batches_ignore_targets_that_do_not_count(folder: Path) -> None:
    data = DataFolder.open(folder).train
    assert data.counted is not None
    for t_seq in (4, 16, 50):
        batcher = WindowBatcher(data.tokens, t_seq, 3, data.counted)
        plain = WindowBatcher(data.tokens, t_seq, 3)
        assert batcher.windows_per_epoch == plain.windows_per_epoch
        for i in range(0, 2 * batcher.windows_per_epoch, 7):
            ids, targets = batcher.window(i)
            start = batcher.start_of(i)
            tokens, marks = (one[start + 1 : start + 1 + t_seq] for one in (data.tokens, data.counted))
            assert ids.tolist() == data.tokens[start : start + t_seq].tolist()
            assert targets.tolist() == [int(t) if m else IGNORED for t, m in zip(tokens, marks, strict=True)]
            assert (targets != IGNORED).any()
        starts = {batcher.start_of(i) for i in range(batcher.windows_per_epoch)}
        useful = {one for i in range(plain.windows_per_epoch)
                  if data.counted[(one := plain.start_of(i)) + 1 : one + 1 + t_seq].any()}  # fmt: skip
        assert starts == useful
    with pytest.raises(TinyNNValueError, match=r"^counted: none of the [0-9]+ windows has a target that counts"):
        WindowBatcher(data.tokens, 8, 0, np.zeros(len(data), np.uint8)).window(0)
    wrong: Any
    for wrong in (np.zeros(3, np.uint8), np.zeros(len(data), np.int32)):
        with pytest.raises(TinyNNValueError, match=r"^counted must have shape"):
            WindowBatcher(data.tokens, 8, 0, wrong)
    with pytest.raises(TinyNNTypeError, match=r"^counted must be a plain numpy array"):
        WindowBatcher(data.tokens, 8, 0, [1])  # type: ignore[arg-type]


def test_the_command_prints_a_table(chats: Path, tokenizer: Path, tmp_path: Path) -> None:
    prompts = lines(tmp_path / "prompts.jsonl", [{"prompt": "a ", "completion": "b"}] * 4)
    words = ["prepare", str(chats), str(prompts), "--tokenizer", str(tokenizer), "--chat-template", "chatml",
             "--weights", "1,2", "--max-tokens", "60", "--truncate", "turns"]  # fmt: skip
    done = command(*words, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[:4]]
    assert rows[0] == ["source", "format", "weight", "samples", "tokens", "counted", "longest", "truncated", "dropped",
                       "skipped"]  # fmt: skip
    assert [row[0] for row in rows[1:]] == ["chats.jsonl", "prompts.jsonl", "all"]
    shown = json.loads(command(*words, "--out", str(tmp_path / "json"), "--json").stdout)
    meta = load_meta(tmp_path / "json")
    assert rows[3][1:3] == [str(sum(one["samples"] for one in shown["sources"].values())),
                            str(sum(split.tokens for split in meta.splits.values()))]  # fmt: skip
    assert rows[1][-3] == str(shown["sources"]["chats.jsonl"]["truncated"])
    assert int(rows[1][-3]) > 5
    wrong = command("prepare", str(chats), "--out", str(tmp_path / "no"), "--weights", "x")
    assert (wrong.returncode, wrong.stderr) == (2, "toynn: --weights must be numbers such as 1,2.5, got 'x'\n")


def test_samples_are_shown_with_their_counted_tokens(folder: Path, chats: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        done = command("data", "show", str(folder), "-n", "2", "--from", "1", "--split", split)
        assert done.returncode == 0, done.stderr
        expected = samples_in(folder, split)[1:3]
        counts = [line for line in done.stdout.splitlines() if line.startswith("---")]
        assert [line.split(":")[0] for line in counts] == ["--- sample 1", "--- sample 2"]
        assert done.stdout == "".join(f"{line}\n{text}\n" for line, text in zip(counts, expected, strict=True))
    (shown,) = map(json.loads, command("data", "show", str(folder), "-n", "1", "--json").stdout.splitlines())
    data = DataFolder.open(folder).train
    assert data.counted is not None
    n = len(shown["ids"])
    assert shown["ids"] == data.tokens[:n].tolist()
    assert shown["counted"] == (data.counted[:n] == 1).tolist()
    assert (
        "".join(f"[[{one['text']}]]" if one["counted"] else one["text"] for one in shown["parts"])
        == (samples_in(folder)[0])
    )
    wrong = command("data", "show", str(folder), "--from", "999")
    split = f"the train split of {folder} has only {len(samples_in(folder))} samples, numbered from 0"
    assert (wrong.returncode, wrong.stderr) == (2, f"toynn: --from 999 is too large: {split}\n")


def test_documents_of_plain_text_are_shown(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("".join(f"document {i}\n<|endoftext|>\n" for i in range(5)))
    toynn.prepare(tmp_path / "t.txt", tmp_path / "out", vocab_size=280, validation=0, progress=False)
    done = command("data", "show", str(tmp_path / "out"), "-n", "9")
    texts = [line for line in done.stdout.splitlines() if not line.startswith("---")]
    assert texts == [one for i in range(5) for one in (f"[[document {i}", "<|endoftext|>]]")]
