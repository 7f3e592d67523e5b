"""`toynn prepare`: turn text files into training data."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import click

from toynn.api.prepare_data import VOCAB_SIZE, PreparedData, prepare, prepare_ids
from toynn.cli.given_path import GivenPath
from toynn.text.documents import END_OF_TEXT


@click.command()
@click.argument("texts", nargs=-1, required=True, type=GivenPath(exists=True, path_type=Path))
@click.option("--out", required=True, type=GivenPath(path_type=Path), help="Folder to create for the data.")
@click.option("--vocab-size", type=click.IntRange(1), default=None,
              help=f"Learn a byte-level BPE tokenizer with N tokens, at least 257. [default: {VOCAB_SIZE}] "
                   "With --ids: number of ids of the vocabulary.", metavar="N")  # fmt: skip
@click.option("--tokenizer", type=GivenPath(exists=True, path_type=Path), default=None,
              help="Use this tokenizer.json, or the tokenizer of this data folder or model.")  # fmt: skip
@click.option("--validation", type=click.FloatRange(0, 1, max_open=True), default=0.05, show_default=True,
              help="Share of the documents held out for validation.")  # fmt: skip
@click.option("--eos", default=None, help=f"Token that ends each document. [default: {END_OF_TEXT}]")
@click.option(
    "--separator",
    default=None,
    help="Line that separates documents in a file. [default: <|endoftext|>, and the text of --eos]",
)
@click.option("--ids", is_flag=True,
              help="TEXTS are files of packed token ids: int32, with or without the header TOYC.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Random seed for choosing the documents for validation.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    texts: tuple[Path, ...],
    out: Path,
    vocab_size: int | None,
    tokenizer: Path | None,
    validation: float,
    eos: str | None,
    separator: str | None,
    ids: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Turn TEXTS, files in UTF-8, into packed tokens and a tokenizer for `toynn train`."""
    if ids:
        if separator is not None:
            raise click.UsageError("--separator is for texts, but --ids says that TEXTS are token ids; leave one out")
        prepared = prepare_ids(texts, out, vocab_size=vocab_size, tokenizer=tokenizer, validation=validation, eos=eos)
    else:
        prepared = _of_texts(texts, out, vocab_size, tokenizer, validation, eos, separator, seed)
    meta, notes = prepared.meta, list(prepared.notes)
    wanted = vocab_size or VOCAB_SIZE
    if tokenizer is None and not ids and meta.vocab_size < wanted:
        notes.append(f"the texts are too short for {wanted} tokens, so the vocabulary has {meta.vocab_size} tokens")
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        splits = {name: dataclasses.asdict(split) for name, split in meta.splits.items()}
        content = {"out": str(out), "vocab_size": meta.vocab_size, "dtype": meta.dtype, "documents": meta.documents}
        click.echo(json.dumps({**content, "splits": splits, "notes": notes}))
        return
    for name, split in meta.splits.items():
        ratio = f", {split.bytes / split.tokens:.2f} bytes per token" if split.bytes and split.tokens else ""
        click.echo(f"{name:<11}{split.tokens} tokens{ratio}")
    if meta.documents is not None:
        click.echo(f"documents  {meta.documents}")
    click.echo(f"vocabulary {meta.vocab_size}")
    click.echo(f"written to {out}")


def _of_texts(
    texts: tuple[Path, ...],
    out: Path,
    vocab_size: int | None,
    tokenizer: Path | None,
    validation: float,
    eos: str | None,
    separator: str | None,
    seed: int,
) -> PreparedData:
    if tokenizer is not None and vocab_size is not None:
        raise click.UsageError("--vocab-size and --tokenizer cannot be combined: the first learns a new tokenizer, "
                               "the second uses an existing one; leave one out")  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the command prints these warnings as notes
        return prepare(
            texts,
            out,
            vocab_size=vocab_size,
            tokenizer=tokenizer,
            validation=validation,
            eos=END_OF_TEXT if eos is None else eos,
            separator=separator,
            seed=seed,
        )
