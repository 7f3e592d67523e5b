"""TextModel and its commands read and generate text, and report the losses of the model."""

from __future__ import annotations

import json
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from commands import TOYNN, assert_refused, toynn
from toynn import (
    Evaluation,
    LlamaDecoder,
    Sampling,
    SessionError,
    SmolLM2Config,
    TinyNNTypeError,
    TinyNNValueError,
    generate,
    load,
    prepare,
)
from toynn.cli.app import app
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.text.documents import END_OF_TEXT
from toynn.text.tokenizer_json import ids_needed, needed_and_unused_ids

VOCAB = 300
CFG = SmolLM2Config(VOCAB, 32, 4, 2, 48, 2, 64, 10000.0, 1e-5)
TEXT = "The cat saw a hen. The hen saw a cat: \u201cgood day!\u201d \U0001f63a\n" * 9


def tokenizer(special: bool = True) -> bytes:
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END_OF_TEXT] if special else [],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(["The cat saw a hen."], trainer)
    return model.to_str().encode()


def make_run(folder: Path, cfg: SmolLM2Config = CFG, content: bytes | None = None, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(1.0 if "norm" in name else 0.0, 0.2, shape).astype(np.float32)
        for name, shape in weight_shapes(ModelShape.of(cfg)).items()
    }
    tokens = tokenizer() if content is None else content
    end = Tokenizer.from_str(tokens.decode()).token_to_id(END_OF_TEXT) if tokens else None
    write_checkpoint(folder, TrainedModel(ModelShape.of(cfg), weights, tokens or None, end, end), step=3)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


# ---- the model ----


def test_streamed_pieces_join_to_the_decoded_text(run: Path) -> None:
    """An untrained model samples random bytes. Many of the bytes are invalid or only parts of characters."""
    with load(run, n_threads=1) as model:
        for seed in range(5):
            sampling = Sampling(1.5, 0, 1.0, 0.0, seed)
            pieces = list(model.stream("The cat", temperature=1.5, top_k=0, top_p=1.0, seed=seed, max_tokens=40))
            model.decoder.rewind()
            stop = () if model.end_id is None else (model.end_id,)
            _, never = needed_and_unused_ids(model.tokenizer, VOCAB)
            tokens = list(generate(model.decoder, model.encode("The cat"), sampling, 40, stop, never=never))
            assert "".join(pieces) == model.tokenizer.decode(tokens, skip_special_tokens=False)
            assert all(pieces)


