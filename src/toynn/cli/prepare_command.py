"""`toynn prepare`: turn texts or samples into training data."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import click

from toynn.api.prepare_data import VOCAB_SIZE, PreparedData, prepare, prepare_ids
from toynn.cli.given_path import GivenPath
from toynn.cli.parallel_command import ParallelCommand, working_for_process_0
from toynn.cli.sample_table import sample_table
from toynn.data.samples.settings import LOSSES, TRUNCATIONS
from toynn.data.sources.records import FORMATS
from toynn.errors import TinyNNValueError
from toynn.parallel.workers import Workers
from toynn.text.documents import END_OF_TEXT
from toynn.text.named_templates import NAMED_TEMPLATES

_FOR_SAMPLES = ("format", "text_field", "weights", "skip_bad", "chat_template", "loss", "max_tokens", "truncate")


@click.command(cls=ParallelCommand)
@click.argument("texts", nargs=-1, required=True, type=GivenPath(exists=True, path_type=Path))
@click.option("--out", required=True, type=GivenPath(path_type=Path), help="Folder to create for the data.")
@click.option("--vocab-size", type=click.IntRange(1), default=None,
              help="Learn a byte-level BPE tokenizer with N tokens, at least 257. "
                   f"[default: {VOCAB_SIZE}] With --ids: number of ids in the "
                   "vocabulary.", metavar="N")  # fmt: skip
@click.option("--tokenizer", type=GivenPath(exists=True, path_type=Path), default=None,
              help="Use this tokenizer.json, or the tokenizer of this data folder or model.")  # fmt: skip
@click.option("--validation", type=click.FloatRange(0, 1, max_open=True), default=0.05, show_default=True,
              help="Share of the documents that is held out for validation.")  # fmt: skip
@click.option("--eos", default=None,
              help=f"Token that ends each document. [default: {END_OF_TEXT}; for samples, the end "
                   f"token of --tokenizer if it does not contain {END_OF_TEXT}]")  # fmt: skip
@click.option(
    "--separator",
    default=None,
    help="Line that separates documents in a file. [default: the line <|endoftext|>, and a line with "
    "the text of --eos]",
)
@click.option("--ids", is_flag=True,
              help="TEXTS are files of packed token ids: int32, with or without the header TOYC.")  # fmt: skip
@click.option("--format", type=click.Choice(FORMATS), default=None,
              help="Format of the samples. [default: detected from the content of each file]")  # fmt: skip
@click.option("--text-field", default=None, metavar="NAME",
              help="Field that contains the text of a sample. [default: text]")  # fmt: skip
@click.option("--weights", default=None, metavar="W,W,...",
              help="One number for each file: how often each training sample of the file is used "
                   "in an epoch. [default: 1]")  # fmt: skip
@click.option("--skip-bad", type=click.IntRange(0), default=0, metavar="N", show_default=True,
              help="Skip up to N broken samples. More than N broken samples are an error.")  # fmt: skip
@click.option("--chat-template", default=None, metavar="NAME|PATH",
              help=f"Chat template: {', '.join(NAMED_TEMPLATES)}, a Jinja file, or a model. "
                   "[default: the template that comes with --tokenizer]")  # fmt: skip
@click.option("--loss", type=click.Choice(LOSSES), default=LOSSES[0], show_default=True,
              help="Tokens that count for the loss: all answers, the last answer, or all tokens.")  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(2), default=None, metavar="N",
              help="Largest number of tokens of a sample. [default: no limit]")  # fmt: skip
@click.option("--truncate", type=click.Choice(TRUNCATIONS), default=TRUNCATIONS[0], show_default=True,
              help="With --max-tokens: drop the first tokens, the oldest turns, or the whole sample.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Random seed for choosing the documents for validation.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, /, texts: tuple[Path, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Turn TEXTS into packed tokens and a tokenizer for `toynn train`.

    TEXTS are plain text in UTF-8, JSON lines, JSON arrays or Parquet files. All
    formats except Parquet may be compressed (gzip, Zstandard).

    `mpiexec -n 4 toynn prepare TEXTS --out OUT` encodes the texts in 4 processes.
    OUT has the same bytes as with one process.
    """
    with working_for_process_0(ctx.obj, lambda task, _: task.opened()) as workers:
        if workers is not None or ctx.obj is None:
            _prepare(ctx, texts, out, as_json, workers, options)


def _prepare(
    ctx: click.Context,
    texts: tuple[Path, ...],
    out: Path,
    as_json: bool,
    workers: Workers | None,
    options: dict[str, Any],
) -> None:
    vocab_size, tokenizer = options["vocab_size"], options["tokenizer"]
    prepared = _of_ids(ctx, texts, out) if options.pop("ids") else _of_texts(texts, out, options, workers)
    meta, notes = prepared.meta, list(prepared.notes)
    wanted = vocab_size or VOCAB_SIZE
    if tokenizer is None and not ctx.params["ids"] and meta.vocab_size < wanted:
        notes.append(f"the texts are too short for {wanted} tokens, so the vocabulary has {meta.vocab_size} tokens")
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        splits = {name: dataclasses.asdict(split) for name, split in meta.splits.items()}
        for split in splits.values():
            if split["samples"] is None:
                del split["samples"]
        content = {"out": str(out), "vocab_size": meta.vocab_size, "dtype": meta.dtype, "documents": meta.documents}
        of_samples = {one.name: dataclasses.asdict(one.samples) for one in meta.sources if one.samples is not None}
        sources = {"sources": of_samples} if of_samples else {}
        click.echo(json.dumps({**content, "splits": splits, **sources, "notes": notes}))
        return
    for line in sample_table(meta):
        click.echo(line)
    for name, one in meta.splits.items():
        ratio = f", {one.bytes / one.tokens:.2f} bytes per token" if one.bytes and one.tokens else ""
        click.echo(f"{name:<11}{one.tokens} tokens{ratio}")
    if meta.documents is not None:
        click.echo(f"{'pairs' if meta.pairs else 'documents':<11}{meta.documents}")
    click.echo(f"vocabulary {meta.vocab_size}")
    click.echo(f"written to {out}")


def _of_ids(ctx: click.Context, paths: tuple[Path, ...], out: Path) -> PreparedData:
    for name in ("separator", *_FOR_SAMPLES):
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option} is for texts, but --ids says that TEXTS are token ids; leave out {option} or --ids"
            )
    names = ("vocab_size", "tokenizer", "validation", "eos")
    return prepare_ids(paths, out, **{name: ctx.params[name] for name in names})


def _of_texts(texts: tuple[Path, ...], out: Path, options: dict[str, Any], workers: Workers | None) -> PreparedData:
    if options["tokenizer"] is not None and options["vocab_size"] is not None:
        raise click.UsageError("--vocab-size and --tokenizer cannot be combined: --vocab-size "
                               "learns a new tokenizer, but --tokenizer names an existing "
                               "tokenizer; leave out one of these options")  # fmt: skip
    weights = None if options["weights"] is None else _numbers(options["weights"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the command prints these warnings as notes
        return prepare(texts, out, **{**options, "weights": weights}, workers=workers)


def _numbers(text: str) -> list[float]:
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise TinyNNValueError(f"--weights must be numbers such as 1,2.5, got {text!r:.60}") from None
