"""`toynn serve`: a local server with the API of OpenAI."""

from __future__ import annotations

import os
from pathlib import Path

import click

from toynn.api.load_model import load
from toynn.cli.given_path import GivenPath
from toynn.errors import TinyNNValueError
from toynn.llm.fused.decoder import CACHES
from toynn.serve.guards import LOCAL_NAMES
from toynn.serve.http_server import Listener, run_server
from toynn.serve.limits import Limits
from toynn.serve.model_app import ModelApp
from toynn.text.named_templates import NAMED_TEMPLATES

KEY = "TOYNN_API_KEY"
_DEFAULTS = Limits()


@click.command()
@click.argument("model", metavar="MODEL", type=GivenPath(exists=True, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST",
              help="Address to listen on. An address for other machines needs a key.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port to listen on; 0 chooses a free port.")  # fmt: skip
@click.option("--api-key", default=None, metavar="KEY",
              help=f"Key that every request must have. [default: the environment variable {KEY}]")  # fmt: skip
@click.option("--allow-origin", "origins", multiple=True, metavar="ORIGIN",
              help="Let the web pages of ORIGIN use the server, for example http://localhost:3000.")  # fmt: skip
@click.option("--name", default=None, help="Name of the model in the API. [default: the name of the file or folder]")
@click.option("--template", default=None, metavar="NAME|FILE",
              help=f"Chat template: {', '.join(NAMED_TEMPLATES)}, a Jinja file, or a model. "
                   "[default: the template of the model]")  # fmt: skip
@click.option("--context", "n_ctx", type=click.IntRange(1), default=None, metavar="N",
              help="Context length in tokens. [default: the context length of the model]")  # fmt: skip
@click.option("--max-body", type=click.IntRange(1), default=_DEFAULTS.body, show_default=True, metavar="BYTES",
              help="Largest size of a request in bytes.")  # fmt: skip
@click.option("--queue", type=click.IntRange(0), default=_DEFAULTS.queue, show_default=True, metavar="N",
              help="Largest number of requests that wait; further requests are refused.")  # fmt: skip
@click.option("--time-limit", type=click.FloatRange(0, min_open=True), default=_DEFAULTS.seconds, show_default=True,
              metavar="SECONDS",
              help="Time limit of a request in seconds, including its time in the queue.")  # fmt: skip
@click.option("--cache", type=click.Choice(list(CACHES)), default="f32", show_default=True,
              help="Type of the cached keys and values; f16 rounds them and needs half the memory.")  # fmt: skip
@click.option("--best", is_flag=True, help="Use the checkpoint with the best validation loss, not the latest.")
@click.option("--threads", type=click.IntRange(1), default=None,
              help="Number of threads. [default: one for each core that toynn may use]")  # fmt: skip
def command(
    model: Path,
    host: str,
    port: int,
    api_key: str | None,
    origins: tuple[str, ...],
    name: str | None,
    template: str | None,
    n_ctx: int | None,
    max_body: int,
    queue: int,
    time_limit: float,
    cache: str,
    best: bool,
    threads: int | None,
) -> None:
    """Serve MODEL with the API of OpenAI: /v1/chat/completions, /v1/completions and
    /v1/models. MODEL is a run, a GGUF file or a Hugging Face folder.

    Only programs on this machine can use the server, unless --host gives another
    address. The replies are computed one after another. The same request with the
    same seed gets the same reply. Ctrl-C ends the server.
    """
    key = os.environ.get(KEY) if api_key is None else api_key
    if key is not None and not (key and key.isascii() and key.isprintable()):
        wrong = "an empty text" if not key else "a text with another character"
        raise TinyNNValueError(
            f"the key of --api-key or of the variable {KEY} must consist of printable ASCII characters, got {wrong}"
        )
    limits = Limits(body=max_body, queue=queue, seconds=time_limit)
    which = "best" if best else "latest"
    with load(model, which=which, n_ctx=n_ctx, cache=cache, n_threads=threads) as text_model:
        if template is not None:
            text_model.chat_template(template).check()  # this reports a wrong template now, not at the first request
        listener = Listener(host, port)
        if not listener.is_local and key is None:
            raise TinyNNValueError(
                f"--host {host} lets other machines use the server; set a key with --api-key or in the variable {KEY}"
            )
        name = name or (model.resolve().name if model.is_dir() else model.stem)
        served = ModelApp(
            text_model,
            name,
            limits=limits,
            template=template,
            key=key,
            hosts={*LOCAL_NAMES, host.lower()} if listener.is_local else None,
            origins=origins,
        )
        try:
            run_server(
                served.app,
                listener,
                limits,
                lambda: click.echo(f"serving {name} on {listener.url}/v1 (Ctrl-C ends the server)"),
            )
        finally:
            served.close()
    click.echo("the server has ended")
