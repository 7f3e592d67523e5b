"""`toynn generate`: continue a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from toynn.errors import TinyNNValueError
from toynn.text.sampling import Sampling
from toynn.text.text_model import TextModel


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-p", "--prompt", default=None, help="Text to continue; - reads it from stdin. Default: start a new text."
)
@click.option(
    "-n", "--max-tokens", type=click.IntRange(0), default=200, show_default=True, help="At most so many tokens."
)
@click.option("--greedy", is_flag=True, help="Always the likeliest token; the settings below do not count.")
@click.option("--temperature", type=click.FloatRange(0), default=0.8, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=click.IntRange(0), default=40, show_default=True, help="Only the k likeliest; 0: all.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True,
              help="Of those, the fewest that reach p together.")  # fmt: skip
@click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Of those, the ones at least so likely beside the likeliest.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option("--best", is_flag=True, help="The run's best checkpoint by evaluation, not its latest.")
@click.option("--threads", type=click.IntRange(1), default=None, help="Default: the cores this process may use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, at the end.")
def command(
    run: Path,
    prompt: str | None,
    max_tokens: int,
    greedy: bool,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    best: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Continue a text with the model of RUN (or of one checkpoint).

    The text streams to stdout as it comes, prompt first. The same RUN, prompt and
    seed give the same text.
    """
    if prompt == "-":
        prompt = _from_stdin()
    sampling = Sampling.greedy() if greedy else Sampling(temperature, top_k, top_p, min_p, seed)
    with TextModel(run, "best" if best else "latest", n_threads=threads) as model:
        pieces = model.continue_text(prompt or "", sampling, max_tokens)
        if as_json:
            text = "".join(pieces)
            content = {"step": model.step, "prompt": prompt or "", "text": text, "seed": seed}
            click.echo(json.dumps(content, allow_nan=False))
            return
        click.echo(prompt or "", nl=False)
        for piece in pieces:
            click.echo(piece, nl=False)  # and flushes
        click.echo()


def _from_stdin() -> str:
    if sys.stdin is None:
        raise TinyNNValueError("--prompt - reads stdin, which is closed")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise TinyNNValueError(f"stdin is not {error.encoding}: byte {error.object[error.start]:#04x}") from None
