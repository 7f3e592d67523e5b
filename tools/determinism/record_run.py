"""Record small training runs, with their checkpoints, as fixtures that later versions must load and resume.

    mkdir tests/fixtures/runs/format-2
    cp tests/fixtures/runs/format-1/stories.txt tests/fixtures/runs/format-2
    python tools/determinism/record_run.py tests/fixtures/runs/format-2 [--toynn PATH]

The script uses only the command line, so it works with any version of toynn. Each run trains one window per step
(`train.batch = 1`), so the order of sums over windows does not matter. The training text is stories.txt in the folder.
The script writes to the folder: the data, each run after its first steps, and expected.json with the results that the
resumed runs must reach.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

STEPS, ALL_STEPS = 6, 12

COMMON = [
    "model.d_model=8",
    "model.d_ff=12",
    "model.ctx=16",
    "model.n_heads=2",
    "model.n_kv=1",
    "model.init_scale=1.0",
    "optimizer.kind=adamw",
    "optimizer.lr=0.003",
    "train.batch=1",
    "evaluation.every=3",
    "evaluation.windows=4",
    "checkpoint.every=3",
    "checkpoint.keep_last=1",
]
RUNS = {
    "tied": ["model.n_layers=2", "model.head_dim=6", "schedule.warmup=2"],
    "lens": [
        "model.n_layers=1",
        "model.donor_d_in=12",
        "model.untied=true",
        "model.qkv_bias=true",
        "model.rope_scaling.kind=llama3_hf",
        "model.rope_scaling.factor=4",
        "model.rope_scaling.orig_max_pos=8",
        "schedule.kind=wsd",
        "schedule.warmup=1",
        "schedule.decay=3",
        "train.seed=7",
    ],
}


def toynn(command: str, *arguments: str) -> None:
    subprocess.run([command, *arguments], check=True, stdout=subprocess.DEVNULL)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outcome(run: Path) -> dict[str, object]:
    """Return the values that are equal in equal runs: the losses, and digests of the latest tensors."""
    latest = run / "checkpoints" / (run / "latest").read_text(encoding="ascii").strip()
    events = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = {event["step"]: event["loss"] for event in events if event["event"] == "stepped"}
    return {
        "losses": [float(losses[step]).hex() for step in sorted(losses)],
        "weights": sha256(latest / "weights.safetensors"),
        "moments": sha256(latest / "moments.safetensors"),
    }


def record(folder: Path, command: str) -> None:
    """Record the runs and their results in `folder`, which must contain stories.txt and nothing else."""
    with tempfile.TemporaryDirectory() as work:
        data = folder / "data"
        toynn(command, "prepare", str(folder / "stories.txt"), "--out", str(data), "--vocab-size", "280")
        expected = {}
        for name, settings in RUNS.items():
            run = folder / name
            sets = [argument for setting in [*COMMON, *settings] for argument in ("--set", setting)]
            toynn(command, "train", str(data), "--out", str(run), "--quiet", *sets, "--set", f"train.steps={STEPS}")
            resumed = Path(work, name)
            shutil.copytree(run, resumed)
            steps = f"train.steps={ALL_STEPS}"
            toynn(command, "train", str(data), "--out", str(resumed), "--quiet", "--resume", "--set", steps)
            expected[name] = outcome(resumed)
            for report in (*run.glob("*.png"), *run.glob("*.html"), run / ".lock"):
                report.unlink(missing_ok=True)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    command = str(Path(sys.executable).with_name("toynn"))
    parser.add_argument("folder", type=Path, help="Folder of the fixture; it must contain stories.txt only.")
    parser.add_argument("--toynn", default=command, metavar="PATH", help="The toynn command (default: %(default)s).")
    options = parser.parse_args()
    record(options.folder, options.toynn)


if __name__ == "__main__":
    main()
