"""`toynn import`: make a run from a model that another program wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from toynn.cli.given_path import GivenPath
from toynn.errors import TinyNNValueError
from toynn.extras import naming_the_extra
from toynn.llm.adapters.model_on_base import AnyModel, adapter_of
from toynn.model.shape import ARCHITECTURES
from toynn.model.weights import weights_of
from toynn.storage.checkpoint import write_checkpoint
from toynn.storage.tensor_files import Tensors

with naming_the_extra("interop"):
    from toynn.interop.gguf_stream import streamed_gguf

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
    with _opened(source, base) as (model, weights):
        checkpoint = write_checkpoint(out, model, replace=force, weights=weights)
    adapter = adapter_of(model)
    written = weights_of(model.shape) if adapter is None else adapter.spec.weights(model.shape)
    parameters = sum(math.prod(weight.size) for weight in written)
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


@contextmanager
def _opened(source: Path, base: Path | None) -> Iterator[tuple[AnyModel, Tensors | None]]:
    """Yield the model in SOURCE, and its weights if they are not part of the model.

    The weights of a GGUF file are read and converted while they are written. The modules that read other formats take
    long to import, so each is imported when it is needed.
    """
    if base is not None:
        from toynn.api.adapter_files import adapter_on_base

        yield adapter_on_base(source, base), None
    elif source.is_dir():
        from toynn.interop import import_hf, is_adapter_file

        if not (source / "config.json").exists() and is_adapter_file(source):
            raise TinyNNValueError(f"{source} is an adapter; name its base with --base")
        yield import_hf(source), None
    else:
        with streamed_gguf(source) as (model, weights):
            yield model, weights
