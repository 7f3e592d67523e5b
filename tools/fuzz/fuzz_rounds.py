"""Fuzzes the session API in a child process: python tools/fuzz/fuzz_rounds.py [--seconds 60] [--rounds N] [--seed S].

A crash, a hang, a wrong number or a foreign exception ends it with exit status 1 and the seed of the round; `--seed S
--rounds 1` repeats that round. See tools/fuzz/fuzz_session.py for what a round is.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

from fuzz_session import functions, run
from fuzz_watch import END, LIMIT, watch

_WARM_UP = 150  # rounds after which memory must not grow: allocators keep what they had once
_GROWTH = 64 << 20  # bytes
_kept: list[bytes] = []  # what --sabotage grow never gives back


def rounds(first: int, most: int, seconds: float, sabotage: str) -> None:
    """The child: rounds one after the other, each announced."""
    sanitized = "ASAN_OPTIONS" in os.environ  # which keeps what was freed for a while, and finds leaks itself
    if not sanitized:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    every, end = functions(), time.monotonic() + seconds
    done = calls = refused = computed = 0
    before = 0
    succeeded: set[str] = set()
    while done < most and (time.monotonic() < end or done == 0):
        seed = first + done
        print("seed", seed, flush=True)
        if sabotage == f"abort:{seed}":
            os.abort()
        if sabotage == f"exit:{seed}":
            os._exit(0)
        if sabotage == f"hang:{seed}":
            time.sleep(3600)
        if sabotage == f"raise:{seed}":
            raise ZeroDivisionError
        if sabotage == f"grow:{seed}":
            _kept.append(b"x" * (_GROWTH + (16 << 20)))
        one = run(seed, every)
        succeeded |= one.succeeded
        done, calls, refused, computed = done + 1, calls + one.calls, refused + one.refused, computed + one.computed
        if done == _WARM_UP:
            before = _resident()
        if done > _WARM_UP and not sanitized and _resident() > before + _GROWTH:
            raise AssertionError(f"memory grew from {before} to {_resident()} bytes since round {_WARM_UP}")
    print(f"{done} rounds from seed {first}: {calls} calls of {len(every)} functions, {refused} of them refused;")
    print(f"{computed} graphs computed, each twice; {_resident() >> 20} MiB resident")
    print("never succeeded:", *sorted({function.__name__ for function in every} - succeeded))
    print(END)


def _resident() -> int:
    """Bytes in memory now; where there is no /proc, the most there ever were."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after so long (%(default)s)")
    parser.add_argument("--rounds", type=int, default=10**9, help="or after so many rounds")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each next one is one more")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds after which a round hangs (%(default)s)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--sabotage", default="", help=argparse.SUPPRESS)  # abort:, exit:, hang:, raise:, grow:SEED
    words = parser.parse_args()
    if words.child:
        rounds(words.seed, words.rounds, words.seconds, words.sabotage)
        return 0
    passed = ["--seed", words.seed, "--rounds", words.rounds, "--seconds", words.seconds, "--sabotage", words.sabotage]
    outcome = watch(__file__, [str(word) for word in passed], words.patience)
    print(outcome.said)
    return 0 if outcome.well else 1


if __name__ == "__main__":
    sys.exit(main())
