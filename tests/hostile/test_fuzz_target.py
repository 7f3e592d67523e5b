"""The fuzz target covers every call of the C shim, finds no failure, and detects a shim that breaks its contract.

The target is built from the objects of the installed build. If the extension is built with sanitizers, so is the
target.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import read_header
import write_calls
import write_seeds
from fuzz_programs import build
from paths import ROOT
from toynn import _tinynn
from toynn import tinynn as nn

HEADER = read_header.HEADER.read_text(encoding="utf-8")
FUZZ = ROOT / "tools" / "fuzz"
BY_HAND = "".join((FUZZ / name).read_text(encoding="utf-8") for name in ("array_calls.c", "call_sequences.c"))


@pytest.fixture(scope="module")
def programs() -> list[Path]:
    """Build fuzz_replay and fuzz_sabotaged in the build folder of the installed extension."""
    options = nn.tnn_build_options()
    kind = "sanitize" if "-fsanitize=" in options else "coverage" if "--coverage" in options else "editable"
    folder = ROOT / "build" / kind
    assert (folder / "CMakeCache.txt").exists(), f"{folder} does not exist; `make dev` creates it"
    names = ["fuzz_replay", "fuzz_sabotaged"] if sys.platform == "linux" else ["fuzz_replay"]
    return build(folder, names)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("seeds")
    write_seeds.main(folder)
    return [str(path) for path in sorted(folder.iterdir())]


def play(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], check=False, capture_output=True, text=True, errors="backslashreplace", timeout=600
    )


# ---- the generated calls ----


def test_an_input_can_make_every_call_of_the_header() -> None:
    names = {name for name in dir(_tinynn.lib) if callable(getattr(_tinynn.lib, name))}
    assert names > {"tnn_session_new", "tnn_add", "tnn_train_step"}
    assert {call.name for call in write_calls.calls_of(HEADER)} == names
    assert set(write_calls.table(HEADER)) == names | set(write_calls.CALL_SEQUENCES)
    by_hand = {call.name for call in write_calls.calls_of(HEADER) if not write_calls.is_generated(call)} | set(
        write_calls.CALL_SEQUENCES
    )
    assert set(re.findall(r"^void call_(\w+)\(", BY_HAND, flags=re.MULTILINE)) == by_hand


def test_a_new_call_with_only_numbers_and_handles_is_generated(tmp_path: Path) -> None:
    more = "TNN_API int tnn_of_numbers(tnn_session * s, tnn_tensor t, int64_t n, float x); /* Take numbers. */\n"
    write_calls.write(HEADER.replace(write_calls_end(), more + write_calls_end()), tmp_path)
    calls = (tmp_path / "calls.c").read_text(encoding="utf-8")
    assert "end_status(d, tnn_of_numbers(d->here->s, a0, a1, a2));" in calls
    assert '{ "tnn_of_numbers", call_tnn_of_numbers },' in calls


def test_a_new_call_with_a_pointer_is_declared_but_not_generated(tmp_path: Path) -> None:
    """The generated code calls a C function that array_calls.c must define, so the target does not link without it."""
    more = "TNN_API int tnn_of_memory(tnn_session * s, const float * data, int64_t n); /* Take memory. */\n"
    write_calls.write(HEADER.replace(write_calls_end(), more + write_calls_end()), tmp_path)
    calls = (tmp_path / "calls.c").read_text(encoding="utf-8")
    assert '{ "tnn_of_memory", call_tnn_of_memory },' in calls
    assert "void call_tnn_of_memory(struct decoder * d) {" not in calls


def write_calls_end() -> str:
    """Return the text that follows the last declaration of the header."""
    return "/* cffi: end */"


# ---- running the target ----


def test_the_calls_of_the_seeds_succeed(programs: list[Path], seeds: list[str]) -> None:
    """Only downloads of tensors that are not outputs are refused.

    tools/fuzz/call_sequences.c tries such downloads on purpose.
    """
    assert len(seeds) == len(write_seeds.SEEDS) > 10
    for seed in seeds:
        played = play(programs[0], "--say", seed)
        assert played.returncode == 0, played.stderr
        refused = re.findall(r"session \d: (\w+: .*)", played.stderr)
        unexpected = [one for one in refused if not re.match(r"tnn_download: .* is not an output", one)]
        assert unexpected == [], Path(seed).name


def test_the_seeds_make_every_call(programs: list[Path], seeds: list[str]) -> None:
    """Only calls with a session are checked, because --say does not print other calls."""
    made = set(re.findall(r"session \d: (\w+)$", play(programs[0], "--say", *seeds).stderr, flags=re.MULTILINE))
    of_session = {call.name for call in write_calls.calls_of(HEADER) if call.of_session}
    silent = {"tnn_session_free", "tnn_last_error", "tnn_last_error_code"}
    assert of_session - silent - made == set()


def test_hundreds_of_changed_seeds_find_no_failure(programs: list[Path], seeds: list[str]) -> None:
    played = play(programs[0], "--inputs", "400", "--seed", "7", *seeds)
    assert played.returncode == 0, played.stderr
    found = re.search(r"^400 inputs of seed 7: (\d+) calls, (\d+) refused$", played.stdout, flags=re.MULTILINE)
    assert found is not None
    calls, refused = map(int, found.groups())
    assert calls > 10_000
    assert calls / 10 < refused < calls / 10 * 9


@pytest.mark.skipif(sys.platform != "linux", reason="the test changes the shim with --wrap of GNU ld")
def test_a_refusal_without_a_message_is_noticed_and_can_be_repeated(programs: list[Path], seeds: list[str]) -> None:
    played = play(programs[1], "--inputs", "50", "--seed", "7", *seeds)
    assert played.returncode == -6
    assert "this does not hold: failed == (text[0] != '\\0')" in played.stderr
    again = re.search(r"to play it again: \S+ (.*)", played.stderr)
    assert again is not None
    arguments = again[1].replace("FILE... (the same files)", " ".join(seeds)).split()
    repeated = play(programs[1], *arguments)
    assert repeated.returncode == -6
    assert repeated.stderr == played.stderr


def test_a_named_clang_without_libfuzzer_is_an_error(tmp_path: Path) -> None:
    script, nothing = ROOT / "tools" / "fuzz" / "run.py", str(tmp_path / "clang")
    done = subprocess.run(
        [sys.executable, script, "--clang", nothing, "--seconds", "1"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"fuzz: {nothing} cannot link a program with libFuzzer and AddressSanitizer; name another clang\n"
    )


@pytest.mark.parametrize("end", [signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT])
def test_a_signal_prints_the_command_that_repeats_the_input(
    programs: list[Path], seeds: list[str], end: signal.Signals
) -> None:
    """The program prints the command before it ends, even if a sanitizer handles the signal and then aborts."""
    # The report of the sanitizer must go to stderr, because `make sanitize` counts reports in its folder as failures.
    env = {**os.environ, "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:log_path=stderr"}
    with subprocess.Popen(
        [programs[0], "--say", "--seconds", "600", *seeds],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
    ) as playing:  # fmt: skip
        assert playing.stderr is not None
        playing.stderr.readline()
        playing.send_signal(end)
        output = playing.stderr.read()
    assert playing.returncode in (-end, -signal.SIGABRT)
    assert "fuzz: to play it again: " in output


def test_a_missing_input_file_is_an_error(programs: list[Path], tmp_path: Path) -> None:
    played = play(programs[0], str(tmp_path / "nothing"))
    assert played.returncode == 2
    assert "nothing cannot be read" in played.stderr


@pytest.mark.slow
def test_libfuzzer_runs_the_target() -> None:
    """libFuzzer is linked with the shim's malloc, new and delete, which must not stop libFuzzer."""
    command = [sys.executable, str(ROOT / "tools" / "fuzz" / "run.py"), "--seconds", "20"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, errors="backslashreplace", timeout=1200)
    if "no clang with libFuzzer" in ran.stderr:
        pytest.skip("there is no clang with libFuzzer")
    assert ran.returncode == 0, ran.stderr[-4000:]
    done = re.search(r"^Done (\d+) runs", ran.stderr, flags=re.MULTILINE)
    assert done is not None
    assert int(done[1]) > 1000
