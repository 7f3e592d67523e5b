"""Record runs with 24 windows per step. The runs have the same bytes with any number of processes.

`make fixtures` runs this script, which trains in one process. Tests compare the fixture with runs of 1, 2, 3, 4, 6
and 8 processes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paths import FIXTURES
from toynn.arguments import FloatArray
from toynn.storage.checkpoint import load_checkpoint

FIXTURE = FIXTURES / "step_of_24_windows.json"
DATA = FIXTURES / "runs" / "format-1" / "data"

COMMON = [
    "model.d_model=24",
    "model.d_ff=40",
    "model.ctx=16",
    "model.n_heads=3",
    "model.n_kv=1",
    "model.n_layers=3",
    "model.init_scale=1.0",
    "optimizer.lr=0.003",
    "train.batch=8",
    "train.accumulate=3",
    "train.steps=4",
    "schedule.warmup=1",
    "optimizer.clip=0.5",
    "evaluation.every=2",
    "evaluation.windows=7",
    "checkpoint.every=0",
]
RUNS = {
    "adamw": ["optimizer.kind=adamw"],  # the embedding is also the output matrix, so its gradient has two parts
    "muon": ["optimizer.kind=muon", "model.untied=true", "model.qkv_bias=true"],
}


def arguments(name: str, run: Path) -> list[str]:
    """Return the arguments of `toynn` that train a run of the fixture."""
    settings = [word for setting in [*COMMON, *RUNS[name]] for word in ("--set", setting)]
    return ["train", str(DATA), "--out", str(run), "--threads", "1", "--quiet", *settings]


def result_of(run: Path) -> dict[str, Any]:
    """Return the losses of a completed run in hexadecimal, and the sha256 of its last weights and moments."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    checkpoint = load_checkpoint(run)
    moments = {} if checkpoint.training is None else checkpoint.training.moments
    return {
        "losses": [float(event["loss"]).hex() for event in events if event["event"] == "stepped"],
        "validation": [float(event["loss"]).hex() for event in events if event["event"] == "evaluated"],
        "norms": [float(event["gradient_norm"]).hex() for event in events if event["event"] == "stepped"],
        "weights_sha256": _sha256(checkpoint.model.weights),
        "moments_sha256": _sha256(moments),
    }


def _sha256(tensors: Mapping[str, FloatArray]) -> str:
    digest = hashlib.sha256()
    for name, values in tensors.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()


def main() -> None:
    recorded = {}
    program = [sys.executable, "-c", "from toynn.cli.start import main; main()"]
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            subprocess.run([*program, *arguments(name, run)], check=True, stdout=subprocess.DEVNULL)
            recorded[name] = result_of(run)
    fixture = {"made_by": "make fixtures", "runs": recorded}
    FIXTURE.write_text(json.dumps(fixture, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {len(recorded)} runs in {FIXTURE.name}")


if __name__ == "__main__":
    main()
