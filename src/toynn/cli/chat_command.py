"""`toynn chat`: a conversation with a model."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from toynn.api.load_model import load
from toynn.api.reply_stream import ReplyStream
from toynn.cli.chat_loop import ChatLoop
from toynn.cli.given_path import GivenPath
from toynn.errors import TinyNNValueError
from toynn.llm.fused.decoder import CACHES
from toynn.text.named_templates import NAMED_TEMPLATES


@click.command()
@click.argument("model", metavar="MODEL", type=GivenPath(exists=True, path_type=Path))
@click.option("--system", default=None, metavar="TEXT", help="System prompt: instructions to the model.")
@click.option("--template", default=None, metavar="NAME|FILE",
              help=f"Chat template: {', '.join(NAMED_TEMPLATES)}, a Jinja file, or a model. "
                   "[default: the template of the model]")  # fmt: skip
@click.option("-n", "--max-tokens", type=click.IntRange(1), default=None,
              help="Largest number of tokens of a reply. [default: until the context is full]")  # fmt: skip
@click.option("--greedy", is_flag=True, help="Always take the most likely token; sampling options have no effect.")
@click.option("--temperature", type=click.FloatRange(0), default=None,
              help="Sampling temperature; 0 is greedy. [default: from the model]")  # fmt: skip
@click.option("--top-k", type=click.IntRange(0), default=None, metavar="K",
              help="Sample from the K most likely tokens; 0 keeps all. [default: from the model]")  # fmt: skip
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=None, metavar="P",
              help="Keep the most likely tokens up to a total probability of P. [default: from the model]")  # fmt: skip
@click.option("--min-p", type=click.FloatRange(0, 1), default=None, metavar="P",
              help="Drop tokens less likely than P times the most likely one. [default: from the model]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed for sampling.")
@click.option("--context", "n_ctx", type=click.IntRange(1), default=None, metavar="N",
              help="Context length in tokens. [default: the context length of the model]")  # fmt: skip
@click.option("--cache", type=click.Choice(list(CACHES)), default="f32", show_default=True,
              help="Type of the cached keys and values; f16 rounds them and needs half the memory.")  # fmt: skip
@click.option("--best", is_flag=True, help="Use the checkpoint with the best validation loss, not the latest.")
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
def command(
    model: Path,
    system: str | None,
    template: str | None,
    max_tokens: int | None,
    greedy: bool,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int,
    n_ctx: int | None,
    cache: str,
    best: bool,
    threads: int | None,
) -> None:
    """Talk with MODEL: a run, a checkpoint, a GGUF file or a Hugging Face folder.

    Each line is a message to the model; /help lists the commands. Ctrl-C ends a
    reply, and Ctrl-D ends the program. If the conversation no longer fits into the
    context, the model does not see its oldest messages, and a note says so. The
    lines can also come from a pipe or a file.
    """
    if sys.stdin is None:
        raise TinyNNValueError(
            "toynn chat cannot read messages, because stdin is closed; connect stdin to a terminal or a file"
        )
    which = "best" if best else "latest"
    with load(model, which=which, n_ctx=n_ctx, cache=cache, n_threads=threads) as text_model:
        text_model.chat_template(template).check()  # this reports a wrong template now, not at the first message

        def reply(messages: list[dict[str, str]]) -> ReplyStream:
            return text_model.chat_stream(
                messages,
                template=template,
                max_tokens=max_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                seed=seed,
                greedy=greedy,
                drop_oldest=True,
            )

        is_interactive = sys.stdin.isatty()
        if is_interactive:
            click.echo(f"{model}, context {text_model.n_ctx} tokens. /help lists the commands, Ctrl-D ends.")
        ChatLoop(reply, text_model.n_ctx, system, is_interactive=is_interactive).run()
