"""`toynn import`: make a run from a model that another program wrote."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.api.adapter_files import adapter_on_base
from toynn.arguments import FloatArray
from toynn.cli.given_path import GivenPath
from toynn.errors import TinyNNValueError
from toynn.interop import import_gguf, import_hf, is_adapter_file
from toynn.llm.adapters.model_on_base import AnyModel
from toynn.model.shape import ARCHITECTURES
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import write_checkpoint

HELP = f"""Make a run from the model SOURCE, which can then be trained further.

SOURCE is a GGUF file with weights of any type that ggml can convert to f32, or a Hugging Face folder.
With --base, SOURCE is a LoRA adapter: a GGUF file, or a folder of PEFT.
The architecture of the model must be one of: {", ".join(ARCHITECTURES)}.
"""


@click.command(help=HELP)
@click.argument("source", type=GivenPath(exists=True, path_type=Path))
@click.option("--out", required=True, type=GivenPath(path_type=Path), help="Folder of the run to create.")
@click.option("--base", type=GivenPath(exists=True, path_type=Path), default=None,
              help="The base of the adapter SOURCE: a GGUF file, a Hugging Face folder or a run.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the model in --out, if that model was imported and not trained.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(source: Path, out: Path, base: Path | None, force: bool, as_json: bool) -> None:
    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise TinyNNValueError(
            f"{out} already exists; name a new folder, or use --force to replace a model that was imported before"
        )
    model: AnyModel = _model(source) if base is None else adapter_on_base(source, base)
    checkpoint = write_checkpoint(out, model, replace=force)
    parameters = sum(values.size for values in _tensors(model).values())
    if as_json:
        content = {"out": str(out), "checkpoint": str(checkpoint), "parameters": parameters,
                   "vocab_size": model.shape.vocab, "tokenizer": model.tokenizer is not None}  # fmt: skip
        click.echo(json.dumps(content))
        return
    if model.tokenizer is None:
        place = "SOURCE" if base is None else "the base"
        click.echo(f"note: {place} has no tokenizer, so the run cannot read or write text", err=True)
    what = "" if base is None else " of an adapter"
    click.echo(f"{parameters} parameters{what}, vocabulary {model.shape.vocab}, written to {out}")


def _tensors(model: AnyModel) -> dict[str, FloatArray]:
    if isinstance(model, TrainedModel):
        return model.weights
    return {} if model.adapter is None else model.adapter.tensors


def _model(source: Path) -> TrainedModel:
    if source.is_dir() and not (source / "config.json").exists() and is_adapter_file(source):
        raise TinyNNValueError(f"{source} is an adapter; name its base with --base")
    if source.is_file() and is_adapter_file(source):
        raise TinyNNValueError(f"{source} is an adapter; name its base with --base")
    return import_hf(source) if source.is_dir() else import_gguf(source)
