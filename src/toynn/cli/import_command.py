"""`toynn import`: make a run from a model that another program wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from toynn.cli.given_path import GivenPath
from toynn.errors import TinyNNValueError
from toynn.interop import import_gguf, import_hf
from toynn.model.shape import ARCHITECTURES
from toynn.storage.checkpoint import write_checkpoint

HELP = f"""Make a run from the model SOURCE, which can then be trained further.

SOURCE is a GGUF file with weights of any type that ggml can convert to f32, or a Hugging Face folder.
The architecture of the model must be one of: {", ".join(ARCHITECTURES)}.
"""


@click.command(help=HELP)
@click.argument("source", type=GivenPath(exists=True, path_type=Path))
@click.option("--out", required=True, type=GivenPath(path_type=Path), help="Folder of the run to create.")
@click.option("--force", is_flag=True, help="Replace the model in --out, if it was imported and not trained.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(source: Path, out: Path, force: bool, as_json: bool) -> None:
    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise TinyNNValueError(
            f"{out} already exists; name a new folder, or use --force to replace a model that was imported before"
        )
    model = import_hf(source) if source.is_dir() else import_gguf(source)
    checkpoint = write_checkpoint(out, model, replace=force)
    parameters = sum(math.prod(values.shape) for values in model.weights.values())
    if as_json:
        content = {"out": str(out), "checkpoint": str(checkpoint), "parameters": parameters,
                   "vocab_size": model.shape.vocab, "tokenizer": model.tokenizer is not None}  # fmt: skip
        click.echo(json.dumps(content))
        return
    if model.tokenizer is None:
        click.echo("note: SOURCE has no tokenizer, so the run cannot read or write text", err=True)
    click.echo(f"{parameters} parameters, vocabulary {model.shape.vocab}, written to {out}")
