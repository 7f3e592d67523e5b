"""`toynn eval`: how well a model foretells a text."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.errors import TinyNNValueError
from toynn.storage.json_fields import number_or_null
from toynn.storage.regular_files import read_regular
from toynn.text.text_model import TextModel


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--window", type=click.IntRange(1), default=None, help="Tokens foretold in one go. Default: all the model holds."
)
@click.option("--best", is_flag=True, help="The run's best checkpoint by evaluation, not its latest.")
@click.option("--threads", type=click.IntRange(1), default=None, help="Default: the cores this process may use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(run: Path, text: Path, window: int | None, best: bool, threads: int | None, as_json: bool) -> None:
    """Loss, perplexity and bits per byte of RUN's model on the file TEXT (UTF-8)."""
    try:
        content = read_regular(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TinyNNValueError(f"{text} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from None
    with TextModel(run, "best" if best else "latest", n_threads=threads) as model:
        result = model.evaluate(content, window)
    figures = {
        "step": model.step,
        "tokens": result.tokens,
        "bytes": result.text_bytes,
        "loss": number_or_null(result.loss),
        "perplexity": number_or_null(result.perplexity),
        "bits_per_byte": number_or_null(result.bits_per_byte),
    }
    if as_json:
        click.echo(json.dumps(figures, allow_nan=False))
        return
    click.echo(f"tokens         {result.tokens} ({result.text_bytes / result.tokens:.2f} bytes each)")
    click.echo(f"loss           {result.loss:.4f} nats a token")
    click.echo(f"perplexity     {result.perplexity:.2f}")
    click.echo(f"bits per byte  {result.bits_per_byte:.4f}")
