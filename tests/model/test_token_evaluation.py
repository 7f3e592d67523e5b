"""`eval_ce`, `lmc` and the log-probabilities of next tokens: compared with the float64 oracle, and wrong arguments."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import toynn
from interop_models import make
from oracle import llama_numpy
from small_runs import make_data
from toynn import TinyNNTypeError, TinyNNValueError, eval_ce, lmc, load
from toynn.api.evaluation import top_log_probs
from toynn.data import PackedTokens
from toynn.data.token_file import write_token_file
from toynn.llm.labels import next_token
from toynn.llm.layouts import to_per_head
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import write_checkpoint

NAME = "qkv_bias"
VOCAB = 512


def float64_logits(model: TrainedModel, ids: list[int]) -> np.ndarray:
    weights = {name: v.astype(np.float64) for name, v in to_per_head(model.weights, model.shape).items()}
    return llama_numpy.forward(model.shape, weights, ids, list(range(len(ids))), len(ids), 1)


def float64_ce(model: TrainedModel, ids: list[int], window: int) -> float:
    """Return the mean loss over complete windows. The last id of each window predicts itself, as in the Ruby project
    toy.
    """
    losses = []
    for start in range(0, len(ids) - window + 1, window):
        part = ids[start : start + window]
        labels = next_token(part, model.shape.vocab, window, 1)
        losses.append(llama_numpy.cross_entropy(float64_logits(model, part), labels))
    return float(np.mean(losses))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


@pytest.fixture(scope="module")
def ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Return a file of 70 ids with a header, and its ids."""
    values = np.random.default_rng(3).integers(0, VOCAB, 70).tolist()
    path = tmp_path_factory.mktemp("ids") / "ids.bin"
    write_token_file(path, values, VOCAB)
    return path, values


# ---- the loss in windows ----


@pytest.mark.parametrize("name", [NAME, "projection lens"])
def test_the_loss_in_windows_agrees_with_the_oracle(name: str, ids: tuple[Path, list[int]]) -> None:
    model, (path, values) = make(name), ids
    found = eval_ce(model, path, n_threads=1)
    assert (found.windows, found.tokens) == (2, 64)
    assert found.ce == pytest.approx(float64_ce(model, values, 32), rel=1e-5)
    found = eval_ce(model, path, window=8, tokens=30, offset=5, n_threads=1)
    assert (found.windows, found.tokens) == (3, 24)
    assert found.ce == pytest.approx(float64_ce(model, values[5:29], 8), rel=1e-5)


def test_models_and_ids_may_be_paths_and_data_folders(ids: tuple[Path, list[int]], tmp_path: Path) -> None:
    path, values = ids
    model = make(NAME)
    write_checkpoint(tmp_path / "run", model)
    want = eval_ce(model, path, n_threads=1)
    with load(tmp_path / "run") as opened:
        assert eval_ce(tmp_path / "run", path) == eval_ce(opened, path) == want
    flat = tmp_path / "flat.bin"
    write_token_file(flat, values)
    assert eval_ce(model, flat) == want
    data = make_data(tmp_path / "data")
    text = PackedTokens.open(data, "validation").tokens[:32].tolist()
    assert eval_ce(model, data, tokens=32).ce == pytest.approx(float64_ce(model, text, 32), rel=1e-5)


# ---- the line between two models ----


