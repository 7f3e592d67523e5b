"""`toynn generate`: continue a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from toynn.api.load_model import load
from toynn.errors import TinyNNValueError
from toynn.storage.text_files import BYTE_ORDER_MARK


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("-p", "--prompt", default=None, help="Text to continue; - reads it from stdin. [default: start a text]")
@click.option("-n", "--max-tokens", type=click.IntRange(0), default=200, show_default=True,
              help="Largest number of tokens to generate.")  # fmt: skip
@click.option("--greedy", is_flag=True, help="Always take the most likely token, ignoring the sampling options.")
@click.option("--temperature", type=click.FloatRange(0), default=0.8, show_default=True,
              help="Sampling temperature; 0 is greedy.")  # fmt: skip
@click.option("--top-k", type=click.IntRange(0), default=40, show_default=True,
              help="Sample from the K most likely tokens; 0 keeps all.", metavar="K")  # fmt: skip
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True,
              help="Keep the most likely tokens up to a total probability of P.", metavar="P")  # fmt: skip
@click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Drop tokens less likely than P times the most likely one.", metavar="P")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed for sampling.")
@click.option("--best", is_flag=True, help="Use the run's best checkpoint by evaluation, not its latest.")
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: the cores this process may use]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def command(
    model: Path,
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
    """Continue a text with MODEL: a run, a checkpoint, a GGUF file or a Hugging
    Face folder.

    The prompt and then its continuation are printed as they are generated. The
    same MODEL, prompt and options give the same text.
    """
    if prompt == "-":
        prompt = _from_stdin()
    with load(model, which="best" if best else "latest", n_threads=threads) as text_model:
        pieces = text_model.stream(
            prompt or "",
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            greedy=greedy,
        )
        if as_json:
            text = "".join(pieces)
            content = {"step": text_model.step, "prompt": prompt or "", "text": text, "seed": seed}
            click.echo(json.dumps(content, allow_nan=False))
            return
        click.echo(prompt or "", nl=False)
        for piece in pieces:
            click.echo(piece, nl=False)  # echo flushes stdout too
        click.echo()


def _from_stdin() -> str:
    if sys.stdin is None:
        raise TinyNNValueError("--prompt - reads stdin, which is closed")
    try:
        return sys.stdin.read().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise TinyNNValueError(f"stdin is not {error.encoding}: byte {error.object[error.start]:#04x}") from None
