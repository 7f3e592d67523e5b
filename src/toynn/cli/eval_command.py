"""`toynn eval`: measure how well a model predicts a text or token ids, or show what it predicts next."""

from __future__ import annotations

import dataclasses
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

from toynn.api.evaluation import Evaluation, top_log_probs, window_losses
from toynn.api.load_model import load, model_identity, open_decoder, read_model
from toynn.api.pair_evaluation import evaluate_preference, has_pairs
from toynn.api.token_evaluation import TOKENS, WINDOW, eval_ce, id_sequences
from toynn.arguments import integer
from toynn.cli.given_path import GivenPath
from toynn.cli.parallel_command import ParallelCommand, in_all_processes
from toynn.data.meta import META
from toynn.errors import TinyNNValueError
from toynn.parallel.processes import Processes
from toynn.storage.durable_files import sha256_of
from toynn.storage.json_files import number_or_null
from toynn.storage.text_files import read_text


@click.command(cls=ParallelCommand)
@click.argument("model", metavar="MODEL", type=GivenPath(exists=True, path_type=Path))
@click.argument("text", required=False, type=GivenPath(exists=True, path_type=Path))
@click.option("--window", type=click.IntRange(1), default=None,
              help="Number of tokens that the model reads at a time. [default: the context length; "
                   f"{WINDOW} with --ce]")  # fmt: skip
@click.option("--stride", type=click.IntRange(1), default=None,
              help="Begin a new window every S tokens, and count only the last S tokens of each "
                   "window. [default: the value of --window]",
              metavar="S")  # fmt: skip
@click.option("--separator", default=None, metavar="LINE",
              help="Line that separates documents. [default: the separator of MODEL's training data]")  # fmt: skip
@click.option("--ids", is_flag=True,
              help="TEXT is a file of packed token ids, or a data folder with a validation split.")  # fmt: skip
@click.option(
    "--ce",
    is_flag=True,
    help="Like --ids, but compute the loss in the same way as `toy eval ce` of the Ruby project toy.",
)
@click.option("--tokens", type=click.IntRange(1), default=None, metavar="N",
              help=f"Largest number of token ids to read. [default: all; {TOKENS} with --ce]")  # fmt: skip
@click.option("--offset", type=click.IntRange(0), default=None, metavar="N",
              help="Position of the first token id to read. [default: 0]")  # fmt: skip
@click.option("--top-k", type=click.IntRange(1), default=None, metavar="K",
              help="Print the K most likely tokens after a prompt, with their log-probabilities.")  # fmt: skip
@click.option("-p", "--prompt", default=None, help="Prompt for --top-k. [default: the file TEXT]")
@click.option("--prompt-ids", default=None, metavar="IDS", help="Prompt for --top-k as token ids, like '1 100 200'.")
@click.option("--best", is_flag=True, help="Use the checkpoint with the best validation loss, not the latest.")
@click.option("--base", type=GivenPath(exists=True, path_type=Path), default=None,
              help="New path of the base. Needed only if MODEL is an adapter and its base was moved.")  # fmt: skip
@click.option("--reference", type=GivenPath(exists=True, path_type=Path), default=None, metavar="MODEL",
              help="Reference model for preference pairs. [default: the reference model of the run MODEL]")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, /, model: Path, text: Path | None, best: bool, as_json: bool, **_: Any) -> None:
    """Measure the loss, perplexity and bits per byte of MODEL on the file TEXT.

    MODEL is a run, a checkpoint, a GGUF file or a Hugging Face folder. TEXT is a
    UTF-8 file, or token ids (--ids, --ce). With --top-k, the command prints the
    most likely next tokens instead.

    `mpiexec -n 4 toynn eval MODEL TEXT` divides the windows among 4 processes, and
    gives the same figures.
    """
    processes: Processes | None = ctx.obj
    with in_all_processes(processes):
        if processes is not None:
            ctx.params["threads"] = processes.threads(ctx.params["threads"])
        _evaluate(ctx, model, text, best, as_json)


def _evaluate(ctx: click.Context, model: Path, text: Path | None, best: bool, as_json: bool) -> None:
    options = ctx.params
    which = "best" if best else "latest"
    if options["top_k"] is not None:
        _refuse(ctx, "--top-k", "window", "stride", "separator", "ids", "ce", "tokens", "offset", "reference")
        if ctx.obj is not None:
            raise click.UsageError(
                "--top-k reads one prompt and runs in one process only; start the command without mpiexec", ctx
            )
        _next_tokens(ctx, model, which, text, as_json)
        return
    _refuse(ctx, "an evaluation without --top-k", "prompt", "prompt_ids")
    if text is None:
        raise click.UsageError("the argument TEXT is missing; give a text file, or a data folder with --ids", ctx)
    if options["ce"]:
        _refuse(ctx, "--ce", "ids", "stride", "separator", "base", "reference")
        _windows(ctx, model, which, text, as_json)
    elif options["ids"] and has_pairs(text):
        _refuse(ctx, "preference pairs", "separator", "window", "stride", "tokens", "offset")
        _pairs(ctx, model, which, text, as_json)
    elif options["ids"]:
        _refuse(ctx, "--ids", "separator", "reference")
        _ids(ctx, model, which, text, as_json)
    else:
        _refuse(ctx, "a text", "tokens", "offset", "reference")
        _text(ctx, model, which, text, as_json)


def _refuse(ctx: click.Context, what: str, *names: str) -> None:
    """Raise UsageError if one of the options in `names` is given, because it has no meaning for `what`."""
    for name in names:
        if ctx.params[name] not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} cannot be used with {what}; leave out {option}", ctx)


