"""`toynn generate`: continue a text."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from toynn.api.generation_task import GenerationTask, Prompt, parts_of
from toynn.api.load_model import load, model_identity
from toynn.cli.given_path import GivenPath
from toynn.cli.parallel_command import ParallelCommand, working_for_process_0
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.llm.fused.decoder import CACHES
from toynn.parallel.workers import Workers, each_in_order
from toynn.storage.text_files import decoded, read_text
from toynn.text.terminal_text import terminal_text


@click.command(cls=ParallelCommand)
@click.argument("model", metavar="MODEL", type=GivenPath(exists=True, path_type=Path))
@click.option(
    "-p", "--prompt", default=None, help="Text to continue; - reads it from stdin. [default: begin a new text]"
)
@click.option("--prompts", type=GivenPath(exists=True, dir_okay=False, path_type=Path), default=None, metavar="FILE",
              help="Continue each line of FILE, or the field prompt of each line of a .jsonl file. "
                   "Print one JSON object for each prompt.")  # fmt: skip
@click.option("-n", "--max-tokens", type=click.IntRange(0), default=200, show_default=True,
              help="Largest number of tokens to generate.")  # fmt: skip
@click.option("--greedy", is_flag=True, help="Always take the most likely token; sampling options have no effect.")
@click.option("--temperature", type=click.FloatRange(0), default=0.8, show_default=True,
              help="Sampling temperature; 0 is greedy.")  # fmt: skip
@click.option("--top-k", type=click.IntRange(0), default=40, show_default=True,
              help="Sample from the K most likely tokens; 0 keeps all.", metavar="K")  # fmt: skip
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.95, show_default=True,
              help="Keep the most likely tokens up to a total probability of P.", metavar="P")  # fmt: skip
@click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="Drop tokens less likely than P times the most likely one.", metavar="P")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed for sampling.")
@click.option("--rolling", is_flag=True,
              help="When the context is full, keep the last half of the context and continue.")  # fmt: skip
@click.option("--keep-newline", is_flag=True,
              help="Keep the newline at the end of stdin, which is normally removed.")  # fmt: skip
@click.option("--best", is_flag=True, help="Use the checkpoint with the best validation loss, not the latest.")
@click.option("--base", type=GivenPath(exists=True, path_type=Path), default=None,
              help="New path of the base. Needed only if MODEL is an adapter and its base was moved.")  # fmt: skip
@click.option("--cache", type=click.Choice(list(CACHES)), default="f32", show_default=True,
              help="Type of the cached keys and values; f16 rounds them and needs half the memory.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    prompt: str | None,
    prompts: Path | None,
    max_tokens: int,
    greedy: bool,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    rolling: bool,
    keep_newline: bool,
    best: bool,
    base: Path | None,
    cache: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Continue a text with MODEL: a run, a checkpoint, a GGUF file or a Hugging
    Face folder.

    The command prints the prompt, then the continuation while it is generated.
    The same MODEL, prompt and options give the same text. Generation ends when the
    model ends the text, after --max-tokens, or when the context is full. A note
    on stderr, or "finish_reason" of --json, says if the text was cut off.

    With --prompts, each prompt is continued independently of the others. `mpiexec
    -n 4 toynn generate MODEL --prompts FILE` divides the prompts among 4 processes.
    """
    options: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
        "greedy": greedy,
        "rolling": rolling,
    }
    which = "best" if best else "latest"
    if prompts is not None:
        if prompt is not None or keep_newline:
            raise click.UsageError(
                "--prompts reads the prompts from a file and cannot be combined with --prompt or "
                "--keep-newline; leave out one of these options",
                context,
            )
        task = GenerationTask(model, which, base, options, cache=cache)
        with working_for_process_0(context.obj, lambda task, n: task.opened(n), threads) as workers:
            if workers is not None or context.obj is None:
                _continue_all(task, prompts, threads, workers)
        return
    if context.obj is not None:
        raise click.UsageError(
            "a single prompt is continued in one process only; start the command without mpiexec, or give several "
            "prompts with --prompts", context
        )  # fmt: skip
    if keep_newline and prompt != "-":
        raise TinyNNValueError("--keep-newline is for a prompt from stdin; use --keep-newline with --prompt -")
    given = _from_stdin(keep_newline) if prompt == "-" else prompt or ""
    with load(model, which=which, base=base, cache=cache, n_threads=threads) as text_model:
        pieces = text_model.stream(given, **options)
        if as_json:
            text = "".join(pieces)
            reason = pieces.finish_reason
            content = {"step": text_model.step, "prompt": given, "text": text, "seed": seed, "finish_reason": reason}
            click.echo(json.dumps(content, allow_nan=False))
            return
        first = next(pieces, "")  # compute this before the prompt is printed, so that a failure prints only the error
        shown = terminal_text if sys.stdout.isatty() else str  # in a terminal, control characters become symbols
        for piece in itertools.chain((given, first), pieces):
            click.echo(shown(piece), nl=False)  # echo also flushes stdout
        click.echo()
        limit_is_default = context.get_parameter_source("max_tokens") is ParameterSource.DEFAULT
        if pieces.finish_reason == "context_full":
            click.echo(f"note: the text ends here because the context of {text_model.n_ctx} tokens is full; "
                       "--rolling continues the text", err=True)  # fmt: skip
        elif pieces.finish_reason == "max_tokens" and limit_is_default:
            click.echo(f"note: the text ends here after {max_tokens} tokens; --max-tokens changes this", err=True)


