"""`toynn prepare`: text files become training data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from toynn.data.prepare import END_OF_TEXT, prepare

VOCAB_SIZE = 4096
STAGES = {"learning": "learning the vocabulary", "encoding": "encoding the texts"}


@click.command()
@click.argument("texts", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The data folder to make.")
@click.option("--vocab-size", type=click.IntRange(257), default=None,
              help=f"Learn a byte-level BPE of so many tokens. [default: {VOCAB_SIZE}]")  # fmt: skip
@click.option("--tokenizer", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=None,
              help="Or use this tokenizer.json.")  # fmt: skip
@click.option("--validation", type=click.FloatRange(0, 1, max_open=True), default=0.05, show_default=True,
              help="Share of the documents held out.")  # fmt: skip
@click.option("--eos", default=END_OF_TEXT, show_default=True, help="The token that ends a document.")
@click.option("--separator", default=None, help="A line of its own that parts documents in a file. [default: eos]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of documents.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    texts: tuple[Path, ...],
    out: Path,
    vocab_size: int | None,
    tokenizer: Path | None,
    validation: float,
    eos: str,
    separator: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Turn text files (UTF-8) into packed tokens and a tokenizer, for `toynn train`."""
    if tokenizer is not None and vocab_size is not None:
        raise click.UsageError("--vocab-size learns a tokenizer and --tokenizer is one: give one of the two")
    wanted = (vocab_size or VOCAB_SIZE) if tokenizer is None else None
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def progress(stage: str, done: int, in_all: int) -> None:
            bar.update(task, description=STAGES[stage], completed=done, total=in_all)

        meta = prepare(
            texts,
            out,
            vocab_size=wanted,
            tokenizer=tokenizer,
            validation=validation,
            eos=eos,
            separator=separator,
            seed=seed,
            progress=progress,
        )
    if wanted is not None and meta.vocab_size < wanted:
        click.echo(
            f"note: the texts gave a vocabulary of {meta.vocab_size}, smaller than the {wanted} asked for", err=True
        )
    if as_json:
        splits = {name: dataclasses.asdict(split) for name, split in meta.splits.items()}
        click.echo(json.dumps({"out": str(out), "vocab_size": meta.vocab_size, "dtype": meta.dtype, "splits": splits}))
        return
    for name, split in meta.splits.items():
        per = f", {split.bytes / split.tokens:.2f} bytes each" if split.tokens else ""
        click.echo(f"{name:<11}{split.tokens} tokens{per}")
    click.echo(f"vocabulary {meta.vocab_size}")
    click.echo(f"written to {out}")
