"""`toynn export`: a run's model for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toynn.errors import TinyNNValueError
from toynn.interop import GGUF_DTYPES, export_gguf, export_hf
from toynn.storage.checkpoint import load_checkpoint

NOT_FOLDERS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".ggml", ".npz", ".json")


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["gguf", "hf"]), default=None,
              help="Default: gguf if OUT ends in .gguf, otherwise hf.")  # fmt: skip
@click.option("--dtype", type=click.Choice(list(GGUF_DTYPES)), default=None, help="Of a GGUF's weights. [default: f32]")
@click.option("--best", is_flag=True, help="The run's best checkpoint, not its latest.")
@click.option("--force", is_flag=True, help="Replace OUT, once the new one is whole.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(run: Path, out: Path, form: str | None, dtype: str | None, best: bool, force: bool, as_json: bool) -> None:
    """Write the model of RUN (or of one checkpoint) for other programs.

    OUT is a GGUF file for llama.cpp, or a folder for Hugging Face's transformers
    (weights in f32).
    """
    if form is None and out.suffix.lower() in NOT_FOLDERS and not out.is_dir():
        raise TinyNNValueError(
            f"OUT ends in {out.suffix}, which is not written: name a file that ends in .gguf, or a folder"
        )
    form = form or ("gguf" if out.suffix.lower() == ".gguf" else "hf")
    if form == "hf" and dtype not in (None, "f32"):
        raise TinyNNValueError(f"--dtype {dtype} is for GGUF; a Hugging Face folder is written in f32")
    if out.exists() and not force and (out.is_file() or any(out.iterdir())):
        raise TinyNNValueError(f"{out} is there already; --force replaces it")
    checkpoint = load_checkpoint(run, "best" if best else "latest")
    result = {"out": str(out), "format": form, "step": checkpoint.step}
    if form == "gguf":
        written = export_gguf(checkpoint.model, out, dtype or "f32", overwrite=force)
        size, notes = written.bytes, written.notes
    else:
        folder = export_hf(checkpoint.model, out, overwrite=force)
        size, notes = sum(path.stat().st_size for path in folder.iterdir()), ()
    if as_json:
        click.echo(json.dumps({**result, "dtype": dtype or "f32", "bytes": size, "notes": list(notes)}))
        return
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"step {checkpoint.step} written to {out} ({size / 1e6:.1f} MB)")