def _continue_all(task: GenerationTask, file: Path, n_threads: int | None, workers: Workers | None) -> None:
    """Print the continuation of each prompt of a file as a line of JSON, in the order of the prompts."""
    prompts = _prompts_of(file)
    with task.opened(n_threads if workers is None else workers.n_threads) as continued:
        continued.check(prompts)
        if workers is not None:
            workers.start(replace(task, sha256=model_identity(continued.model.path)))
        parts = parts_of(prompts, 1 if workers is None else workers.n)
        for part, found in each_in_order(workers)(continued, parts):
            for prompt, one in zip(part, found, strict=True):
                content = {
                    "step": one.step,
                    "prompt": prompt.text,
                    "text": one.text,
                    "seed": task.options["seed"],
                    "finish_reason": one.finish_reason,
                }
                click.echo(json.dumps(content, allow_nan=False))


def _prompts_of(file: Path) -> list[Prompt]:
    """Return the lines of a file that are not empty, or in a .jsonl file the field "prompt" of these lines.

    Raises FileFormatError for a line of a .jsonl file whose prompt is missing or not a text, or TinyNNValueError if the
    file has no prompt.
    """
    from toynn.data.sources.strict_json import parsed  # only this function needs toynn.data

    found = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        text, place = line.removesuffix("\r"), f"{file}, line {number}"
        if not text.strip():
            continue
        if file.suffix.lower() == ".jsonl":
            try:
                record = parsed(text.encode("utf-8"))
            except TinyNNValueError as error:
                raise FileFormatError(f"{place}: {error}") from None
            if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
                raise FileFormatError(f"{place} must be a JSON object whose field 'prompt' is a text, got {text:.60}")
            text = record["prompt"]
        found.append(Prompt(text, place))
    if not found:
        raise TinyNNValueError(f"{file} contains no prompts; write one prompt on each line")
    return found


def _from_stdin(keep_newline: bool) -> str:
    """Return the text on stdin, which must be UTF-8. Remove one newline at its end unless keep_newline is true.

    The `echo` of a shell adds this newline, after which the model would begin a new line instead of continuing the
    text.
    """
    if sys.stdin is None:
        raise TinyNNValueError("--prompt - cannot read the prompt, because stdin is closed; give the text instead of -")
    text = decoded(sys.stdin.buffer.read(), "stdin")
    end = next((end for end in ("\r\n", "\n", "\r") if text.endswith(end)), "")
    return text if keep_newline else text.removesuffix(end)
