"""A base that changes during a command, or that does not fit the adapter, gives an error of one line with the file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import toynn
from adapters import adapter_of
from commands import assert_refused, output_of
from commands import toynn as command
from interop_models import TRAINED_ON, make
from small_runs import config, make_data
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.interop import export_gguf, export_gguf_adapter, export_peft
from toynn.training import AdapterArgs, ModelArgs

# A program with the arguments BASE METHOD CHANGE ARGUMENT... It runs toynn with these last arguments, and changes the
# base right after the first call of a method of GgufBase.
CHANGING = """
import os, sys
from pathlib import Path
from toynn.interop import GgufBase

base, method, change, *arguments = sys.argv[1:]
original = getattr(GgufBase, method)

def changed(self, *args, **kwargs):
    result = original(self, *args, **kwargs)
    if change == "cut":
        os.truncate(base, 4096)
    elif change == "overwritten":
        content = bytearray(Path(base).read_bytes())
        content[-64:] = bytes(64)
        Path(base).write_bytes(content)
        os.utime(base, (1, 1))
    elif change == "replaced":
        Path(base + ".new").write_bytes(b"another file")
        os.replace(base + ".new", base)
    setattr(GgufBase, method, original)
    return result

setattr(GgufBase, method, changed)
sys.argv = ["toynn", *arguments]
from toynn.cli.start import main
main()
"""
COMMANDS = {
    "generate": ("stored", ["generate", "RUN", "--prompt", "the cat", "--max-tokens", "8", "--temperature", "0"]),
    "generate from the base": ("stored", ["generate", "BASE", "--prompt", "the cat", "-n", "8", "--temperature", "0"]),
    "eval": ("stored", ["eval", "RUN", "TEXT", "--json"]),
    "export": ("values", ["export", "RUN", "OUT", "--merge"]),
    "train": ("stored", ["train", "DATA", "--out", "NEW", "--base", "BASE", "--set", "adapter.rank=2", "--set",
                         "train.steps=2", "--quiet"]),
    "resume": ("stored", ["train", "DATA", "--out", "RUN", "--resume", "--set", "train.steps=6", "--quiet"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a base in Q8_0, and a run that trained an adapter on it."""
    folder = tmp_path_factory.mktemp("bases")
    data, base = make_data(folder / "data"), folder / "base.gguf"
    model = ModelArgs(d_model=32, n_heads=2, n_kv=1, d_ff=64, n_layers=2, ctx=16)
    toynn.train(data, folder / "own", config=config(steps=2, model=model), progress=False)
    with toynn.load(folder / "own") as own:
        own.save(base, dtype="q8_0")
    adapter = AdapterArgs(rank=2)
    toynn.train(
        data,
        folder / "run",
        base=base,
        progress=False,
        config=config(steps=4, model=None, adapter=adapter),
        n_threads=1,
    )
    return folder


def run_while_changing(files: Path, folder: Path, name: str, change: str) -> subprocess.CompletedProcess[str]:
    """Run a command on copies of the base and of the run, and change the base meanwhile."""
    method, arguments = COMMANDS[name]
    base, run = folder / "base.gguf", folder / "run"
    shutil.copy(files / "base.gguf", base)
    shutil.copytree(files / "run", run)
    # The run names the base by its old path in `files`, so the new path must be given.
    places = {"BASE": base, "RUN": run, "TEXT": files / "data.txt", "DATA": files / "data", "OUT": folder / "m.gguf",
              "NEW": folder / "new"}  # fmt: skip
    words = [str(places.get(word, word)) for word in arguments]
    if "RUN" in arguments:
        words += ["--base", str(base)]
    return subprocess.run(
        [sys.executable, "-c", CHANGING, str(base), method, change, *words],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


CHANGES = [("cut", name) for name in COMMANDS] + [("overwritten", "eval"), ("overwritten", "train")]


@pytest.mark.parametrize(("change", "name"), CHANGES)
def test_a_base_that_changes_while_a_command_uses_it_is_named_in_one_line(
    files: Path, tmp_path: Path, name: str, change: str
) -> None:
    done = run_while_changing(files, tmp_path, name, change)
    mentions = "became shorter" if change == "cut" else "was changed"
    # An export does not map the weights, so it reports the change as an error of the file's format.
    assert done.returncode == (2 if name == "export" else 1), (done.stdout, done.stderr)
    assert str(tmp_path / "base.gguf") in done.stderr
    assert mentions in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("name", ["generate", "export", "train"])
def test_a_base_that_is_replaced_while_a_command_uses_it_has_its_old_content(
    files: Path, tmp_path: Path, name: str
) -> None:
    results = []
    for change in ("none", "replaced"):
        folder = tmp_path / change
        folder.mkdir()
        done = run_while_changing(files, folder, name, change)
        assert done.returncode == 0, done.stderr
        written = [path.read_bytes() for path in sorted(folder.rglob("*.safetensors")) if path.parts[-4] == "new"]
        results.append((done.stdout.replace(str(folder), ""), written))
    assert results[0] == results[1]


# ---- files that do not fit ----


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bases of different sizes, and an adapter on the first base, in GGUF and as a PEFT folder."""
    folder = tmp_path_factory.mktemp("adapters")
    model = make("gqa")
    export_gguf(model, folder / "base.gguf")
    export_gguf(make("tied"), folder / "other.gguf")
    adapter = adapter_of(model.shape, rank=model.shape.d_model // 2)
    export_gguf_adapter(adapter, folder / "a.gguf")
    export_peft(adapter, folder / "peft")
    (folder / "text.txt").write_text(TRAINED_ON[0] * 40)
    (folder / "tokenizer.json").write_bytes(model.tokenizer or b"")
    output_of("prepare", folder / "text.txt", "--tokenizer", folder / "tokenizer.json", "--out", folder / "data")
    return folder


@pytest.mark.parametrize("source", ["a.gguf", "peft"])
def test_an_adapter_of_another_base_is_refused_in_one_line(adapters: Path, tmp_path: Path, source: str) -> None:
    done = command("import", adapters / source, "--base", adapters / "other.gguf", "--out", tmp_path / "run")
    assert_refused(done, "another base")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "mentions"),
    [
        ({"rank": 1000}, "adapter.rank must be at most"),
        ({"rank": 2**31}, "adapter.rank must be"),
        ({"rank": 0}, "adapter.rank must be at least 1"),
        ({"rank": -1}, "adapter.rank must be"),
        ({"rank": 2, "alpha": 0}, "adapter.alpha must be"),
        ({"rank": 2, "alpha": float("nan")}, "adapter.alpha must be"),
        ({"rank": 2, "targets": ["x"]}, r"adapter.targets\[0\] must be one of"),
        ({"rank": 2, "targets": []}, "adapter.targets must name at least one matrix"),
        ({"rank": 2, "targets": ["lm_head"]}, "^adapter.targets must not contain 'output', because the model has no"),
        ({"rank": 2, "d_model": 8}, "model.d_model = 8 differs from 64"),
        ({"rank": 2, "architecture": "qwen3"}, "model.architecture = 'qwen3' differs from 'llama'"),
    ],
)
def test_settings_that_the_base_forbids_are_refused_in_one_line(
    adapters: Path, tmp_path: Path, settings: dict[str, Any], mentions: str
) -> None:
    with pytest.raises((TinyNNValueError, TinyNNTypeError), match=mentions) as caught:
        toynn.train(adapters / "data", tmp_path / "run", base=adapters / "base.gguf", progress=False, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
