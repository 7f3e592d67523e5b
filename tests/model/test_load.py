"""toynn.load opens a model from any kind of path; the model generates and scores text and can be saved."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from interop_models import make, tokenizer
from small_runs import config
from toynn.interop import export_gguf, export_hf
from toynn.storage.checkpoint import load_checkpoint, write_checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "run", make("gqa"), step=7)
    return tmp_path / "run"


@pytest.mark.parametrize("kind", ["run", "checkpoint", "gguf", "hf"])
def test_a_model_is_loaded_from_every_kind_of_path(kind: str, run: Path, tmp_path: Path) -> None:
    model = make("gqa")
    paths = {"run": run, "checkpoint": load_checkpoint(run).path, "gguf": tmp_path / "m.gguf", "hf": tmp_path / "hf"}
    export_gguf(model, paths["gguf"])
    export_hf(model, paths["hf"])
    with toynn.load(run, n_threads=1) as first, toynn.load(str(paths[kind]), n_threads=1) as loaded:
        assert loaded.step == (7 if kind in ("run", "checkpoint") else 0)
        assert loaded.shape == model.shape
        assert loaded.n_parameters == sum(values.size for values in model.weights.values())
        assert loaded.tokenizer_json == tokenizer()
        written = loaded.generate("The cat", max_tokens=12, seed=3)
        assert written == first.generate("The cat", max_tokens=12, seed=3)
        assert loaded.evaluate("The cat saw a hen.") == first.evaluate("The cat saw a hen.")
        saved = loaded.trained_model()
        assert all(saved.weights[name].tobytes() == values.tobytes() for name, values in model.weights.items())


def test_the_best_checkpoint_of_a_run_can_be_loaded(data: Path, tmp_path: Path) -> None:
    toynn.train(data, tmp_path / "run", config=config(5), progress=False)
    with toynn.load(tmp_path / "run", which="best") as model:
        assert model.step == load_checkpoint(tmp_path / "run", "best").step
    export_gguf(make("gqa"), tmp_path / "m.gguf")
    with pytest.raises(toynn.TinyNNValueError, match=r"which = 'best' needs a run, but .* is a GGUF file"):
        toynn.load(tmp_path / "m.gguf", which="best")


def test_generate_returns_the_text_of_stream_and_the_settings_have_an_effect(run: Path) -> None:
    with toynn.load(run, n_threads=1) as model:
        text = model.generate("The cat", max_tokens=20, seed=1)
        assert "".join(model.stream("The cat", max_tokens=20, seed=1)) == text
        assert model.generate("The cat", max_tokens=20, seed=2) != text
        greedy = model.generate("The cat", max_tokens=20, greedy=True)
        assert greedy == model.generate("The cat", max_tokens=20, temperature=0.0)
        assert greedy == model.generate("The cat", max_tokens=20, top_k=1, seed=5)
        assert model.generate("The cat", max_tokens=0) == ""


def test_scores_agree_with_the_evaluation(run: Path) -> None:
    text = "The cat saw a hen."
    with toynn.load(run, n_threads=1) as model:
        for window in (None, 3):
            scores = model.score(text, window)
            result = model.evaluate(text, window)
            assert [score.token for score in scores] == model.encode(text), "the model has a token that starts a text"
            assert "".join(score.text for score in scores) == text
            assert -sum(score.log_prob for score in scores) == pytest.approx(result.nats)
        assert f"loss={result.loss:.4f}, perplexity=" in repr(result)


def test_encode_and_decode_are_inverse(run: Path) -> None:
    text = "The cat: \u201cgood day!\u201d \U0001f63a\n"
    with toynn.load(run) as model:
        assert model.decode(model.encode(text)) == text
        assert model.decode(np.asarray(model.encode(text))) == text
        assert model.decode([]) == ""
        with pytest.raises(toynn.TinyNNValueError, match=r"ids\[1\] must be an integer from 0 to 511"):
            model.decode([0, 512])
        with pytest.raises(toynn.TinyNNTypeError, match="ids must be a sequence of token ids, got int"):
            model.decode(3)  # type: ignore[arg-type]


def test_n_ctx_limits_the_prompt(run: Path) -> None:
    with toynn.load(run, n_ctx=4) as model:
        assert model.n_ctx == 4
        with pytest.raises(
            toynn.TinyNNValueError, match=r"the prompt has .* but the context length is 4; shorten the prompt"
        ):
            model.generate("The cat saw a hen and a dog.")


def test_a_closed_model_refuses_everything_that_computes(run: Path, tmp_path: Path) -> None:
    with toynn.load(run) as model:
        assert model.decode(model.encode("The")) == "The"
    model.close()
    calls: list[Callable[[], object]] = [
        lambda: model.generate("The"),
        lambda: model.evaluate("The cat"),
        lambda: model.score("The cat"),
        lambda: model.save(tmp_path / "other"),
    ]
    for call in calls:
        with pytest.raises(toynn.SessionError, match="closed"):
            call()
    assert not (tmp_path / "other").exists()


def test_the_repr_says_what_the_model_is(run: Path) -> None:
    with toynn.load(run) as model:
        shown = repr(model)
    assert shown.startswith(f"<toynn.TextModel '{run}/checkpoints/step-00000007': llama, ")
    assert "2 layers, vocabulary 512, context " in shown
    assert shown.endswith(", step 7>")


# ---- saving ----


@pytest.mark.parametrize(
    ("name", "kind"), [("m.gguf", None), ("M.GGUF", None), ("hf", "hf"), ("new", None), ("x", "gguf")]
)
def test_a_saved_model_has_the_same_weights(name: str, kind: str | None, run: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    with toynn.load(run) as model:
        assert model.save(path, format=kind) == path
        with pytest.raises(toynn.TinyNNValueError, match="already exists; name another path, or pass overwrite=True"):
            model.save(path, format=kind)
        assert model.save(path, format=kind, overwrite=True) == path
    assert path.is_file() == (kind == "gguf" or name.lower().endswith(".gguf"))
    with toynn.load(path) as back:
        weights = back.trained_model().weights
        assert all(weights[key].tobytes() == values.tobytes() for key, values in make("gqa").weights.items())
        assert back.step == (7 if name == "new" else 0)


def test_a_note_of_the_export_is_a_warning(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", make("head_dim of its own"))
    with toynn.load(tmp_path / "run") as model, pytest.warns(UserWarning, match="of 20 tensors are"):
        model.save(tmp_path / "m.gguf", dtype="q8_0")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"path": "x.safetensors"}, "; name a file that ends in .gguf, or a folder"),
        ({"path": "x", "format": "onnx"}, "format must be one of 'run', 'gguf', 'hf'"),
        ({"path": "x", "dtype": "f16"}, "dtype must be f32 in a run, got 'f16'; GGUF files can have"),
        ({"path": "x.gguf", "dtype": "q4"}, "dtype must be one of"),
        ({"path": "no/x.gguf"}, "no"),
        ({"path": 3}, "path must be a path, got int"),
        ({"path": "x", "overwrite": 1}, "overwrite must be"),
    ],
)
def test_wrong_arguments_of_save_are_named_and_leave_nothing(
    arguments: dict[str, Any], says: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with toynn.load(run) as model, pytest.raises((toynn.TinyNNValueError, toynn.TinyNNTypeError), match=says):
        model.save(**arguments)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_model_cannot_be_saved_into_a_trained_run(data: Path, tmp_path: Path) -> None:
    result = toynn.train(data, tmp_path / "run", config=config(2), progress=False)
    with result.load() as model, pytest.raises(toynn.TinyNNValueError, match="write the model to a new folder"):
        model.save(tmp_path / "run", overwrite=True)


# ---- paths that cannot be loaded ----


def test_a_path_without_a_model_is_refused_by_name(data: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("The cat")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF\xff")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    write_checkpoint(tmp_path / "mute", make("gqa", tokens=None))
    refused: list[tuple[Any, type[Exception], str]] = [
        (tmp_path / "nowhere", FileNotFoundError, "does not exist; give a run"),
        (tmp_path / "text", toynn.FileFormatError, "is not a GGUF file; give a run"),
        (tmp_path / "broken.gguf", toynn.TinyNNValueError, r"broken\.gguf"),
        (tmp_path / "empty", toynn.TinyNNValueError, "neither a checkpoint nor a run with a latest checkpoint"),
        (tmp_path / "pipe", toynn.TinyNNValueError, "pipe"),
        (tmp_path / "mute", toynn.TinyNNValueError, r"has no tokenizer\.json, so it cannot read or write text"),
        (data, toynn.TinyNNValueError, "is a data folder, not a run"),
        (None, toynn.TinyNNTypeError, "path must be a path, got NoneType"),
        ("a\0b", toynn.TinyNNValueError, "NUL"),
    ]
    for path, error, says in refused:
        with pytest.raises(error, match=says):
            toynn.load(path)
    for arguments, says in (
        ({"which": "last"}, "which must be"),
        ({"n_ctx": 0}, "n_ctx"),
        ({"n_threads": 0}, "n_threads"),
    ):
        with pytest.raises(toynn.TinyNNValueError, match=says):
            toynn.load(run, **arguments)


def test_wrong_arguments_of_generate_are_errors_at_the_call(run: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"temperature": -1}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"seed": -1}, "seed"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"greedy": 1}, "greedy"),
        ({"rolling": None}, "rolling"),
        ({"prompt": b"x"}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
    ]
    with toynn.load(run) as model:
        for arguments, name in wrong:
            with pytest.raises((toynn.TinyNNValueError, toynn.TinyNNTypeError), match=f"^{name}"):
                model.stream(**arguments)
