"""Feeds the C shim with call sequences made from bytes: python tools/fuzz/run.py [--seconds 60] [--seed S].

With clang it is libFuzzer, which keeps in build/fuzz-corpus what reached something new and goes on from there the next
time; without, a seeded stream of changes to the seeds. Both run under AddressSanitizer and UndefinedBehaviorSanitizer.
A failure ends it with exit status 1 and says how to play the input again. `make fuzz` runs it; see docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import write_seeds
from fuzz_programs import BuildError, build
from paths import ROOT

SANITIZED = ["-DTOYNN_SANITIZE=address,undefined", "-DCMAKE_BUILD_TYPE=None"]
SEEDS, CORPUS, FAILURES = (ROOT / "build" / name for name in ("fuzz-seeds", "fuzz-corpus", "fuzz-failures"))
SEEDS_OF_LIBFUZZER = 2**32 - 1  # 1 and up: 0 would be one of its own choice
NO_CLANG = (
    "fuzz: no clang with libFuzzer: the inputs are changed blindly. Debian, Ubuntu: apt install clang libclang-rt-dev "
    "(clang-19 libclang-rt-19-dev); or name one: make fuzz CLANG=PATH"
)


def clang(named: str | None) -> str | None:
    """A clang that links libFuzzer: the one that is named, else the newest on the path; None where there is none."""
    names = [named] if named else ["clang", *(f"clang-{version}" for version in range(25, 13, -1))]
    for path in filter(None, map(shutil.which, names)):
        probe = "int LLVMFuzzerTestOneInput(const unsigned char * d, unsigned long n) { return d == 0 && n == 1; }"
        words = [path, "-x", "c", "-", "-fsanitize=fuzzer,address,undefined", "-o", "/dev/null"]
        if subprocess.run(words, check=False, input=probe, text=True, capture_output=True).returncode == 0:
            return path
    return None


def libfuzzer(compiler: str, seconds: int, seed: int) -> int:
    """Runs libFuzzer; its exit status."""
    plus = re.sub(r"clang(?=[-0-9.]*$)", "clang++", compiler)
    compilers = [f"-DCMAKE_C_COMPILER={compiler}", f"-DCMAKE_CXX_COMPILER={plus}"]
    (program,) = build(ROOT / "build" / "fuzz", ["fuzz_session"], [*SANITIZED, *compilers])
    CORPUS.mkdir(parents=True, exist_ok=True)
    FAILURES.mkdir(parents=True, exist_ok=True)
    words = [
        str(program), f"-max_total_time={seconds}", f"-seed={1 + seed % SEEDS_OF_LIBFUZZER}", "-max_len=2048",
        "-timeout=60", "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={FAILURES}/",
        str(CORPUS), str(SEEDS),
    ]  # fmt: skip
    before = set(FAILURES.iterdir())
    status = subprocess.run(words, check=False).returncode
    for failure in sorted(set(FAILURES.iterdir()) - before):
        print(f"fuzz: to play it again: {program} {failure}")
    return status


def replay(seconds: int, seed: int) -> int:
    """Runs our own main, which says itself how to play a failure again; its exit status."""
    sanitize = ROOT / "build" / "sanitize"  # `make sanitize` has ggml there already
    folder = sanitize if (sanitize / "CMakeCache.txt").exists() else ROOT / "build" / "fuzz-replay"
    (program,) = build(folder, ["fuzz_replay"], SANITIZED)
    words = [str(program), "--seconds", str(seconds), "--seed", str(seed), *map(str, sorted(SEEDS.iterdir()))]
    return subprocess.run(words, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="stop after so long (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the changes; another one, other inputs (%(default)s)")
    parser.add_argument("--clang", help="the compiler that has libFuzzer, else the newest clang on the path")
    words = parser.parse_args()
    if words.seed < 0:
        parser.error(f"--seed must be at least 0, got {words.seed}")
    shutil.rmtree(SEEDS, ignore_errors=True)
    write_seeds.main(SEEDS)
    compiler = clang(words.clang)
    if words.clang and compiler is None:
        print(f"fuzz: {words.clang} is no clang that links libFuzzer with AddressSanitizer", file=sys.stderr)
        return 1
    try:
        if compiler is not None:
            return 1 if libfuzzer(compiler, words.seconds, words.seed) else 0
        print(NO_CLANG, file=sys.stderr)
        return 1 if replay(words.seconds, words.seed) else 0
    except BuildError as error:
        print(f"fuzz: the target cannot be built: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
