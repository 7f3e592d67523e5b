"""`toynn info`: describe this build of toynn, or a data folder, a run or a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import toynn
from toynn.api.load_model import read_model
from toynn.cli.given_path import GivenPath
from toynn.data.meta import META, load_meta
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.llm.adapters.model_on_base import AnyModel, adapter_of
from toynn.model.weights import weight_shapes
from toynn.storage.checkpoint import load_checkpoint
from toynn.storage.checkpoint.foreign import kind_of_path
from toynn.storage.checkpoint.names import BEST, LOG, checkpoint_names
from toynn.training.run_log import read_log
from toynn.training.start import config_source
from toynn.training.toml_config import from_toml

COLUMNS = 80


@click.command()
@click.argument("path", required=False, type=GivenPath(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path | None, as_json: bool) -> None:
    """Describe PATH: a data folder, a run, a checkpoint, a GGUF file or a Hugging
    Face folder. Check all files in it.

    Without PATH, describe this build of toynn: versions, compiler, profile. If
    only the log or the best checkpoint of a run is damaged, the rest is described,
    and the exit code is 2.
    """
    damage: list[str] = []
    if path is None:
        info: dict[str, Any] = {"toynn": toynn.__version__, **toynn.build_info()}
    elif (path / META).exists() and not (path / "weights.safetensors").exists():
        info = _data(path)
    else:
        info = _model(path, damage)
    if as_json:
        click.echo(json.dumps(info))
    else:
        _print(info)
    if damage:
        raise FileFormatError(damage[0])


def _print(info: dict[str, Any]) -> None:
    width = max(map(len, info))
    for key, value in info.items():
        shown = ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else str(value)
        lines = textwrap.wrap(shown, COLUMNS - width - 2, break_long_words=False, break_on_hyphens=False) or [""]
        for i, line in enumerate(lines):
            click.echo(f"{key if i == 0 else '':{width}}  {line}")


def _data(path: Path) -> dict[str, Any]:
    from toynn.data import PackedTokens

    meta = load_meta(path)
    tokens = {name: len(PackedTokens.open(path, name)) for name in meta.splits}
    return {
        "data": str(path),
        "vocab_size": meta.vocab_size,
        "tokens": tokens,
        **({} if meta.documents is None else {"pairs" if meta.pairs else "documents": meta.documents}),
        "eos_id": meta.eos_id,
        "bos_id": meta.bos_id,
        "sources": {source.name: source.bytes for source in meta.sources},
    }


def _model(path: Path, damage: list[str]) -> dict[str, Any]:
    kind = kind_of_path(path)
    foreign = {"gguf": "GGUF file", "hf": "Hugging Face folder"}.get(kind or "")
    checkpoint = load_checkpoint(path) if foreign is None else read_model(path)
    is_run = checkpoint.path != path
    model, state = checkpoint.contents, checkpoint.training
    shape = dataclasses.asdict(model.shape)
    scaling = shape.pop("rope_scaling")
    info: dict[str, Any] = {
        foreign or "checkpoint": str(checkpoint.path),
        **({} if foreign else {"step": checkpoint.step}),
        **({} if state is None else _planned(state.progress.config, checkpoint.path)),
        "parameters": sum(math.prod(size) for size in weight_shapes(model.shape).values()),
        **_of_adapter(model),
        "model": {**shape, "rope_scaling": scaling["kind"]},
        "tokenizer": "none" if model.tokenizer is None else f"{len(model.tokenizer)} bytes",
        "eos_id": model.eos_id,
        **({"other_eos_ids": list(model.other_eos_ids)} if model.other_eos_ids else {}),
        "bos_id": model.bos_id,
        **({} if foreign else {"written by": checkpoint.versions}),
    }
    if state is not None:
        info["windows"] = state.progress.windows
        info["best loss"], info["best step"] = state.progress.best_loss, state.progress.best_step
    return {"run": str(path), **_of_run(path, damage), **info} if is_run else info


def _of_adapter(model: AnyModel) -> dict[str, Any]:
    adapter = adapter_of(model)
    if adapter is None:
        return {}
    spec, base = adapter.spec, adapter.base
    described = {
        "rank": spec.rank,
        "alpha": spec.alpha,
        "rslora": spec.use_rslora,
        "targets": list(spec.targets),
        "parameters": sum(values.size for values in adapter.tensors.values()),
    }
    place = (
        {} if base is None else {"base": str(base.path), "base sha256": base.sha256, "base exists": base.path.exists()}
    )
    return {"adapter": described, **place}


def _planned(config: str, path: Path) -> dict[str, int | float]:
    """Return the planned length of a run: its steps, or its seconds if the number of steps is not decided yet."""
    own = from_toml(config, config_source(path))
    if own.train.seconds and not own.schedule.falls:
        return {"seconds planned": own.train.seconds}
    return {"steps planned": own.train.steps}


def _how_it_ended(path: Path) -> str:
    reasons = [str(event["reason"]) for event in read_log(path) if event["event"] == "ended"]
    return reasons[-1] if reasons else "not yet, or the process was killed"


def _of_run(path: Path, damage: list[str]) -> dict[str, Any]:
    """Return the names of the checkpoints of a run, the best checkpoint, and why the run ended.

    damage: a list of messages. This function appends a message for each part that cannot be read. A run can be used
        without these parts.
    """
    info: dict[str, Any] = {"checkpoints": ", ".join(checkpoint_names(path))}
    parts: dict[str, tuple[str, Callable[[], str]]] = {
        "best checkpoint": (BEST, lambda: load_checkpoint(path, BEST).path.name),
        "ended": (LOG, lambda: _how_it_ended(path)),
    }
    for key, (name, read) in parts.items():
        if not (path / name).exists():
            continue
        try:
            info[key] = read()
        except TinyNNValueError as error:
            info[key] = f"unknown: {error}"
            damage.append(str(error))
    return info
