"""Measure checkpoints, imports and the start of commands, and write a section of docs/performance.md.

Run it with `make bench-start`. The model has the shape of SmolLM2-135M, random weights, and a tokenizer with the
same number of tokens. Each measurement takes turns with a reference: a plain write of the same number of bytes to the
same folder, or a Python interpreter that does nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.measure import quartiles
from benchmarks.program_process import ROOT, ProgramError
from benchmarks.report import write_markdown

COMMAND = "make bench-start"
_VOCAB, _SMALL_VOCAB = 49152, 4096
_CHUNK = 8 << 20  # bytes that a plain write passes to the system at once
_TOYNN = (sys.executable, "-c", "from toynn.cli.start import main; main()")
_PYTHON = (sys.executable, "-c", "pass")


@dataclass
class Row:
    """The seconds of toynn for a task, and of the reference with which toynn takes turns.

    toynn, other: one number for each turn, of toynn and of the reference (a plain write, or an idle interpreter).
    nbytes: the bytes that are written. cpu: the seconds of CPU time of toynn.
    """

    task: str
    reference: str
    nbytes: int = 0
    toynn: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.around_the_step",
        description="Measure checkpoints, imports and the start of commands of toynn.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="Measure a small model in two turns, to check the benchmark."
    )
    parser.add_argument("--rounds", type=int, default=7, help="How many times each value is measured (default: 7).")
    parser.add_argument("--folder", type=Path, help="Folder to write to, on the disk to measure (default: a new one).")
    parser.add_argument("--model", type=Path, help="GGUF file of a model with a tokenizer (default: random weights).")
    parser.add_argument("--out", type=Path, help="Output folder (default: docs/ and benchmarks/results/).")
    return parser.parse_args()


def plain_write(path: Path, nbytes: int) -> float:
    """Return the seconds to write this many bytes to a new file and to sync it, and delete the file.

    The bytes bypass the page cache if the system allows it, because this is the fastest way to write a large file.
    """
    with mmap.mmap(-1, _CHUNK) as chunk:
        chunk[:] = random.Random(0).randbytes(_CHUNK)
        start = time.perf_counter()
        file = _new_file(path)
        try:
            left = nbytes // 4096 * 4096
            while left:
                left -= os.write(file, memoryview(chunk)[: min(left, _CHUNK)])
            os.fsync(file)
        finally:
            os.close(file)
        seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def _new_file(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags | getattr(os, "O_DIRECT", 0))
    except OSError:  # the file system does not support O_DIRECT
        path.unlink(missing_ok=True)
        return os.open(path, flags)


def tokenizer_json(vocab: int) -> bytes:
    """Return a byte-level BPE tokenizer with this many tokens, whose merges are random."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    draw = random.Random(0)
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, merges = set(tokens), []
    while len(tokens) < vocab:
        pair = draw.choice(tokens), draw.choice(tokens[:4096])
        if (merged := "".join(pair)) not in known:
            known.add(merged)
            tokens.append(merged)
            merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str().encode()


def write_model(path: Path, small: bool) -> None:
    """Write a GGUF file in q4_1 with random weights, in the shape of SmolLM2-135M or in a small shape."""
    from toynn import SmolLM2Config
    from toynn.interop import export_gguf
    from toynn.model.shape import ModelShape
    from toynn.model.trained_model import TrainedModel
    from toynn.model.weights import weight_shapes

    config = SmolLM2Config.smollm2_135m()
    if small:
        config = SmolLM2Config(
            vocab=_SMALL_VOCAB, d_model=64, n_heads=4, n_kv=4, d_ff=128, n_layers=2, ctx=64, rope_base=1e4,
            rms_eps=1e-5,
        )  # fmt: skip
    draw = np.random.default_rng(0)
    weights = {
        name: draw.standard_normal(size, dtype=np.float32) * np.float32(0.02) if len(size) > 1
        else np.ones(size, np.float32)
        for name, size in weight_shapes(ModelShape.of(config)).items()
    }  # fmt: skip
    export_gguf(TrainedModel(ModelShape.of(config), weights, tokenizer_json(config.vocab)), path, "q4_1")


def run(command: tuple[str, ...]) -> float:
    """Return the seconds that a command needs. Raises ProgramError if it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise ProgramError(f"{' '.join(command[3:])} failed: {done.stderr.strip()}")
    return seconds


def cpu_time() -> float:
    """Return the seconds of CPU time of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measured(row: Row, rounds: int, toynn: Callable[[], float], other: Callable[[], float]) -> Row:
    """Take both measurements in turn, after one turn that does not count."""
    print(f"{row.task} ...", file=sys.stderr)
    toynn()
    for _ in range(rounds):
        before = cpu_time()
        row.toynn.append(toynn())
        row.cpu.append(cpu_time() - before)
        row.other.append(other())
    return row