def test_the_losses_on_the_line_agree_with_the_oracle(ids: tuple[Path, list[int]]) -> None:
    a, b, (path, values) = make(NAME, seed=1), make(NAME, seed=2), ids
    found = lmc(a, b, path, window=16, n_threads=1)
    assert [alpha for alpha, _ in found] == [0.0, 0.25, 0.5, 0.75, 1.0]
    for alpha, loss in found:
        mixed = {
            name: ((1 - alpha) * v.astype(np.float64) + alpha * b.weights[name].astype(np.float64)).astype(np.float32)
            for name, v in a.weights.items()
        }
        assert loss == pytest.approx(float64_ce(dataclasses.replace(a, weights=mixed), values[:16], 16), rel=1e-5)
    assert found[0][1] == eval_ce(a, path, window=16, tokens=16).ce
    assert found[4][1] == eval_ce(b, path, window=16, tokens=16).ce
    assert lmc(a, a, path, alphas=[0.3], window=16)[0][1] == pytest.approx(found[0][1], rel=1e-6)
    (beyond,) = lmc(a, b, path, alphas=(-0.5,), window=8, tokens=64, offset=3)
    assert beyond[0] == -0.5


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"b": make("tied")},
            TinyNNValueError,
            "the models a and b must have the same shape, but n_kv is 2 in the model a and 4 in the model b",
        ),
        ({"a": 3}, TinyNNTypeError, "model must be a path"),
        ({"alphas": []}, TinyNNValueError, "alphas must have 1 to 10000 numbers, got 0"),
        ({"alphas": np.array(1.0)}, TinyNNTypeError, "alphas must be a sequence of numbers"),
        ({"alphas": "0,1"}, TinyNNTypeError, "alphas must be a sequence of numbers"),
        ({"alphas": [0, "x"]}, TinyNNTypeError, "alphas must be a number"),
        ({"alphas": [float("nan")]}, TinyNNValueError, "alphas must be finite numbers"),
        (
            {"alphas": [1e39], "b": make(NAME, seed=2)},
            TinyNNValueError,
            r"alphas: at 1e\+39, .* would have values above 3\.4e\+38, which do not fit into float32",
        ),
        ({"window": 257}, TinyNNValueError, r"window must be at most 256 \(the context length\), got 257"),
        ({"window": 0}, TinyNNValueError, "window must be an integer from 1"),
        ({"tokens": 31}, TinyNNValueError, r"tokens must be at least 32 \(the length of a window\), got 31"),
        ({"offset": 39}, TinyNNValueError, "offset = 39 is too large: .* has 70 ids, and a window needs 32"),
        ({"offset": -1}, TinyNNValueError, "offset must be an integer from 0"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    options: dict[str, Any], error: type[Exception], says: str, ids: tuple[Path, list[int]]
) -> None:
    a = make(NAME)
    with pytest.raises(error, match=says):
        lmc(**{"a": a, "b": a, "data": ids[0], **options})


def test_ids_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    model = make(NAME)
    write_token_file(tmp_path / "header.bin", [1] * 40, 600)
    write_token_file(tmp_path / "flat.bin", [*[1] * 33, 512, *[1] * 40])
    with pytest.raises(TinyNNValueError, match="states a vocabulary of 600 ids, but the model has 512"):
        eval_ce(model, tmp_path / "header.bin")
    with pytest.raises(TinyNNValueError, match="the id 512 at position 33 is outside the vocabulary, 0 to 511"):
        eval_ce(model, tmp_path / "flat.bin")


# ---- the next tokens ----


def test_the_log_probabilities_of_next_tokens_agree_with_the_oracle(tmp_path: Path) -> None:
    model = make("gqa")
    write_checkpoint(tmp_path / "run", model)
    with load(tmp_path / "run") as opened:
        prompt = "The cat sat"
        ids = opened.encode(prompt)
        want = log_softmax(float64_logits(model, ids)[-1])
        found = opened.next_tokens(prompt, k=VOCAB)
        assert [one.token for one in found[:5]] == np.argsort(-want)[:5].tolist()
        np.testing.assert_allclose([one.log_prob for one in found], want[[one.token for one in found]], atol=2e-5)
        assert sum(np.exp(one.log_prob) for one in found) == pytest.approx(1.0, abs=1e-12)
        assert found[0].text == opened.decode([found[0].token])
        assert opened.next_tokens(prompt) == found[:5]
        for k in (0, VOCAB + 1):
            with pytest.raises(TinyNNValueError, match="k must be an integer from 1 to 512"):
                opened.next_tokens(prompt, k)


def test_equal_logits_keep_the_order_of_their_ids_and_large_logits_do_not_overflow() -> None:
    found = top_log_probs([7.0, 7.0, 7.0], 2)
    assert [token for token, _ in found] == [0, 1]
    np.testing.assert_allclose([log_prob for _, log_prob in found], -np.log(3), rtol=1e-15)
    assert top_log_probs([3e38, -3e38], 2) == [(0, 0.0), (1, -6e38)]


