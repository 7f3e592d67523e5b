"""Fuzz the C shim with sequences of calls that are decoded from bytes.

    python tools/fuzz/run.py [--seconds 60] [--seed S]

With clang, the fuzzer is libFuzzer. It keeps inputs that reached new code in build/fuzz-corpus, and starts from these
inputs the next time. Without clang, the fuzzer is toynn's program fuzz_replay, which changes the seeds at random. Both
fuzzers run under AddressSanitizer and UndefinedBehaviorSanitizer. After a failure, the script prints the command that
repeats the input, and ends with exit status 1. `make fuzz` runs this script; see docs/fuzzing.md.
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
SEEDS_OF_LIBFUZZER = 2**32 - 1  # seeds start at 1, because with seed 0 libFuzzer chooses a random seed
NO_CLANG = (
    "fuzz: no clang with libFuzzer was found, so the inputs are changed without coverage feedback. To install it on "
    "Debian or Ubuntu: apt install clang libclang-rt-dev (or clang-19 libclang-rt-19-dev). To use another clang: make "
    "fuzz CLANG=PATH"
)


def clang(named: str | None) -> str | None:
    """Return a clang that can link libFuzzer, the named one or the first on PATH. Return None if there is none."""
    names = [named] if named else ["clang", *(f"clang-{version}" for version in range(25, 13, -1))]
    for path in filter(None, map(shutil.which, names)):
        probe = "int LLVMFuzzerTestOneInput(const unsigned char * d, unsigned long n) { return d == 0 && n == 1; }"
        command = [path, "-x", "c", "-", "-fsanitize=fuzzer,address,undefined", "-o", "/dev/null"]
        if subprocess.run(command, check=False, input=probe, text=True, capture_output=True).returncode == 0:
            return path
    return None


def libfuzzer(compiler: str, seconds: int, seed: int) -> int:
    """Run libFuzzer and return its exit status."""
    plus = re.sub(r"clang(?=[-0-9.]*$)", "clang++", compiler)
    compilers = [f"-DCMAKE_C_COMPILER={compiler}", f"-DCMAKE_CXX_COMPILER={plus}"]
    (program,) = build(ROOT / "build" / "fuzz", ["fuzz_session"], [*SANITIZED, *compilers])
    CORPUS.mkdir(parents=True, exist_ok=True)
    FAILURES.mkdir(parents=True, exist_ok=True)
    command = [
        str(program), f"-max_total_time={seconds}", f"-seed={1 + seed % SEEDS_OF_LIBFUZZER}", "-max_len=2048",
        "-timeout=60", "-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={FAILURES}/",
        str(CORPUS), str(SEEDS),
    ]  # fmt: skip
    before = set(FAILURES.iterdir())
    status = subprocess.run(command, check=False).returncode
    for failure in sorted(set(FAILURES.iterdir()) - before):
        print(f"fuzz: to repeat the failure: {program} {failure}")
    return status


def replay(seconds: int, seed: int) -> int:
    """Run fuzz_replay, which prints how to repeat a failure, and return its exit status."""
    sanitize = ROOT / "build" / "sanitize"  # if `make sanitize` ran before, ggml is already compiled there
    folder = sanitize if (sanitize / "CMakeCache.txt").exists() else ROOT / "build" / "fuzz-replay"
    (program,) = build(folder, ["fuzz_replay"], SANITIZED)
    command = [str(program), "--seconds", str(seconds), "--seed", str(seed), *map(str, sorted(SEEDS.iterdir()))]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="Stop after this time (default: %(default)s s).")
    parser.add_argument("--seed", type=int, default=1, help="Random seed of the inputs (default: %(default)s).")
    parser.add_argument("--clang", metavar="PATH", help="Path of a clang with libFuzzer (default: the newest on PATH).")
    options = parser.parse_args()
    if options.seed < 0:
        parser.error(f"--seed must be at least 0, got {options.seed}")
    shutil.rmtree(SEEDS, ignore_errors=True)
    write_seeds.main(SEEDS)
    compiler = clang(options.clang)
    if options.clang and compiler is None:
        print(
            f"fuzz: {options.clang} cannot link a program with libFuzzer and AddressSanitizer; name another clang",
            file=sys.stderr,
        )
        return 1
    try:
        if compiler is not None:
            return 1 if libfuzzer(compiler, options.seconds, options.seed) else 0
        print(NO_CLANG, file=sys.stderr)
        return 1 if replay(options.seconds, options.seed) else 0
    except BuildError as error:
        print(f"fuzz: cannot build the fuzz target: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