def commands(model: Path, folder: Path, rounds: int) -> list[Row]:
    """Measure `toynn --help`, the first token, `import_gguf` in this process, and `toynn import`."""
    from toynn.interop import import_gguf

    def imported() -> float:
        start = time.perf_counter()
        import_gguf(model)
        return time.perf_counter() - start

    def import_command() -> float:
        out = folder / "imported"
        seconds = run((*_TOYNN, "import", str(model), "--out", str(out)))
        nbytes[0] = sum(entry.stat().st_size for entry in out.rglob("*") if entry.is_file())
        shutil.rmtree(out)
        return seconds

    def interpreter() -> float:
        return run(_PYTHON)

    nbytes = [0]
    generate = (*_TOYNN, "generate", str(model), "--prompt", "The capital of France is", "--max-tokens", "1")
    rows = [
        measured(Row("toynn --help", "Python"), rounds, lambda: run((*_TOYNN, "--help")), interpreter),
        measured(Row("first token of toynn generate", "Python"), rounds, lambda: run(generate), interpreter),
        measured(Row("import_gguf", "Python"), rounds, imported, interpreter),
    ]
    by_command = Row("toynn import", "plain write")
    measured(by_command, rounds, import_command, lambda: plain_write(folder / "plain", nbytes[0]))
    by_command.nbytes = nbytes[0]
    return [*rows, by_command]


def checkpoints(model: Path, folder: Path, rounds: int) -> Row:
    """Train the model, with a checkpoint after each step, and measure a plain write after each checkpoint."""
    import toynn
    from toynn.interop import import_gguf
    from toynn.storage.checkpoint import write_checkpoint
    from toynn.training import Saved

    print("checkpoint ...", file=sys.stderr)
    vocab = import_gguf(model).shape.vocab
    ids = np.random.default_rng(0).integers(0, vocab, 4096, dtype=np.int32)
    ids.tofile(folder / "ids.bin")
    data = toynn.prepare_ids(folder / "ids.bin", folder / "data", vocab_size=vocab)
    write_checkpoint(folder / "start", import_gguf(model))
    row, turns = Row("checkpoint with the moments of AdamW", "plain write"), itertools.count()

    def saved(event: object) -> None:
        # not counted: the checkpoint of step 0, which has no moments, and the next checkpoint, a warm-up
        if isinstance(event, Saved) and next(turns) > 1 and len(row.toynn) < rounds:
            row.nbytes = event.bytes
            row.toynn.append(event.seconds)
            row.other.append(plain_write(folder / "plain", event.bytes))

    settings: dict[str, Any] = {
        "train": {"steps": rounds + 1, "t_seq": 16, "batch": 1},
        "checkpoint": {"every": 1, "keep_last": 1},
        "evaluation": {"windows": 1},
    }
    toynn.train(
        data.path, folder / "run", init=folder / "start", progress=False, callbacks=[saved], **settings
    )  # fmt: skip
    return row


def markdown(rows: list[Row], load: float) -> str:
    day = datetime.now(timezone.utc).date().isoformat()
    head = [f"Measured on {day}: {machine.description()}.", f"Load average at the start: {load:.2f}."]
    lines = [
        "| task | toynn, s | quartiles | CPU, s | MB written | MB/s | reference | s | ratio |",
        "| :-- | --: | --: | --: | --: | --: | :-- | --: | --: |",
    ]
    for row in rows:
        low, median, high = quartiles(row.toynn)
        rate = [f"{row.nbytes / 1e6:.0f}", f"{row.nbytes / 1e6 / median:.0f}"] if row.nbytes else ["", ""]
        ratio = quartiles([mine / its for mine, its in zip(row.toynn, row.other, strict=True)])
        shown = "{1:.2f} ({0:.2f} - {2:.2f})".format(*ratio) if row.nbytes else ""
        cpu = f"{quartiles(row.cpu)[1]:.2f}" if row.cpu else ""
        lines.append(
            f"| {row.task} | {median:.3f} | {low:.3f} - {high:.3f} | {cpu} | {rate[0]} | {rate[1]} | {row.reference} "
            f"| {quartiles(row.other)[1]:.3f} | {shown} |"
        )
    return "\n\n".join(["  \n".join(head), "\n".join(lines)])


def main() -> int:
    flags = arguments()
    load = machine.load()
    rounds = 2 if flags.quick else flags.rounds
    try:
        with tempfile.TemporaryDirectory(dir=flags.folder) as scratch:
            folder, model = Path(scratch), flags.model
            if model is None:
                model = folder / "model.gguf"
                write_model(model, flags.quick)
            rows = [*commands(model, folder, rounds), checkpoints(model, folder, rounds)]
    except ProgramError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    text = markdown(rows, load)
    print(text)
    if flags.out is not None or not flags.quick:
        docs, results = flags.out or ROOT / "docs", flags.out or ROOT / "benchmarks" / "results"
        for one in (docs, results):
            one.mkdir(parents=True, exist_ok=True)
        found = {"machine": machine.description(), "load": load, "rows": [vars(row) for row in rows]}
        (results / "around_the_step.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        write_markdown(text, docs / "performance.md", COMMAND)
    return 0


if __name__ == "__main__":
    sys.exit(main())
