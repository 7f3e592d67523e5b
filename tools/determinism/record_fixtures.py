"""Records the golden curves of this build's instruction-set profile: `make fixtures`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import toynn
from paths import FIXTURES

CURVES = Path(__file__).parent / "curves.py"


def fixture_path() -> Path:
    """Where the curves of this build's profile are kept."""
    return FIXTURES / f"curves.{toynn.build_info()['profile']}.json"


def compute(
    n_threads: int,
    *words: str,
    python: str | Path = sys.executable,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The curves, computed in a process of its own with so many threads (more than cores if need be).

    words: for curves.py. prefix: a command that runs the command behind it. env: on top of this process's.
    """
    environment = {**os.environ, "TOYNN_N_THREADS": str(n_threads), "TOYNN_OVERSUBSCRIBE": "1", **(env or {})}
    command = [*prefix, str(python), str(CURVES), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{CURVES.name} with {n_threads} threads failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """One thread; that two and three give the same bytes is the test's to prove."""
    info = toynn.build_info()
    fixture = {
        "made_by": "make fixtures",
        "profile": info["profile"],
        "ggml_version": info["ggml_version"],
        "curves": compute(1),
    }
    fixture_path().write_text(json.dumps(fixture, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {len(fixture['curves'])} curves in {fixture_path().relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
