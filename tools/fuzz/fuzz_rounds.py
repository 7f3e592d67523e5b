"""Fuzz the session API in a child process.

    python tools/fuzz/fuzz_rounds.py [--seconds 60] [--rounds N] [--seed S]

If a call crashes, hangs, returns a wrong number or raises an exception of another library, the script prints the seed
of the round and ends with exit status 1. `--seed S --rounds 1` repeats the round. tools/fuzz/fuzz_session.py defines a
round.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

from fuzz_session import functions, run
from fuzz_watch import END, LIMIT, add_options, passed_on, watch

_WARM_UP = 150  # after this number of rounds, memory must not grow; before that, the caches of the allocators fill
_GROWTH = 64 << 20  # bytes
_kept: list[bytes] = []  # blocks of memory that `--sabotage grow` allocates and never frees


def rounds(first: int, most: int, seconds: float, sabotage: str) -> None:
    """Run rounds one after the other, in the child. Print the seed before each round."""
    sanitized = "ASAN_OPTIONS" in os.environ  # AddressSanitizer delays freeing memory and finds leaks itself
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
    print(f"{computed} graphs computed, each in two variants; {_resident() >> 20} MiB resident")
    print("never succeeded:", *sorted({function.__name__ for function in every} - succeeded))
    print(END)


def _resident() -> int:
    """Return the resident bytes of this process; on a system without /proc, the maximum so far."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, "round", patience=120)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    # one of abort:SEED, exit:SEED, hang:SEED, raise:SEED and grow:SEED
    parser.add_argument("--sabotage", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        rounds(options.seed, options.most, options.seconds, options.sabotage)
        return 0
    outcome = watch(__file__, [*passed_on(options, "round"), "--sabotage", options.sabotage], options.patience)
    print(outcome.output)
    return 0 if outcome.succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
