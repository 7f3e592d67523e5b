"""Train the tiny model for thousands of steps in each layout and check that memory and losses stay the same.

    python tools/soak.py [--steps 10000]

A new session is used for every hundred steps, and the resident memory is measured after each session is closed. The
script prints the minimum, the maximum and the slope of these values. The exit status is 1 if memory grows, or if the
losses of two sessions differ in any byte.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import resource
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toynn import AdamW, FromScratch, RecipeOptions, SmolLM2Config, TrainingBatch, labels

STEPS_PER_SESSION = 100
WARM_UP = 10  # number of sessions before the measurement; they fill the caches of the allocators
MOST_SPREAD = 1 << 20  # largest allowed difference between two counts of resident bytes after the warm-up
MOST_SLOPE = 40.0  # largest allowed growth in bytes per step; it is less than one page of 4 KiB per session


@dataclass(frozen=True)
class Soak:
    """The result of one layout.

    Attributes:
        resident: resident bytes after each session.
        losses: the distinct digests of the losses of the sessions.
    """

    layout: str
    resident: list[int]
    losses: set[str]

    @property
    def settled(self) -> list[int]:
        """Return the resident bytes after each session that follows the warm-up."""
        return self.resident[WARM_UP:]

    @property
    def slope(self) -> float:
        """Return the growth of the resident memory in bytes per step, by least squares."""
        steps = np.arange(len(self.settled)) * float(STEPS_PER_SESSION)
        return float(np.polyfit(steps, np.array(self.settled, float), 1)[0])

    @property
    def passed(self) -> bool:
        flat = max(self.settled) - min(self.settled) <= MOST_SPREAD and abs(self.slope) <= MOST_SLOPE
        return flat and len(self.losses) == 1

    def line(self) -> str:
        least, most = min(self.settled) / 2**20, max(self.settled) / 2**20
        return (
            f"{self.layout}: {len(self.resident) * STEPS_PER_SESSION} steps in {len(self.resident)} sessions; "
            f"resident {least:.2f} to {most:.2f} MiB, slope {self.slope:+.2f} bytes per step; "
            f"{len(self.losses)} different sequence(s) of losses"
        )


def resident() -> int:
    """Return the resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def digest_of_a_session(layout: str) -> str:
    """Return the sha256 of the losses of one session: realize a recipe, take a hundred steps, close it."""
    cfg, ids = SmolLM2Config.tiny(), list(range(32))
    batch = TrainingBatch(vocab=cfg.vocab, context=32)
    batch.fill(ids)
    wanted = labels.targets(ids, cfg.vocab, 32, 1) if layout == "fused" else batch.m_labels
    adamw = AdamW(lr=3e-3)
    digest = hashlib.sha256()
    with FromScratch() as recipe:
        recipe.realize(cfg, RecipeOptions(t_seq=32, layout=layout))
        for step in range(1, STEPS_PER_SESSION + 1):
            loss = recipe.step(batch.seq_ids, batch.positions, wanted, adamw.hp(step), step == 1)
            digest.update(struct.pack("<d", loss))
    return digest.hexdigest()


def soak(layout: str, steps: int) -> Soak:
    memory: list[int] = []
    losses: set[str] = set()
    for _ in range(steps // STEPS_PER_SESSION):
        losses.add(digest_of_a_session(layout))
        memory.append(resident())
    return Soak(layout, memory, losses)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    least = 2 * WARM_UP * STEPS_PER_SESSION
    parser.add_argument(
        "--steps", type=int, default=10_000, help=f"Number of steps in each layout, at least {least} (default: 10000)."
    )
    steps = parser.parse_args().steps
    if steps < least:
        parser.error(f"--steps must be at least {least}, got {steps}")
    passed = True
    for layout in ("per_head", "fused"):
        done = soak(layout, steps)
        print(done.line(), flush=True)
        if not done.passed:
            print(
                f"soak: memory or losses of {layout} changed; resident bytes after each session: {done.resident}",
                file=sys.stderr,
            )
            passed = False
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
