"""The fuzz target over the C shim: it has every call, its seeds succeed, changed ones hold, and a lie is found out.

Built from the objects of this very build: under the sanitizers where the extension is.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import write_calls
import write_seeds
from fuzz_programs import build
from paths import ROOT
from toynn import _tinynn
from toynn import tinynn as nn

HEADER = write_calls.HEADER.read_text(encoding="utf-8")
FUZZ = ROOT / "tools" / "fuzz"
BY_HAND = "".join((FUZZ / name).read_text(encoding="utf-8") for name in ("array_calls.c", "journeys.c"))


@pytest.fixture(scope="module")
def programs() -> list[Path]:
    """fuzz_replay and fuzz_sabotaged, in the folder of this build, whichever door made it."""
    options = nn.tnn_build_options()
    door = "sanitize" if "-fsanitize=" in options else "coverage" if "--coverage" in options else "editable"
    folder = ROOT / "build" / door
    assert (folder / "CMakeCache.txt").exists(), f"{folder} is gone: `make dev` makes it"
    names = ["fuzz_replay", "fuzz_sabotaged"] if sys.platform == "linux" else ["fuzz_replay"]
    return build(folder, names)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("seeds")
    write_seeds.main(folder)
    return [str(path) for path in sorted(folder.iterdir())]


def play(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words], check=False, capture_output=True, text=True, errors="backslashreplace", timeout=600
    )


# ---- what is generated ----


def test_every_call_of_the_header_can_be_called_by_an_input() -> None:
    names = {name for name in dir(_tinynn.lib) if callable(getattr(_tinynn.lib, name))}
    assert names > {"tnn_session_new", "tnn_add", "tnn_train_step"}
    assert {call.name for call in write_calls.calls_of(HEADER)} == names
    assert set(write_calls.table(HEADER)) == names | set(write_calls.JOURNEYS)
    by_hand = {call.name for call in write_calls.calls_of(HEADER) if not call.generated} | set(write_calls.JOURNEYS)
    assert set(re.findall(r"^void call_(\w+)\(", BY_HAND, flags=re.MULTILINE)) == by_hand


def test_a_call_that_is_added_to_the_header_is_called_too(tmp_path: Path) -> None:
    more = "TNN_API int tnn_of_numbers(tnn_session * s, tnn_tensor t, int64_t n, float x);\n"
    write_calls.write(HEADER.replace(write_calls_end(), more + write_calls_end()), tmp_path)
    calls = (tmp_path / "calls.c").read_text(encoding="utf-8")
    assert "end_status(d, tnn_of_numbers(d->here->s, a0, a1, a2));" in calls
    assert '{ "tnn_of_numbers", call_tnn_of_numbers },' in calls


def test_a_call_that_takes_memory_must_be_written_or_the_target_does_not_link(tmp_path: Path) -> None:
    more = "TNN_API int tnn_of_memory(tnn_session * s, const float * data, int64_t n);\n"
    write_calls.write(HEADER.replace(write_calls_end(), more + write_calls_end()), tmp_path)
    calls = (tmp_path / "calls.c").read_text(encoding="utf-8")
    assert '{ "tnn_of_memory", call_tnn_of_memory },' in calls
    assert "void call_tnn_of_memory(struct decoder * d) {" not in calls


def write_calls_end() -> str:
    """The mark behind the header's last declaration."""
    return "/* cffi: end */"


# ---- what it does ----


def test_the_calls_of_the_seeds_succeed(programs: list[Path], seeds: list[str]) -> None:
    """All but the downloads of what is no output, which the journeys try on purpose."""
    assert len(seeds) == len(write_seeds.SEEDS) > 10
    for seed in seeds:
        played = play(programs[0], "--say", seed)
        assert played.returncode == 0, played.stderr
        refused = re.findall(r"session \d: (\w+: .*)", played.stderr)
        unexpected = [one for one in refused if not re.match(r"tnn_download: .* is no output", one)]
        assert unexpected == [], Path(seed).name


