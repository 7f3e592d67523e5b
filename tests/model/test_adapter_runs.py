"""Runs that train an adapter on a base: `toynn train --base`, checkpoints, resuming, loading, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toynn
from commands import toynn as command
from small_runs import config, make_data
from toynn import ConfigurationError, FileFormatError, TinyNNValueError
from toynn.errors import MappedFileError
from toynn.interop import GgufBase
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import AdapterArgs, ModelArgs, Stepped, TrainConfig
from toynn.training.toml_config import to_toml

SHAPE = ModelArgs(d_model=32, n_heads=2, n_kv=1, d_ff=32, n_layers=2, ctx=16, untied=True)
ADAPTER = {"rank": 3, "alpha": 6.0, "targets": ("q_proj", "v_proj", "down_proj", "lm_head")}
PROMPT = "the cat"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and one model as a run, a GGUF file in Q8_0, and a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("bases")
    data = make_data(folder / "data")
    toynn.train(data, folder / "run", config=config(steps=2, model=SHAPE), progress=False)
    with toynn.load(folder / "run") as model:
        model.save(folder / "base.gguf", dtype="q8_0")
        model.save(folder / "hf", format="hf")
    return folder


def config_of_run(steps: int = 6, **changes: Any) -> TrainConfig:
    adapter = AdapterArgs(**{**ADAPTER, **changes})
    return dataclasses.replace(config(steps=steps), model=None, adapter=adapter)


def trained(bases: Path, out: Path, base: str = "base.gguf", **changes: Any) -> Path:
    toynn.train(bases / "data", out, base=bases / base, progress=False, config=config_of_run(**changes))
    return out


def content(run: Path) -> dict[str, bytes]:
    """Return the files of the latest checkpoint."""
    folder = load_checkpoint(run).path
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def run(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(bases, tmp_path_factory.mktemp("runs") / "run")


def copied(bases: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copy the base, train a run on the copy, and return the paths of both. The test may change both."""
    base = tmp_path / "own.gguf"
    shutil.copy(bases / "base.gguf", base)
    toynn.train(bases / "data", tmp_path / "run", base=base, progress=False, config=config_of_run())
    return tmp_path / "run", base


# ---- what a run writes ----


def test_checkpoints_have_only_the_adapter_and_name_the_base(bases: Path, run: Path) -> None:
    files = content(run)
    assert set(files) == {"adapter.safetensors", "meta.json", "moments.safetensors", "tokenizer.json"}
    meta = json.loads(files["meta.json"])
    assert meta["adapter"] == {
        "rank": 3,
        "alpha": 6.0,
        "use_rslora": False,
        "targets": ["q", "v", "down", "output"],
        "base_path": str((bases / "base.gguf").resolve()),
        "base_sha256": subprocess.run(
            ["sha256sum", bases / "base.gguf"], check=True, capture_output=True, text=True
        ).stdout.split()[0],
    }
    contents = load_checkpoint(run).contents
    assert isinstance(contents, ModelOnBase)
    assert contents.adapter is not None
    assert all(values.any() for values in contents.adapter.tensors.values())


def test_meta_of_a_run_without_adapter_has_no_key_for_one(bases: Path) -> None:
    assert "adapter" not in json.loads(content(bases / "run")["meta.json"])


def test_a_quantized_base_gives_the_bits_of_its_values_in_f32(bases: Path, run: Path, tmp_path: Path) -> None:
    with toynn.load(bases / "base.gguf") as model:
        model.save(tmp_path / "f32.gguf")
    toynn.train(bases / "data", tmp_path / "run", base=tmp_path / "f32.gguf", progress=False, config=config_of_run())
    one, other = content(run), content(tmp_path / "run")
    for name in ("adapter.safetensors", "moments.safetensors"):
        assert one[name] == other[name], name


@pytest.mark.parametrize("base", ["run", "hf"])
def test_runs_and_hugging_face_folders_are_bases(bases: Path, base: str, tmp_path: Path) -> None:
    out = trained(bases, tmp_path / "out", base, init_seed=4)
    with toynn.load(out) as model, toynn.load(bases / base) as before:
        assert model.evaluate("the cat saw the dog").loss != before.evaluate("the cat saw the dog").loss
        assert model.shape == before.shape
        assert model.tokenizer_json == before.tokenizer_json


