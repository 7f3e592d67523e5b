"""`toynn export`: write a model for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.api.adapter_files import merged_model, write_adapter
from toynn.api.save_model import described_dtypes, dtypes_of, exists, format_of, model_name, write_model
from toynn.cli.given_path import GivenPath
from toynn.errors import TinyNNValueError
from toynn.interop import GGUF_DTYPES
from toynn.llm.adapters.model_on_base import adapter_of
from toynn.storage.checkpoint import load_checkpoint


@click.command()
@click.argument("run", type=GivenPath(exists=True, path_type=Path))
@click.argument("out", type=GivenPath(path_type=Path))
@click.option("--format", "form", type=click.Choice(["gguf", "hf"]), default=None,
              help="Format of OUT. [default: gguf if OUT ends in .gguf, otherwise hf]")  # fmt: skip
@click.option("--for", "program", type=click.Choice(["llama.cpp", "toy"]), default=None,
              help="Program that will read the GGUF file: llama.cpp, or the Ruby project toy. "
                   "[default: llama.cpp]")  # fmt: skip
@click.option("--dtype", type=click.Choice(list(GGUF_DTYPES), case_sensitive=False), default=None, metavar="TYPE",
              help=f"Type of the matrices in a GGUF file: {', '.join(GGUF_DTYPES)}. A Hugging Face folder can have "
                   "f32, f16 or bf16. [default: f32]")  # fmt: skip
@click.option("--name", default=None,
              help="Model name in a GGUF file, or with --for toy the name of the run. "
                   "[default: the name of the imported model, or of RUN]")  # fmt: skip
@click.option("--merge", is_flag=True,
              help="Write the whole model: the weights of the base plus the adapter of RUN.")  # fmt: skip
@click.option("--base", type=GivenPath(exists=True, path_type=Path), default=None,
              help="With --merge: new path of the base. Needed only if the base was moved.")  # fmt: skip
@click.option("--best", is_flag=True, help="Use the checkpoint with the best validation loss, not the latest.")
@click.option("--force", is_flag=True, help="Replace an existing OUT, which is kept until the new OUT is complete.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    run: Path,
    out: Path,
    form: str | None,
    program: str | None,
    dtype: str | None,
    name: str | None,
    merge: bool,
    base: Path | None,
    best: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Write the model of RUN (a run or a checkpoint) for other programs.

    OUT is a GGUF file for llama.cpp or for toy, or a folder for Hugging Face's
    transformers. If RUN has trained an adapter, OUT contains only the adapter,
    unless --merge is given: a GGUF file that llama.cpp loads beside the base, or a
    folder for PEFT.
    """
    form = format_of(out, form, "hf" if program is None else "gguf")
    if form == "hf" and program is not None:
        raise TinyNNValueError(
            f"--for {program} writes a GGUF file; name a file that ends in .gguf, or leave out --for"
        )
    if program == "toy":
        form = "toy"
    if form != "gguf" and dtype is not None and dtype not in dtypes_of(form):
        raise TinyNNValueError(
            f"--dtype must be {described_dtypes(form)}, got {dtype}; GGUF files for llama.cpp can have other types"
        )
    if not force and exists(out):
        raise TinyNNValueError(f"{out} already exists; name another path, or use --force to replace it")
    checkpoint = load_checkpoint(run, "best" if best else "latest")
    adapter = adapter_of(checkpoint.contents)
    if adapter is None and (merge or base is not None):
        raise TinyNNValueError(f"{checkpoint.path} has no adapter; leave out {'--merge' if merge else '--base'}")
    if name is None:
        name = model_name(checkpoint.contents, checkpoint.path)
    if adapter is not None and not merge:
        _refuse_options_of_models(form, dtype, base)
        written = write_adapter(adapter, out, kind=form, overwrite=force, name=name)
    else:
        model = merged_model(checkpoint, base) if merge else checkpoint.model
        written = write_model(model, out, step=checkpoint.step, kind=form, dtype=dtype, overwrite=force, name=name)
    if as_json:
        result = {"out": str(out), "format": written.format, "step": checkpoint.step, "dtype": written.dtype}
        click.echo(json.dumps({**result, "bytes": written.bytes, "notes": list(written.notes)}))
        return
    for note in written.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"step {checkpoint.step} written to {out} ({written.bytes / 1e6:.1f} MB)")


def _refuse_options_of_models(form: str, dtype: str | None, base: Path | None) -> None:
    """Raise TinyNNValueError for an option that has an effect only if a whole model is written."""
    given = {"--for toy": form == "toy", f"--dtype {dtype}": dtype not in (None, "f32"), "--base": base is not None}
    for option, is_given in given.items():
        if is_given:
            raise TinyNNValueError(f"{option} is for whole models, but RUN contains only an adapter; add --merge")