def test_the_seeds_make_every_call(programs: list[Path], seeds: list[str]) -> None:
    """Or a journey does; what is counted are the names that --say tells, which calls without a session lack."""
    told = set(re.findall(r"session \d: (\w+)$", play(programs[0], "--say", *seeds).stderr, flags=re.MULTILINE))
    of_session = {call.name for call in write_calls.calls_of(HEADER) if call.of_session}
    silent = {"tnn_session_free", "tnn_last_error", "tnn_last_error_code"}
    assert of_session - silent - told == set()


def test_some_hundred_changed_seeds_break_no_promise_of_the_header(programs: list[Path], seeds: list[str]) -> None:
    played = play(programs[0], "--inputs", "400", "--seed", "7", *seeds)
    assert played.returncode == 0, played.stderr
    found = re.search(r"^400 inputs of seed 7: (\d+) calls, (\d+) refused$", played.stdout, flags=re.MULTILINE)
    assert found is not None
    calls, refused = map(int, found.groups())
    assert calls > 10_000
    assert calls / 10 < refused < calls / 10 * 9


@pytest.mark.skipif(sys.platform != "linux", reason="the shim is sabotaged by GNU ld's --wrap")
def test_a_refusal_without_a_message_is_noticed_and_the_input_can_be_played_again(
    programs: list[Path], seeds: list[str]
) -> None:
    played = play(programs[1], "--inputs", "50", "--seed", "7", *seeds)
    assert played.returncode == -6
    assert "this does not hold: failed == (text[0] != '\\0')" in played.stderr
    again = re.search(r"to play it again: \S+ (.*)", played.stderr)
    assert again is not None
    words = again[1].replace("FILE... (the same files)", " ".join(seeds)).split()
    repeated = play(programs[1], *words)
    assert repeated.returncode == -6
    assert repeated.stderr == played.stderr


def test_a_clang_that_was_named_and_has_no_libfuzzer_is_refused_and_not_done_without(tmp_path: Path) -> None:
    script, nothing = ROOT / "tools" / "fuzz" / "run.py", str(tmp_path / "clang")
    done = subprocess.run(
        [sys.executable, script, "--clang", nothing, "--seconds", "1"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"fuzz: {nothing} is no clang that links libFuzzer with AddressSanitizer\n"


@pytest.mark.parametrize("end", [signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT])
def test_whatever_ends_the_process_the_input_can_be_played_again(
    programs: list[Path], seeds: list[str], end: signal.Signals
) -> None:
    """A bad address ends it as often as an assertion does; a sanitizer makes an abort of it."""
    # A sanitizer tells of it where this test looks, and not among the errors that `make sanitize` collects.
    env = {**os.environ, "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:log_path=stderr"}
    with subprocess.Popen(
        [programs[0], "--say", "--seconds", "600", *seeds],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
    ) as playing:  # fmt: skip
        assert playing.stderr is not None
        playing.stderr.readline()
        playing.send_signal(end)
        said = playing.stderr.read()
    assert playing.returncode in (-end, -signal.SIGABRT)
    assert "fuzz: to play it again: " in said


def test_a_file_that_is_not_there_is_told(programs: list[Path], tmp_path: Path) -> None:
    played = play(programs[0], str(tmp_path / "nothing"))
    assert played.returncode == 2
    assert "nothing cannot be read" in played.stderr


@pytest.mark.slow
def test_libfuzzer_runs_the_target_where_there_is_a_clang() -> None:
    """Its own library is linked with the shim's malloc, new and delete, which must not end it."""
    words = [sys.executable, str(ROOT / "tools" / "fuzz" / "run.py"), "--seconds", "20"]
    ran = subprocess.run(words, check=False, capture_output=True, text=True, errors="backslashreplace", timeout=1200)
    if "no clang with libFuzzer" in ran.stderr:
        pytest.skip("no clang with libFuzzer")
    assert ran.returncode == 0, ran.stderr[-4000:]
    done = re.search(r"^Done (\d+) runs", ran.stderr, flags=re.MULTILINE)
    assert done is not None
    assert int(done[1]) > 1000