def test_the_base_is_not_changed(bases: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in bases.rglob("*") if file.is_file()}
    trained(bases, tmp_path / "out")
    assert {file: file.read_bytes() for file in bases.rglob("*") if file.is_file()} == before


# ---- resuming ----


def test_a_resumed_run_reaches_the_same_bytes(bases: Path, tmp_path: Path) -> None:
    """The run is stopped after four steps, and its process is killed without a chance to save anything."""
    want = content(trained(bases, tmp_path / "whole", steps=8))
    out = tmp_path / "killed"
    (tmp_path / "run.toml").write_text(to_toml(config_of_run(8)), encoding="utf-8")
    program = """
import os, signal, sys, toynn
from toynn.training import Stepped
data, out, base, config = sys.argv[1:]
def kill(event):
    if isinstance(event, Stepped) and event.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
toynn.train(data, out, base=base, config=config, progress=False, callbacks=[kill])
"""
    paths = [str(path) for path in (bases / "data", out, bases / "base.gguf", tmp_path / "run.toml")]
    ended = subprocess.run([sys.executable, "-c", program, *paths], check=False, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert load_checkpoint(out).step == 5  # the best checkpoint so far
    toynn.train(bases / "data", out, resume=True, progress=False)
    assert content(out) == want


def test_a_moved_base_is_refused_until_its_new_place_is_given(bases: Path, tmp_path: Path) -> None:
    out, base = copied(bases, tmp_path)
    moved = base.rename(tmp_path / "moved.gguf")
    for call in (toynn.load, lambda path: toynn.train(bases / "data", path, resume=True, steps=7, progress=False)):
        with pytest.raises(TinyNNValueError, match=r"own\.gguf does not exist; give the place of the base with base="):
            call(out)
    assert "--base" in command("generate", out, "-p", PROMPT).stderr
    with toynn.load(out, base=moved) as model:
        text = model.generate(PROMPT, max_tokens=4)
    assert command("generate", out, "-p", PROMPT, "-n", "4", "--base", moved).stdout == f"{PROMPT}{text}\n"
    toynn.train(bases / "data", out, resume=True, steps=7, base=moved, progress=False)
    assert json.loads(content(out)["meta.json"])["adapter"]["base_path"] == str(moved)
    toynn.load(out).close()


def test_a_changed_base_is_refused(bases: Path, tmp_path: Path) -> None:
    out, base = copied(bases, tmp_path)
    raw = bytearray(base.read_bytes())
    raw[-40] ^= 1
    base.write_bytes(raw)
    with pytest.raises(TinyNNValueError, match=r"own\.gguf is not the base that the adapter was trained on"):
        toynn.load(out)
    with pytest.raises(TinyNNValueError, match="restore the base, or give the place of the base with base="):
        toynn.train(bases / "data", out, resume=True, steps=7, progress=False)


def test_a_base_that_changes_during_training_ends_the_run_with_a_resumable_checkpoint(
    bases: Path, tmp_path: Path
) -> None:
    base = tmp_path / "own.gguf"
    shutil.copy(bases / "base.gguf", base)
    whole = base.read_bytes()

    def truncate(event: object) -> None:
        if isinstance(event, Stepped) and event.step == 5:
            base.write_bytes(whole[:4096])

    with pytest.raises(MappedFileError, match=r"own\.gguf became shorter"):
        toynn.train(
            bases / "data", tmp_path / "run", base=base, progress=False, callbacks=[truncate], config=config_of_run()
        )
    base.write_bytes(whole)
    toynn.train(bases / "data", tmp_path / "run", resume=True, progress=False)
    want = content(trained(bases, tmp_path / "want"))
    got = content(tmp_path / "run")
    assert got["adapter.safetensors"] == want["adapter.safetensors"]


def test_a_base_is_hashed_only_for_training_and_for_adapters(
    bases: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    sha256 = GgufBase.sha256

    def counted(base: GgufBase) -> str:
        hashed.append(base)
        return sha256(base)

    monkeypatch.setattr(GgufBase, "sha256", counted)
    with toynn.load(bases / "base.gguf") as model:
        model.generate(PROMPT, max_tokens=2)
    assert hashed == []
    toynn.load(run).close()
    assert len(hashed) == 1
    trained(bases, tmp_path / "run")
    assert len(hashed) == 2, "one hash is enough for all checkpoints of a run"


# ---- refused arguments ----


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rank": 0}, ConfigurationError, "adapter.rank must be at least 1 for training on a base, got 0"),
        ({"rank": 17}, ConfigurationError, r"adapter.rank must be at most 16 for blk.0.attn_k.weight"),
        ({"rank": 1, "targets": ["w1"]}, ConfigurationError, r"adapter.targets\[0\] must be one of .*, got 'w1'"),
        ({"rank": 1, "targets": "q"}, toynn.TinyNNTypeError, "adapter.targets must be a list"),
    ],
)
def test_wrong_settings_are_named(
    bases: Path, changes: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        toynn.train(bases / "data", tmp_path / "out", base=bases / "base.gguf", progress=False, adapter=changes)
    assert not (tmp_path / "out").exists()


def test_arguments_that_do_not_fit_together_are_refused(bases: Path, run: Path, tmp_path: Path) -> None:
    data, base = bases / "data", bases / "base.gguf"
    for arguments, message in (
        ({"rank": 2}, "adapter.rank = 2 needs a base"),
        ({"base": base, "init": base, "rank": 2}, "init and base cannot be combined"),
        ({"base": run, "rank": 2}, "contains only an adapter"),
        ({"init": run, "rank": 5}, "adapter.rank = 5 was chosen, but training continues the adapter in"),
        ({"base": base, "rank": 2, "only": ["norms"]}, "train.only and adapter.rank = 2 cannot be combined"),
    ):
        with pytest.raises(TinyNNValueError, match=message):
            toynn.train(data, tmp_path / "out", progress=False, **arguments)
    with pytest.raises(TinyNNValueError, match="is already a run of 6 steps"):
        toynn.train(data, run, base=base, rank=2, progress=False)
    with pytest.raises(TinyNNValueError, match="contains all weights of its model and needs no base"):
        toynn.train(data, bases / "run", resume=True, base=base, progress=False)
    with pytest.raises(TinyNNValueError, match="needs no base"):
        toynn.load(bases / "run", base=base)


def test_data_of_another_tokenizer_is_refused(bases: Path, tmp_path: Path) -> None:
    other = make_data(tmp_path / "other", seed=5, documents=80)
    with pytest.raises(TinyNNValueError, match="was not prepared with the tokenizer of"):
        toynn.train(other, tmp_path / "out", base=bases / "base.gguf", rank=2, progress=False)


def test_nan_in_a_quantized_block_is_named(bases: Path, tmp_path: Path) -> None:
    from toynn.interop.gguf_model import GgufModel

    with GgufModel(bases / "base.gguf") as file:
        tensor = file.tensors["blk.1.ffn_down.weight"]
    raw = bytearray((bases / "base.gguf").read_bytes())
    raw[tensor.offset + 34 : tensor.offset + 36] = np.float16(np.nan).tobytes()  # the scale of the second block, row 1
    (tmp_path / "nan.gguf").write_bytes(raw)
    message = r"nan\.gguf: blk\.1\.ffn_down\.weight must hold only finite numbers, got nan at \[1, 0\]"
    with pytest.raises(FileFormatError, match=message):
        toynn.train(bases / "data", tmp_path / "out", base=tmp_path / "nan.gguf", rank=2, progress=False)
    with pytest.raises(FileFormatError, match=message):
        toynn.load(tmp_path / "nan.gguf")


def test_an_adapter_with_a_damaged_file_is_refused(bases: Path, tmp_path: Path) -> None:
    out = trained(bases, tmp_path / "out")
    file = load_checkpoint(out).path / "adapter.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(FileFormatError, match=r"sha256 of adapter\.safetensors differs"):
        toynn.load(out)


# ---- using a run ----


def test_commands_work_on_an_adapter(bases: Path, run: Path) -> None:
    info = json.loads(command("info", run, "--json").stdout)
    assert info["adapter"]["rank"] == 3
    assert info["base"] == str(bases / "base.gguf")
    text = bases / "data.txt"
    loss = json.loads(command("eval", run, text, "--json").stdout)["loss"]
    with toynn.load(run) as model:
        assert model.evaluate(text.read_text(encoding="utf-8")).loss == loss
    by_ids = json.loads(command("eval", run, bases / "data", "--ids", "--json").stdout)
    assert 0 < by_ids["loss"] < 10


def test_the_decoder_has_the_bits_of_the_training_graph(bases: Path, run: Path) -> None:
    """The loss of the validation split is computed by the training graph and by the decoder."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["step"] for event in events if event["event"] == "evaluated"] == [5, 6]
    contents = load_checkpoint(run).contents
    assert isinstance(contents, ModelOnBase)
    assert contents.adapter is not None
    from toynn.interop import GgufBase

    ids = np.arange(3, 15, dtype=np.int32)
    with GgufBase(bases / "base.gguf") as base, toynn.LlamaSeqEngine() as engine, toynn.load(run) as model:
        options = toynn.RecipeOptions(ids.size, layout="fused", n_threads=1)
        engine.realize_with_adapter(base, contents.adapter.spec, options, contents.adapter.tensors)
        want = engine.forward(ids)
        for n_first in (1, 5, ids.size):
            model.decoder.rewind()
            if n_first < ids.size:
                model.decoder.feed(ids[:n_first])
            got = model.decoder.feed(ids[n_first:] if n_first < ids.size else ids)
            assert got.tobytes() == want[-1].tobytes()


def test_a_gguf_file_is_decoded_in_its_types_with_the_bits_of_its_values(bases: Path, tmp_path: Path) -> None:
    from toynn.interop import import_gguf

    model = import_gguf(bases / "base.gguf")
    ids = np.arange(3, 15)
    with toynn.load(bases / "base.gguf", n_threads=2) as mapped, toynn.LlamaDecoder(
        model.shape, model.weights, n_threads=1
    ) as decoder:  # fmt: skip
        assert mapped.decoder.feed(ids).tobytes() == decoder.feed(ids).tobytes()
        assert mapped.decoder.score(ids).tobytes() == decoder.score(ids).tobytes()
        for name, values in mapped.trained_model().weights.items():
            assert values.tobytes() == model.weights[name].tobytes(), name
        mapped.save(tmp_path / "again.gguf", dtype="q8_0")
    with pytest.raises(toynn.SessionError):
        mapped.trained_model()


def test_saving_an_adapter_adds_it_to_the_weights_of_the_base(bases: Path, run: Path, tmp_path: Path) -> None:
    ids = np.arange(3, 15)
    with toynn.load(run) as model:
        model.save(tmp_path / "whole.gguf")
        with toynn.load(tmp_path / "whole.gguf") as whole, toynn.load(bases / "base.gguf") as base:
            want, got, before = (one.decoder.feed(ids) for one in (model, whole, base))
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    assert np.abs(before - want).max() > 1e-3 * np.abs(want).max()


# ---- train.only ----


def test_only_the_named_weights_are_trained(bases: Path, tmp_path: Path) -> None:
    plain: TrainConfig = config(steps=3)
    toynn.train(
        bases / "data", tmp_path / "out", init=bases / "run", progress=False, optimizer=plain.optimizer, batch=2,
        steps=3, only=["norms", "blk.1.ffn_*"],
    )  # fmt: skip
    before, after = (load_checkpoint(path).model.weights for path in (bases / "run", tmp_path / "out"))
    changed = {name for name in after if after[name].tobytes() != before[name].tobytes()}
    expected = {name for name in after if "norm" in name or name.startswith("blk.1.ffn_")}
    assert changed == expected
    state = load_checkpoint(tmp_path / "out").training
    assert state is not None
    assert set(state.moments) == {name + end for name in expected for end in (".m", ".v")}
    toynn.train(bases / "data", tmp_path / "out", resume=True, steps=4, progress=False)
    with pytest.raises(ConfigurationError, match=r"train\.only is .*, but the run has"):
        toynn.train(bases / "data", tmp_path / "out", resume=True, only=["norms"], progress=False)


def test_a_pattern_without_a_weight_is_refused(bases: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"train\.only: 'blk\.9\.\*' matches no weight of the model"):
        toynn.train(bases / "data", tmp_path / "out", init=bases / "run", only=["norms", "blk.9.*"], progress=False)
