"""Memory and losses stay the same over thousands of steps, and tools/soak.py detects a change of either."""

from __future__ import annotations

import subprocess
import sys

import pytest

import soak
from soak import MOST_SLOPE, STEPS_PER_SESSION, WARM_UP, Soak, digest_of_a_session

MIB = 1 << 20


def test_a_leak_and_a_changed_loss_are_noticed() -> None:
    start = [80 * MIB] * WARM_UP
    lost = int(MOST_SLOPE * STEPS_PER_SESSION) + 4096  # growth per session: one page more than the limit
    steady, leaking = [50 * MIB] * 90, [50 * MIB + i * lost for i in range(90)]
    wavering = [50 * MIB + (i % 2) * 2 * MIB for i in range(90)]
    assert Soak("fused", start + steady, {"a"}).passed
    assert Soak("fused", start + steady, {"a"}).slope == pytest.approx(0, abs=1e-6)
    assert Soak("fused", start + leaking, {"a"}).slope == pytest.approx(lost / STEPS_PER_SESSION)
    assert not Soak("fused", start + leaking, {"a"}).passed
    assert not Soak("fused", start + wavering, {"a"}).passed
    assert not Soak("fused", start + steady, {"a", "b"}).passed


@pytest.mark.parametrize("layout", ["per_head", "fused"])
def test_two_sessions_give_the_same_hundred_losses(layout: str) -> None:
    assert digest_of_a_session(layout) == digest_of_a_session(layout)


@pytest.mark.slow
def test_memory_and_losses_stay_the_same_over_ten_thousand_steps() -> None:
    script = soak.__file__
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("10000 steps in 100 sessions") == 2
