"""`toynn lmc`: the loss along the line between two models."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.api.load_model import read_model
from toynn.api.token_evaluation import ALPHAS, WINDOW, lmc
from toynn.cli.given_path import GivenPath
from toynn.errors import TinyNNValueError
from toynn.storage.json_files import number_or_null


@click.command()
@click.argument("a", type=GivenPath(exists=True, path_type=Path))
@click.argument("b", type=GivenPath(exists=True, path_type=Path))
@click.argument("ids", type=GivenPath(exists=True, path_type=Path))
@click.option("--alphas", default=",".join(map(str, ALPHAS)), show_default=True, metavar="LIST",
              help="Points on the line between the models: 0 is A, 1 is B.")  # fmt: skip
@click.option("--window", type=click.IntRange(1), default=None,
              help="Number of tokens in a window; the model sees one window at a time. [default: "
                   f"{WINDOW}]")  # fmt: skip
@click.option("--tokens", type=click.IntRange(1), default=None, metavar="N",
              help="Largest number of token ids to read. [default: one window]")  # fmt: skip
@click.option("--offset", type=click.IntRange(0), default=0, metavar="N", show_default=True,
              help="Position of the first token id to read.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    a: Path,
    b: Path,
    ids: Path,
    alphas: str,
    window: int | None,
    tokens: int | None,
    offset: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Print the loss along the line between the models A and B (linear mode
    connectivity).

    The weights at a point are (1 - alpha) A + alpha B. A and B are runs,
    checkpoints, GGUF files or Hugging Face folders. IDS is a file of packed token
    ids, or a data folder, of which the validation split is read.
    """
    first = read_model(a).model
    losses = lmc(
        first,
        read_model(b).model,
        ids,
        alphas=[_number(one) for one in alphas.split(",")],
        window=window or min(WINDOW, first.shape.ctx),
        tokens=tokens,
        offset=offset,
        n_threads=threads,
    )
    if as_json:
        click.echo(json.dumps({"lmc": [{"alpha": alpha, "loss": number_or_null(loss)} for alpha, loss in losses]}))
        return
    for alpha, loss in losses:
        click.echo(f"lmc: {alpha!r}={loss!r}")


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise TinyNNValueError(f"--alphas must be numbers with commas between them, got {word!r:.40}") from None