@pytest.mark.skipif(not os.environ.get("TOYNN_SMOLLM2_135M"), reason="TOYNN_SMOLLM2_135M does not name the model")
def test_the_next_tokens_of_smollm2_135m_are_those_of_the_reference() -> None:
    done = toynn("eval", os.environ["TOYNN_SMOLLM2_135M"], "--top-k", "5", "--prompt-ids", "1 100 200 0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["logprobs"]
    assert [one["id"] for one in found] == [198, 19, 504, 29, 788]
    want = [-2.5708273628290854, -2.7158488014277182, -2.8463896492060385, -3.35242640762889, -3.704051850133773]
    np.testing.assert_allclose([one["logprob"] for one in found], want, atol=1e-4)


# ---- the commands ----


def test_the_commands_print_what_the_reference_prints(ids: tuple[Path, list[int]], tmp_path: Path) -> None:
    path, values = ids
    a, b = make(NAME, seed=1), make(NAME, seed=2)
    for name, model in (("a", a), ("b", b)):
        write_checkpoint(tmp_path / name, model)
    done = toynn("eval", tmp_path / "a", path, "--ce")
    want = eval_ce(a, path)
    assert (done.returncode, done.stdout) == (0, f"eval_ce: windows=2 tokens=64 ce={want.ce!r}\n"), done.stderr
    done = toynn("lmc", tmp_path / "a", tmp_path / "b", path, "--alphas", "0,0.5,1", "--window", "16")
    losses = lmc(a, b, path, alphas=[0, 0.5, 1], window=16)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"lmc: {alpha!r}={loss!r}\n" for alpha, loss in losses)
    assert done.stdout.startswith("lmc: 0.0=")
    done = toynn("lmc", tmp_path / "a", tmp_path / "b", path, "--json")
    assert [one["alpha"] for one in json.loads(done.stdout)["lmc"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    done = toynn("eval", tmp_path / "a", "--top-k", "3", "--prompt-ids", "1, 100 200")
    logits = log_softmax(float64_logits(a, [1, 100, 200])[-1])
    lines = done.stdout.splitlines()
    assert [int(line.split()[1]) for line in lines] == np.argsort(-logits)[:3].tolist()
    np.testing.assert_allclose([float(line.split()[2]) for line in lines], np.sort(logits)[::-1][:3], atol=2e-5)
    assert all(line.startswith("logprob: ") for line in lines)
    (tmp_path / "p.txt").write_text("The cat sat")
    outputs = [
        toynn("eval", tmp_path / "a", "--top-k", "2", "--json", *prompt).stdout
        for prompt in ([tmp_path / "p.txt"], ["--prompt", "The cat sat"])
    ]
    assert outputs[0] == outputs[1]
    assert set(json.loads(outputs[0])["logprobs"][0]) == {"id", "text", "logprob"}
    done = toynn("eval", tmp_path / "a", path, "--ids", "--window", "16", "--stride", "8", "--json")
    logits_of_all = json.loads(done.stdout)
    nats = []
    for start in range(0, 69, 8):  # windows of 16 tokens, of which the last 8 tokens count
        part = values[start : start + 17]
        rows = float64_logits(a, part[:-1])
        scores = [-log_softmax(row)[token] for row, token in zip(rows, part[1:], strict=True)]
        nats += scores if start == 0 else scores[8:]
    assert logits_of_all["tokens"] == len(nats) == 69
    assert logits_of_all["loss"] == pytest.approx(np.mean(nats), rel=1e-5)


def test_options_that_do_not_fit_are_refused_in_one_line(ids: tuple[Path, list[int]], tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", make(NAME))
    run, path = str(tmp_path / "run"), str(ids[0])
    for arguments, says in (
        ([run], "the argument TEXT is missing"),
        ([run, path, "--prompt", "x"], "--prompt cannot be used with an evaluation without --top-k"),
        ([run, path, "--top-k", "1", "--prompt", "x"], "--top-k needs one prompt"),
        ([run, "--top-k", "1"], "--top-k needs one prompt"),
        ([run, "--top-k", "1", "--window", "3", "--prompt", "x"], "--window cannot be used with --top-k"),
        ([run, "--top-k", "513", "--prompt", "x"], "k must be an integer from 1 to 512, got 513"),
        ([run, "--top-k", "1", "--prompt-ids", "1 -2"], "--prompt-ids must be token ids like '1 100 200', got '-2'"),
        ([run, "--top-k", "1", "--prompt-ids", "512"], "ids[0] is 512, but must be from 0 to 511"),
        ([run, "--top-k", "1", "--prompt-ids", ""], "at least one token"),
        ([run, path, "--ce", "--stride", "3"], "--stride cannot be used with --ce"),
        ([run, path, "--ce", "--ids"], "--ids cannot be used with --ce; leave out --ids"),
        ([run, path, "--tokens", "3"], "--tokens cannot be used with a text"),
        ([run, path, "--ids", "--window", "257"], "window must be an integer from 1 to 256, got 257"),
        ([run, path, "--ids", "--window", "8", "--stride", "9"], "stride must be an integer from 1 to 8, got 9"),
        ([run, path, "--ids", "--offset", "69"], "an evaluation needs at least 2 ids"),
        ([run, str(tmp_path)], "is a folder; name a text file"),
    ):
        done = toynn("eval", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert says in done.stderr, arguments
        assert done.stderr.count("\n") == 1
    done = toynn("lmc", run, run, path, "--alphas", "0,x")
    assert (done.returncode, "got 'x'" in done.stderr) == (2, True)
