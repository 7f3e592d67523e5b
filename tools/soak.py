"""Ten thousand steps of the tiny model in either layout, a session for every hundred: memory and losses stay the same.

    python tools/soak.py [--steps 10000]

Prints the resident memory after each session is closed - least, most, and its slope - and ends with exit status 1 where
it is not flat, or where any repetition of the hundred steps gave other bytes.
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

STEPS_OF_A_SESSION = 100
WARM_UP = 10  # sessions: allocators keep what they had once
MOST_SPREAD = 1 << 20  # bytes between the least and the most that was resident after the warm-up
MOST_SLOPE = 40.0  # bytes a step: less than a page of 4 KiB a session


@dataclass(frozen=True)
class Soak:
    """What one layout came to. resident: bytes after each session; losses: the digests of their hundred losses."""

    layout: str
    resident: list[int]
    losses: set[str]

    @property
    def settled(self) -> list[int]:
        return self.resident[WARM_UP:]

    @property
    def slope(self) -> float:
        """Bytes a step, by least squares."""
        steps = np.arange(len(self.settled)) * float(STEPS_OF_A_SESSION)
        return float(np.polyfit(steps, np.array(self.settled, float), 1)[0])

    @property
    def well(self) -> bool:
        flat = max(self.settled) - min(self.settled) <= MOST_SPREAD and abs(self.slope) <= MOST_SLOPE
        return flat and len(self.losses) == 1

    def line(self) -> str:
        least, most = min(self.settled) / 2**20, max(self.settled) / 2**20
        return (
            f"{self.layout}: {len(self.resident) * STEPS_OF_A_SESSION} steps in {len(self.resident)} sessions; "
            f"resident {least:.2f} to {most:.2f} MiB, slope {self.slope:+.2f} bytes a step; "
            f"{len(self.losses)} digest(s) of losses"
        )


def resident() -> int:
    """Bytes of this process in memory now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def digest_of_a_session(layout: str) -> str:
    """sha256 of the hundred losses of a recipe that is realized, stepped and closed."""
    cfg, ids = SmolLM2Config.tiny(), list(range(32))
    batch = TrainingBatch(vocab=cfg.vocab, context=32)
    batch.fill(ids)
    wanted = labels.targets(ids, cfg.vocab, 32, 1) if layout == "fused" else batch.m_labels
    adamw = AdamW(lr=3e-3)
    digest = hashlib.sha256()
    with FromScratch() as recipe:
        recipe.realize(cfg, RecipeOptions(t_seq=32, layout=layout))
        for step in range(1, STEPS_OF_A_SESSION + 1):
            loss = recipe.step(batch.seq_ids, batch.positions, wanted, adamw.hp(step), step == 1)
            digest.update(struct.pack("<d", loss))
    return digest.hexdigest()


def soak(layout: str, steps: int) -> Soak:
    memory: list[int] = []
    losses: set[str] = set()
    for _ in range(steps // STEPS_OF_A_SESSION):
        losses.add(digest_of_a_session(layout))
        memory.append(resident())
    return Soak(layout, memory, losses)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000, help="of each layout, at least 2000 (%(default)s)")
    steps = parser.parse_args().steps
    if steps < 2 * WARM_UP * STEPS_OF_A_SESSION:
        parser.error(f"--steps must be at least {2 * WARM_UP * STEPS_OF_A_SESSION}")
    well = True
    for layout in ("per_head", "fused"):
        done = soak(layout, steps)
        print(done.line(), flush=True)
        if not done.well:
            print(f"soak: {layout} is not the same all along: {done.resident}", file=sys.stderr)
            well = False
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
