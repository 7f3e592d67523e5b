"""`toynn eval`: measure how well a model predicts a text."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.api.load_model import load
from toynn.cli.given_path import GivenPath
from toynn.storage.json_files import number_or_null
from toynn.storage.text_files import read_text


@click.command()
@click.argument("model", metavar="MODEL", type=GivenPath(exists=True, path_type=Path))
@click.argument("text", type=GivenPath(exists=True, dir_okay=False, path_type=Path))
@click.option("--window", type=click.IntRange(1), default=None,
              help="Tokens that the model reads at a time. [default: its context length]")  # fmt: skip
@click.option("--stride", type=click.IntRange(1), default=None,
              help="Begin a new window every S tokens, and count its last S tokens. [default: --window]",
              metavar="S")  # fmt: skip
@click.option("--separator", default=None, metavar="LINE",
              help="Line that separates documents. [default: as in the data of MODEL]")  # fmt: skip
@click.option("--best", is_flag=True, help="Use the checkpoint with the best validation loss, not the latest.")
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    text: Path,
    window: int | None,
    stride: int | None,
    separator: str | None,
    best: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the loss, perplexity and bits per byte of MODEL on the file TEXT.

    MODEL is a run, a checkpoint, a GGUF file or a Hugging Face folder. TEXT is a
    UTF-8 file.
    """
    content = read_text(text)
    with load(model, which="best" if best else "latest", n_threads=threads) as text_model:
        result = text_model.evaluate(content, window, stride, separator=separator)
        step = text_model.step
    figures = {
        "step": step,
        "tokens": result.tokens,
        "bytes": result.text_bytes,
        "documents": result.documents,
        "loss": number_or_null(result.loss),
        "perplexity": number_or_null(result.perplexity),
        "bits_per_byte": number_or_null(result.bits_per_byte),
    }
    if as_json:
        click.echo(json.dumps(figures, allow_nan=False))
        return
    click.echo(f"documents      {result.documents}")
    click.echo(f"tokens         {result.tokens} ({result.text_bytes / result.tokens:.2f} bytes per token)")
    click.echo(f"loss           {result.loss:.4f} nats per token")
    click.echo(f"perplexity     {result.perplexity:.2f}")
    click.echo(f"bits per byte  {result.bits_per_byte:.4f}")
