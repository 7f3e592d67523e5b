"""`toynn import`: another program's model as a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from toynn.errors import TinyNNValueError
from toynn.interop import import_gguf, import_hf
from toynn.storage.checkpoint import write_checkpoint


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run to make.")
@click.option("--force", is_flag=True, help="Add to a run that nobody trained: its checkpoints stay.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(source: Path, out: Path, force: bool, as_json: bool) -> None:
    """Make a run of SOURCE, to go on with.

    SOURCE is a GGUF file (llama, in F32, F16, BF16 or Q8_0) or a Hugging Face
    folder of LlamaForCausalLM.
    """
    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise TinyNNValueError(
            f"{out} is there already; name a new folder, or --force to add to a run that nobody trained"
        )
    model = import_hf(source) if source.is_dir() else import_gguf(source)
    checkpoint = write_checkpoint(out, model)
    parameters = sum(math.prod(values.shape) for values in model.weights.values())
    if as_json:
        content = {"out": str(out), "checkpoint": str(checkpoint), "parameters": parameters,
                   "vocab_size": model.shape.vocab, "tokenizer": model.tokenizer is not None}  # fmt: skip
        click.echo(json.dumps(content))
        return
    if model.tokenizer is None:
        click.echo("note: SOURCE has no tokenizer.json: the run can neither read nor write text", err=True)
    click.echo(f"{parameters} parameters, vocabulary {model.shape.vocab}, written to {out}")
