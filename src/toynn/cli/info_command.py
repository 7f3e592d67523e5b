"""`toynn info`: what this build is, and what a folder holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

import toynn
from toynn.data.meta import META, load_meta


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(path: Path | None, as_json: bool) -> None:
    """Show what PATH is: a data folder, a run or a checkpoint. Its files are checked.

    Without PATH: what this build of toynn is: versions, compiler, profile.
    """
    if path is None:
        info: dict[str, Any] = {"toynn": toynn.__version__, **toynn.build_info()}
    elif (path / META).exists() and not (path / "weights.safetensors").exists():
        info = _data(path)
    else:
        info = _model(path)
    if as_json:
        click.echo(json.dumps(info))
        return
    width = max(map(len, info))
    for key, value in info.items():
        shown = ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else value
        click.echo(f"{key:{width}}  {shown}")


def _data(path: Path) -> dict[str, Any]:
    from toynn.data import PackedTokens

    meta = load_meta(path)
    tokens = {name: len(PackedTokens.open(path, name)) for name in meta.splits}
    return {
        "data": str(path),
        "vocab_size": meta.vocab_size,
        "tokens": tokens,
        "eos_id": meta.eos_id,
        "bos_id": meta.bos_id,
        "sources": {source.name: source.bytes for source in meta.sources},
    }


def _model(path: Path) -> dict[str, Any]:
    from toynn.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    model, state = checkpoint.model, checkpoint.training
    shape = dataclasses.asdict(model.cfg)
    scaling = shape.pop("rope_scaling")
    info: dict[str, Any] = {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.step,
        "parameters": sum(values.size for values in model.weights.values()),
        "model": {**shape, "untied": model.untied, "qkv_bias": model.qkv_bias, "rope_scaling": scaling["kind"]},
        "tokenizer": "none" if model.tokenizer is None else f"{len(model.tokenizer)} bytes",
        "eos_id": model.eos_id,
        "bos_id": model.bos_id,
        "written by": checkpoint.versions,
    }
    if state is not None:
        info["windows"] = state.progress.windows
        info["best loss"], info["best step"] = state.progress.best_loss, state.progress.best_step
    return info