def _compare(ctx: click.Context, model: Path, data: Path) -> None:
    """Check that all processes of a job have the same version of toynn, model and data."""
    processes: Processes | None = ctx.obj
    if processes is not None:
        content = sha256_of(data / META if data.is_dir() else data)  # meta.json contains the SHA-256 of the other files
        processes.compare({"version of toynn": version("toynn"), "model": model_identity(model), "data": content})


def _text(ctx: click.Context, model: Path, which: str, text: Path, as_json: bool) -> None:
    if text.is_dir():
        raise click.UsageError(f"{text} is a folder; name a text file, or use --ids for a data folder", ctx)
    options, content = ctx.params, read_text(text)
    with load(model, which=which, base=ctx.params["base"], n_threads=options["threads"]) as text_model:
        _compare(ctx, text_model.path, text)
        result = text_model.evaluate(
            content, options["window"], options["stride"], separator=options["separator"], processes=ctx.obj
        )
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


def _ids(ctx: click.Context, model: Path, which: str, path: Path, as_json: bool) -> None:
    options = ctx.params
    with open_decoder(model, which, options["base"], n_threads=options["threads"]) as (source, decoder):
        shape = decoder.cfg
        window = integer("window", options["window"] or shape.ctx, 1, shape.ctx)
        stride = integer("stride", options["stride"] or window, 1, window)
        sequences = id_sequences(path, shape.vocab, options["tokens"], options["offset"] or 0)
        _compare(ctx, source.path, path)
        nats, n = [], 0
        computed = window_losses(decoder, sequences.ids, window, stride, ctx.obj)
        for counted, of_sequence in zip(sequences.counted, computed, strict=True):
            at = 1
            for losses in of_sequence:
                marks = counted[at : at + losses.size] == 1
                nats.append(float(np.sum(losses[marks], dtype=np.float64)))
                n, at = n + int(marks.sum()), at + losses.size
    result = Evaluation(tokens=n, text_bytes=0, nats=math.fsum(nats))
    if as_json:
        figures = {"step": source.step, "tokens": result.tokens, "loss": number_or_null(result.loss),
                   "perplexity": number_or_null(result.perplexity)}  # fmt: skip
        click.echo(json.dumps(figures, allow_nan=False))
        return
    click.echo(f"tokens         {result.tokens}")
    click.echo(f"loss           {result.loss:.4f} nats per token")
    click.echo(f"perplexity     {result.perplexity:.2f}")


def _pairs(ctx: click.Context, model: Path, which: str, data: Path, as_json: bool) -> None:
    options = ctx.params
    found = evaluate_preference(
        model,
        data,
        which=which,
        base=options["base"],
        reference=options["reference"],
        n_threads=options["threads"],
        processes=ctx.obj,
    )
    figures = {"pairs": found.pairs, "loss": found.loss, **dataclasses.asdict(found.figures)}
    if as_json:
        click.echo(json.dumps({name: number_or_null(value) for name, value in figures.items()}, allow_nan=False))
        return
    for name, value in figures.items():
        click.echo(f"{name.replace('_', ' '):<16} {value if name == 'pairs' else format(value, '.4f')}")


def _windows(ctx: click.Context, model: Path, which: str, path: Path, as_json: bool) -> None:
    options, source = ctx.params, read_model(model, which)
    values = source.model
    _compare(ctx, source.path, path)
    found = eval_ce(
        values,
        path,
        window=options["window"] or min(WINDOW, values.shape.ctx),
        tokens=options["tokens"] or TOKENS,
        offset=options["offset"] or 0,
        n_threads=options["threads"],
        processes=ctx.obj,
    )
    if as_json:
        click.echo(json.dumps({"windows": found.windows, "tokens": found.tokens, "ce": number_or_null(found.ce)}))
        return
    click.echo(f"eval_ce: windows={found.windows} tokens={found.tokens} ce={found.ce!r}")


def _next_tokens(ctx: click.Context, model: Path, which: str, text: Path | None, as_json: bool) -> None:
    prompt, given, k = ctx.params["prompt"], ctx.params["prompt_ids"], ctx.params["top_k"]
    if sum(one is not None for one in (text, prompt, given)) != 1:
        raise click.UsageError("--top-k needs one prompt: the file TEXT, --prompt or --prompt-ids", ctx)
    if given is None:
        content = prompt if text is None else read_text(text)
        with load(model, which=which, base=ctx.params["base"], n_threads=ctx.params["threads"]) as text_model:
            scores = text_model.next_tokens(content, k)
        found = [(one.token, one.log_prob) for one in scores]
        rows: list[dict[str, Any]] = [{"id": one.token, "text": one.text, "logprob": one.log_prob} for one in scores]
    else:
        ids = _numbers(given)
        with open_decoder(model, which, ctx.params["base"], n_threads=ctx.params["threads"]) as (_, decoder):
            found = top_log_probs(decoder.feed(ids), k)
        rows = [{"id": token, "logprob": log_prob} for token, log_prob in found]
    if as_json:
        click.echo(json.dumps({"top_k": k, "logprobs": rows}))
        return
    for token, log_prob in found:
        click.echo(f"logprob: {token} {log_prob!r}")


def _numbers(text: str) -> list[int]:
    words = text.replace(",", " ").split()
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 10):
            raise TinyNNValueError(f"--prompt-ids must be token ids like '1 100 200', got {word!r:.40}")
    return [int(word) for word in words]