@pytest.mark.quick
def test_the_same_seed_gives_the_same_text_and_another_seed_another_text(run: Path) -> None:
    with load(run, n_threads=1) as model:
        texts = [model.generate("The", seed=seed, max_tokens=30) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.quick
@pytest.mark.parametrize("cache", ["f32", "f16"])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_batch_gives_each_prompt_the_text_that_it_gets_alone(run: Path, cache: str, greedy: bool) -> None:
    prompts = ["The cat", "", "a hen saw The cat. " * 3, "The cat", "x"]
    with load(run, n_threads=2, cache=cache) as model:
        alone = [model.generate(prompt, max_tokens=50, greedy=greedy, seed=4) for prompt in prompts]
        batch = model.generate_batch(prompts, max_tokens=50, greedy=greedy, seed=4)
        assert batch == alone
        assert [one.finish_reason for one in batch] == [one.finish_reason for one in alone]
        assert len({one.finish_reason for one in alone}) > 1
        assert model.generate("The cat", max_tokens=50, greedy=greedy, seed=4) == alone[0]


def test_a_wrong_prompt_of_a_batch_is_named(run: Path) -> None:
    with load(run, n_threads=1) as model:
        for prompts, error, mentions in (
            (["a", "b " * 200], TinyNNValueError, r"^prompts\[1\]: the prompt has .* but the context length is 64"),
            (["\ud800"], TinyNNValueError, r"^prompts\[0\]: .* is not Unicode text"),
            ("abc", TinyNNTypeError, "^prompts must be a sequence of strings, got str"),
            (["a", 7], TinyNNTypeError, r"^prompts\[1\]: "),
        ):
            with pytest.raises(error, match=mentions):
                model.generate_batch(prompts)  # type: ignore[arg-type]


def test_a_batch_checks_what_generate_checks(run: Path) -> None:
    with load(run, n_threads=1) as model:
        assert model.generate_batch([]) == []
        for call in (
            lambda: model.generate("a", greedy=True, top_p=2),
            lambda: model.generate_batch(["a"], greedy=True, top_p=2),
        ):
            with pytest.raises(TinyNNValueError, match="top_p"):
                call()
    with pytest.raises(SessionError, match="closed"):
        model.generate_batch([])


def test_the_command_passes_the_type_of_the_cache(run: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("The cat\n")
    for cache in ("f32", "f16"):
        with load(run, n_threads=1, cache=cache) as model:
            text = model.generate("The cat", max_tokens=40, seed=4)
        words = ["generate", str(run), "-n", "40", "--seed", "4", "--threads", "1", "--cache", cache]
        assert CliRunner().invoke(app, [*words, "-p", "The cat"]).stdout == f"The cat{text}\n"
        listed = CliRunner().invoke(app, [*words, "--prompts", str(tmp_path / "prompts.txt")])
        assert json.loads(listed.stdout)["text"] == text


def test_a_line_of_prompts_that_programs_read_differently_is_refused(run: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    for line, reason in (
        ('{"prompt": "cat", "prompt": "dog"}', "the key 'prompt' occurs more than once"),
        ('{"prompt": "cat", "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 100 deep"),
    ):
        prompts.write_text(line)
        done = CliRunner().invoke(app, ["generate", str(run), "--threads", "1", "--prompts", str(prompts)])
        assert done.exit_code == 2
        assert "prompts.jsonl, line 1: " in done.stderr
        assert reason in done.stderr


def test_an_evaluation_counts_the_loss_of_every_token_once(run: Path) -> None:
    with load(run, n_threads=1) as model:
        assert model.end_id is not None
        ids = [model.end_id, *model.encode(TEXT)]
        assert len(ids) > 2 * CFG.ctx
        for window in (None, 1, 7, 64):
            size = window or 64
            nats = sum(
                float(model.decoder.score(ids[at : at + size + 1]).sum(dtype=np.float64))
                for at in range(0, len(ids) - 1, size)
            )
            result = model.evaluate(TEXT, window)
            assert result.tokens == len(ids) - 1
            assert result.nats == pytest.approx(nats)
            assert result.loss == pytest.approx(nats / result.tokens)
            assert result.perplexity == pytest.approx(math.exp(result.loss))
            assert result.bits_per_byte == pytest.approx(nats / math.log(2) / len(TEXT.encode()))


@pytest.mark.parametrize(("window", "stride"), [(7, 1), (7, 3), (7, 7), (64, 10), (None, 32), (9, 5)])
def test_sliding_windows_count_the_last_tokens_of_each(run: Path, window: int | None, stride: int) -> None:
    """The test computes the losses directly, like the guide to perplexity of transformers, and compares the sums.

    In the guide a window of L tokens predicts L - 1 of them; here a window predicts as many tokens as it reads.
    """
    with load(run, n_threads=1) as model:
        assert model.start_id is not None
        ids = [model.start_id, *model.encode(TEXT)]
        longest = (window or CFG.ctx) + 1
        want: list[float] = []
        counted_to = 1  # the first token has no preceding token
        for begin in range(0, len(ids), stride):
            end = min(begin + longest, len(ids))
            want += model.decoder.score(ids[begin:end])[-(end - counted_to) :].tolist()
            counted_to = end
            if end == len(ids):
                break
        scores = model.score(TEXT, window, stride)
        assert [one.token for one in scores] == ids[1:]
        assert [-one.log_prob for one in scores] == want
        result = model.evaluate(TEXT, window, stride)
        assert result.tokens == len(ids) - 1
        assert result.nats == pytest.approx(math.fsum(want))
        if stride == window:
            assert result == model.evaluate(TEXT, window)


def test_the_text_of_an_evaluation_shows_its_figures() -> None:
    shown = repr(Evaluation(4, 10, 8.0))
    assert shown == "Evaluation(loss=2.0000, perplexity=7.3891, bits_per_byte=1.1542, tokens=4, text_bytes=10)"
    assert str(Evaluation(4, 10, 8.0)) == shown


def test_the_end_of_a_text_has_a_reason(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with load(run, n_threads=1) as model:
        cut = model.stream("The cat", max_tokens=3, greedy=True)
        assert cut.finish_reason is None
        next(cut)
        assert cut.finish_reason is None, "the text has not ended yet"
        rest = "".join(cut)
        assert cut.finish_reason == "max_tokens"
        assert next(cut, None) is None
        assert cut.finish_reason == "max_tokens", "asking again must not change the reason"
        assert rest
        for settings, reason in (
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": 5}, "max_tokens"),
            ({"max_tokens": 500}, "context_full"),
            ({"max_tokens": 500, "rolling": True}, "max_tokens"),
        ):
            text = model.generate("The cat", greedy=True, **settings)  # type: ignore[arg-type]
            assert text.finish_reason == reason
            assert isinstance(text, str)
        # With `last` tokens, both limits are reached at once: prompt and text have n_ctx + 1 tokens, and the model does
        # not read the last token.
        last = CFG.ctx + 1 - len(model.encode("The cat"))
        assert model.generate("The cat", greedy=True, max_tokens=last).finish_reason == "max_tokens"
        assert model.generate("The cat", greedy=True, max_tokens=last + 1).finish_reason == "context_full"
        model.decoder.rewind()
        first = next(
            generate(model.decoder, [5], Sampling.greedy(), 1, never=range(ids_needed(model.tokenizer), VOCAB))
        )
        monkeypatch.setattr(model, "end_ids", (0, first))
        monkeypatch.setattr(model, "_prompt_ids", lambda _: [5])
        ended = model.generate("x", greedy=True)
        assert (ended, ended.finish_reason) == ("", "end_of_text")


def test_an_interrupted_stream_has_no_reason(run: Path) -> None:
    with load(run, n_threads=1) as model:
        pieces = model.stream("The cat", greedy=True)
        next(pieces)
        model.evaluate(TEXT)
        with pytest.raises(SessionError):
            list(pieces)
        assert pieces.finish_reason is None


def test_ids_without_a_token_are_never_sampled(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has more ids than the tokenizer has tokens. In an untrained model, all ids are about equally likely."""
    with load(run, n_threads=1) as model:
        known = ids_needed(model.tokenizer)
        assert known < VOCAB - 5
        read: list[int] = []
        feed = model.decoder.feed

        def recorded(ids: list[int]) -> object:
            read.extend(ids)
            return feed(ids)

        monkeypatch.setattr(model.decoder, "feed", recorded)
        for seed in range(8):
            model.generate("The cat", temperature=9.0, top_k=0, top_p=1.0, max_tokens=60, seed=seed)
        assert len(read) > 300
        assert max(read) < known


@pytest.mark.parametrize(
    "text",
    [
        "The cat.\nIt saw.\n<|endoftext|>\nThe hen.\n<|endoftext|>\nThe hen saw.",
        "The cat.\r\n<|endoftext|>\r\nThe hen.\r\n",
        "The cat.\r<|endoftext|>\rThe hen.\r",
        "\ufeff<|endoftext|>\nThe cat.\n<|endoftext|>\n<|endoftext|>\nThe hen.\n<|endoftext|>\n",
    ],
    ids=["LF", "CR LF", "CR", "byte-order mark"],
)
def test_a_text_of_documents_is_evaluated_as_prepare_packs_it(run: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    with load(run, n_threads=1) as model:
        data = prepare(path, tmp_path / "data", tokenizer=model, validation=0, progress=False)
        split = data.meta.splits["train"]
        packed = np.fromfile(data.path / split.file, "<u2").tolist()
        assert packed.count(model.end_id) == text.count("The cat.") + text.count("The hen")
        assert model.start_id is not None
        ids = [model.start_id, *packed]
        want = sum(float(model.decoder.score(ids[at : at + 9]).sum()) for at in range(0, len(ids) - 1, 8))
        result = model.evaluate(text, 8)
        assert (result.tokens, result.text_bytes) == (split.tokens, split.bytes)
        assert result.nats == pytest.approx(want)
        scores = model.score(text, 8)
        assert [one.token for one in scores] == packed
    told = json.loads(toynn("eval", run, path, "--window", "8", "--json").stdout)
    assert (told["loss"], told["bits_per_byte"]) == (result.loss, result.bits_per_byte)
    assert told["bytes"] == result.text_bytes


def test_lines_of_another_separator_are_refused_unless_the_separator_is_named(run: Path) -> None:
    text = "The cat.\n</s>\nThe hen.\n</s>\n"
    with load(run, n_threads=1) as model:
        with pytest.raises(TinyNNValueError, match=r"text has 2 lines '</s>', but the separator is"):
            model.evaluate(text)
        with pytest.raises(TinyNNValueError, match=r"text has 2 lines '</s>', but the separator is"):
            model.score(text)
        divided = model.evaluate(text, separator="</s>")
        assert divided.text_bytes == len("The cat.\nThe hen.\n")
        assert divided == model.evaluate(text.replace("</s>", END_OF_TEXT))
        for separator in (END_OF_TEXT, ""):
            whole = model.evaluate(text, separator=separator)
            assert (whole.text_bytes, whole.tokens) == (len(text), len(model.encode(text)))


def test_wrong_texts_are_refused_by_generate_and_evaluate(run: Path) -> None:
    with load(run, n_threads=1) as model:
        with pytest.raises(TinyNNValueError, match=r"the prompt has .* tokens, but the context length is 64"):
            model.generate(TEXT * 9, max_tokens=3)
        with pytest.raises(TinyNNTypeError, match="prompt must be a str"):
            model.generate(b"x", max_tokens=3)  # type: ignore[arg-type]
        with pytest.raises(TinyNNValueError, match="too short"):
            model.evaluate("")
        with pytest.raises(TinyNNValueError, match="window"):
            model.evaluate(TEXT, 65)
        for stride in (0, 8):
            with pytest.raises(TinyNNValueError, match=r"^stride must be an integer from 1 to 7"):
                model.evaluate(TEXT, 7, stride)
        with pytest.raises(TinyNNTypeError, match=r"^stride"):
            model.score(TEXT, stride=2.0)  # type: ignore[arg-type]


def test_an_empty_prompt_starts_with_the_separator(run: Path, tmp_path: Path) -> None:
    with load(run, n_threads=1) as model:
        assert isinstance(model.generate(max_tokens=5), str)
        assert model.decoder.n_past > 0
    with load(make_run(tmp_path / "b", content=tokenizer(special=False)), n_threads=1) as model:
        with pytest.raises(TinyNNValueError, match="the prompt has no tokens"):
            model.generate("", max_tokens=5)
        assert model.evaluate("ab cd").tokens == len(model.encode("ab cd")) - 1


@pytest.mark.parametrize("text", ["a\udcffb", "\ud800"])
def test_text_that_is_not_valid_unicode_is_refused(run: Path, text: str) -> None:
    with load(run, n_threads=1) as model:
        with pytest.raises(TinyNNValueError, match=r"^text is not Unicode text: surrogates not allowed at character"):
            model.encode(text)
        with pytest.raises(TinyNNValueError, match=r"^text is not Unicode text"):
            model.evaluate(text)
        with pytest.raises(TinyNNValueError, match=r"^prompt is not Unicode text"):
            model.stream(text, max_tokens=3)


def test_a_stream_ends_with_an_error_after_another_stream_used_the_decoder(run: Path) -> None:
    """The second text is as long as the first text, so the number of tokens read does not show the change."""
    with load(run, n_threads=1) as model:
        pieces = model.stream("The cat", greedy=True, max_tokens=20)
        next(pieces)
        other = model.stream("a hen. The hen saw", greedy=True, max_tokens=20)
        next(other)
        with pytest.raises(SessionError, match="has read other tokens since"):
            list(pieces)
        assert "".join(other), "the second text must continue"
        pieces = model.stream("The cat", greedy=True, max_tokens=20)
        next(pieces)
        model.evaluate(TEXT)
        with pytest.raises(SessionError, match="has read other tokens since"):
            list(pieces)


def test_truncation_and_padding_of_the_tokenizer_are_ignored(run: Path, tmp_path: Path) -> None:
    """In an earlier version, truncation made bits per byte ten times too small, because most text was not read."""
    described = Tokenizer.from_str(tokenizer().decode())
    described.enable_truncation(10)
    described.enable_padding(length=50, pad_id=3)
    content = described.to_str().encode()
    with load(run, n_threads=1) as plain:
        other = make_run(tmp_path / "other", content=content)
        with load(other, n_threads=1) as model:
            assert model.evaluate(TEXT) == plain.evaluate(TEXT)
    kept = load_checkpoint(other).model.tokenizer
    assert kept == content, "the file must not change"


def test_a_tokenizer_with_dropout_is_refused(tmp_path: Path) -> None:
    described = json.loads(tokenizer())
    described["model"]["dropout"] = 0.5
    with pytest.raises(TinyNNValueError, match=r"the tokenizer of .* cannot be used: the dropout is 0\.5"):
        load(make_run(tmp_path / "run", content=json.dumps(described).encode()), n_threads=1)


def test_a_run_without_a_fitting_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"has no tokenizer\.json"):
        load(make_run(tmp_path / "a", content=b""))
    narrow = SmolLM2Config(200, 32, 4, 2, 48, 2, 64, 10000.0, 1e-5)
    with pytest.raises(TinyNNValueError, match=r"needs .* ids, but the vocabulary of the model has only 200"):
        load(make_run(tmp_path / "b", cfg=narrow))


def test_a_text_model_computes_the_same_as_its_decoder(run: Path) -> None:
    checkpoint = load_checkpoint(run)
    with load(run) as model, LlamaDecoder(CFG, checkpoint.model.weights, untied=False) as decoder:
        assert model.step == 3
        assert model.decoder.feed([1, 2, 3]).tobytes() == decoder.feed([1, 2, 3]).tobytes()


# ---- the commands ----


@pytest.mark.quick
def test_toynn_generate_prints_the_prompt_and_its_continuation(run: Path) -> None:
    done = toynn("generate", run, "-p", "The cat", "-n", "12", "--seed", "4", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The cat")
    told = toynn("generate", run, "-p", "-", "-n", "12", "--seed", "4", "--json", stdin="The cat")
    result = json.loads(told.stdout)
    assert "The cat" + result["text"] + "\n" == done.stdout
    assert result["step"] == 3
    assert toynn("generate", run, "-p", "The cat", "-n", "12", "--greedy").returncode == 0


def test_toynn_generate_says_why_a_text_is_cut_off(run: Path) -> None:
    def told(*options: str) -> tuple[str, str]:
        done = toynn("generate", run, "-p", "The cat", "--greedy", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    assert told("-n", "5")[1] == ""
    full, note = told("-n", "500")
    assert note == "note: the text ends here because the context of 64 tokens is full; --rolling continues the text\n"
    rolled, note = told("-n", "500", "--rolling")
    assert note == ""
    assert rolled.startswith(full.removesuffix("\n"))
    assert len(rolled) > len(full)
    note = told("--rolling")[1]
    assert note == "note: the text ends here after 200 tokens; --max-tokens changes this\n"
    out, note = told("--json", "-n", "500")
    assert (json.loads(out)["finish_reason"], note) == ("context_full", "")


@pytest.mark.parametrize("change", ["eos_id", "other_eos_ids"])
def test_the_end_of_a_text_by_the_model_is_reported(run: Path, tmp_path: Path, change: str) -> None:
    """The test makes the second generated token an end token of the model: the only end token, or one of several."""
    checkpoint = load_checkpoint(run)
    with load(run) as model:
        _, never = needed_and_unused_ids(model.tokenizer, VOCAB)
        prompt = model.encode("The cat")
        tokens = list(generate(model.decoder, prompt, Sampling.greedy(), 2, never=never))
        assert tokens[0] != tokens[1]
        text = model.decode(prompt + tokens[:1])
    ends: dict[str, Any] = {change: tokens[1] if change == "eos_id" else (1, tokens[1])}
    write_checkpoint(tmp_path / "ends", replace(checkpoint.model, **ends))
    told = json.loads(toynn("generate", tmp_path / "ends", "-p", "The cat", "--greedy", "--json").stdout)
    assert ("The cat" + told["text"], told["finish_reason"]) == (text, "end_of_text")
    done = toynn("generate", tmp_path / "ends", "-p", "The cat", "--greedy")
    assert (done.stdout, done.stderr) == (f"{text}\n", "")


def test_one_newline_at_the_end_of_stdin_is_dropped(run: Path) -> None:
    def prompt(given: str, *options: str) -> object:
        done = toynn("generate", run, "-p", "-", "-n", "3", "--greedy", "--json", *options, stdin=given)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["prompt"]

    assert prompt("The cat\n") == "The cat"
    assert prompt("The cat\r\n") == "The cat"
    assert prompt(" The\ncat\n\n") == " The\ncat\n"
    assert prompt("\ufeffThe cat") == "The cat"
    assert prompt("The cat\n", "--keep-newline") == "The cat\n"
    assert_refused(toynn("generate", run, "-p", "x", "--keep-newline"), "--keep-newline is for a prompt from stdin")


@pytest.mark.parametrize(
    ("given", "says"),
    [("The cat".encode("utf-16"), "it is UTF-16: save it as UTF-8"), (b"The c\xe4t", "byte 5 is 0xe4")],
)
def test_a_prompt_on_stdin_that_is_not_utf_8_is_refused(run: Path, given: bytes, says: str) -> None:
    done = subprocess.run([*TOYNN, "generate", run, "-p", "-"], capture_output=True, check=False, input=given)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"toynn: stdin is not UTF-8")
    assert says in done.stderr.decode()


def test_nothing_is_printed_before_a_prompt_is_refused(run: Path) -> None:
    assert_refused(toynn("generate", run, "-p", TEXT * 9), "but the context length is 64")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii:surrogateescape"])
def test_a_stdout_that_is_not_utf_8_gets_the_whole_text(run: Path, encoding: str) -> None:
    """Characters that stdout cannot encode are replaced; an untrained model writes many of them."""
    options = ["-p", "x\u20acy", "-n", "60", "--rolling", "--temperature", "3", "--top-k", "0", "--seed", "1"]
    with load(run) as model:
        text = model.generate("x\u20acy", max_tokens=60, rolling=True, temperature=3.0, top_k=0, seed=1)
    done = subprocess.run(
        [*TOYNN, "generate", run, *options], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    if encoding == "latin-1":
        assert done.stdout == f"x?y{text}\n".encode("latin-1", "replace")
    else:  # click treats ASCII as a wrong setting of the system, and writes UTF-8
        assert done.stdout == f"x\u20acy{text}\n".encode()


def test_toynn_eval_reports_loss_perplexity_and_bits_per_byte(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    told = json.loads(toynn("eval", run, path, "--json").stdout)
    with load(run) as model:
        result = model.evaluate(TEXT)
    assert told["loss"] == result.loss
    assert told["bits_per_byte"] == result.bits_per_byte
    told = json.loads(toynn("eval", run, path, "--json", "--window", "20", "--stride", "6").stdout)
    with load(run) as model:
        assert told["loss"] == model.evaluate(TEXT, 20, 6).loss != result.loss
    plain = toynn("eval", run, path)
    assert f"{result.perplexity:.2f}" in plain.stdout
    assert max(map(len, plain.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "NOWHERE"], "NOWHERE"),
        (["generate", "RUN", "--temperature", "-1"], "temperature"),
        (["generate", "EMPTY"], "toynn: "),
        (["eval", "RUN", "TEXT", "--stride", "65"], "stride must be an integer from 1 to 64"),
        (["eval", "RUN", "BINARY"], "not UTF-8: byte 0 is 0xff"),
        (["eval", "RUN", "NOWHERE"], "NOWHERE"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_status_2(words: list[str], says: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    places = {"TEXT": tmp_path / "text", "RUN": run, "EMPTY": tmp_path / "empty", "BINARY": tmp_path / "binary"}
    done = toynn(*(places.get(word, word) for word in words))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
