"""TextModel and its commands: they read and write text, and the figures are those of the model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from commands import toynn
from toynn import LlamaDecoder, Sampling, SessionError, SmolLM2Config, TinyNNTypeError, TinyNNValueError, generate, load
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint
from toynn.text.documents import END_OF_TEXT

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
    """An untrained model samples random bytes; many are parts of characters or invalid."""
    with load(run, n_threads=1) as model:
        for seed in range(5):
            sampling = Sampling(1.5, 0, 1.0, 0.0, seed)
            pieces = list(model.stream("The cat", temperature=1.5, top_k=0, top_p=1.0, seed=seed, max_tokens=40))
            model.decoder.rewind()
            stop = () if model.end_id is None else (model.end_id,)
            tokens = list(generate(model.decoder, model.encode("The cat"), sampling, 40, stop))
            assert "".join(pieces) == model.tokenizer.decode(tokens, skip_special_tokens=False)
            assert all(pieces)


@pytest.mark.quick
def test_the_same_seed_gives_the_same_text_and_another_seed_another_text(run: Path) -> None:
    with load(run, n_threads=1) as model:
        texts = [model.generate("The", seed=seed, max_tokens=30) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


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


def test_wrong_texts_are_refused_by_generate_and_evaluate(run: Path) -> None:
    with load(run, n_threads=1) as model:
        with pytest.raises(TinyNNValueError, match=r"the prompt has .* tokens, more than the context length 64"):
            model.generate(TEXT * 9, max_tokens=3)
        with pytest.raises(TinyNNTypeError, match="prompt must be a str"):
            model.generate(b"x", max_tokens=3)  # type: ignore[arg-type]
        with pytest.raises(TinyNNValueError, match="too short"):
            model.evaluate("")
        with pytest.raises(TinyNNValueError, match="window"):
            model.evaluate(TEXT, 65)


def test_an_empty_prompt_starts_with_the_separator(run: Path, tmp_path: Path) -> None:
    with load(run, n_threads=1) as model:
        assert isinstance(model.generate(max_tokens=5), str)
        assert model.decoder.n_past > 0
    with load(make_run(tmp_path / "b", content=tokenizer(special=False)), n_threads=1) as model:
        with pytest.raises(TinyNNValueError, match="the prompt is empty"):
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


def test_a_stream_ends_with_an_error_after_another_one_used_the_decoder(run: Path) -> None:
    """The second prompt has as many tokens as the decoder had read of the first, so counts do not show the change."""
    with load(run, n_threads=1) as model:
        pieces = model.stream("The cat", greedy=True, max_tokens=20)
        next(pieces)
        other = model.stream("a hen. The hen saw", greedy=True, max_tokens=20)
        next(other)
        with pytest.raises(SessionError, match="has read something else since"):
            list(pieces)
        assert "".join(other), "the second text must continue"
        pieces = model.stream("The cat", greedy=True, max_tokens=20)
        next(pieces)
        model.evaluate(TEXT)
        with pytest.raises(SessionError, match="has read something else since"):
            list(pieces)


def test_truncation_and_padding_of_the_tokenizer_are_ignored(run: Path, tmp_path: Path) -> None:
    """With truncation, bits per byte were a tenth of the right value, because most of the text was not read."""
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
    with pytest.raises(TinyNNValueError, match=r"the tokenizer of .* cannot be used: its dropout is 0\.5"):
        load(make_run(tmp_path / "run", content=json.dumps(described).encode()), n_threads=1)


def test_a_run_without_a_fitting_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"has no tokenizer\.json"):
        load(make_run(tmp_path / "a", content=b""))
    narrow = SmolLM2Config(200, 32, 4, 2, 48, 2, 64, 10000.0, 1e-5)
    with pytest.raises(TinyNNValueError, match=r"needs .* ids, but the model's vocabulary has 200"):
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


def test_toynn_eval_reports_loss_perplexity_and_bits_per_byte(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    told = json.loads(toynn("eval", run, path, "--json").stdout)
    with load(run) as model:
        result = model.evaluate(TEXT)
    assert told["loss"] == result.loss
    assert told["bits_per_byte"] == result.bits_per_byte
    plain = toynn("eval", run, path)
    assert f"{result.perplexity:.2f}" in plain.stdout
    assert max(map(len, plain.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "NOWHERE"], "NOWHERE"),
        (["generate", "RUN", "--temperature", "-1"], "temperature"),
        (["generate", "EMPTY"], "toynn: "),
        (["eval", "RUN", "BINARY"], "not UTF-8: byte 0 is 0xff"),
        (["eval", "RUN", "NOWHERE"], "NOWHERE"),
    ],
)
def test_wrong_input_gives_one_line_and_exit_status_2(words: list[str], says: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    places = {"RUN": run, "EMPTY": tmp_path / "empty", "BINARY": tmp_path / "binary"}
    done = toynn(*(places.get(word, word) for word in words))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
