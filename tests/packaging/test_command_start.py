"""The start of the `toynn` command: Ctrl-C while modules load, closed streams, and an unusable build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commands import TOYNN

# A command that sends SIGINT to itself just before it loads the module named by argv[1].
INTERRUPTED = """
import os, signal, sys
name = sys.argv.pop(1)
class Finder:
    def find_spec(self, module, path=None, target=None):
        if module == name:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from toynn.cli.start import main
main()
"""


@pytest.mark.quick
def test_help_and_version_load_neither_numpy_nor_ggml() -> None:
    heavy = "[name for name in ('numpy', '_cffi_backend', 'tokenizers') if name in sys.modules]"
    script = f"import atexit, sys; atexit.register(lambda: print({heavy})); from toynn.cli.start import main; main()"
    for word in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", script, word], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("\n[]\n"), done.stdout
        assert "toynn" in done.stdout


def test_garbage_is_not_collected_while_modules_load_and_is_collected_afterwards() -> None:
    collections = "print(gc.isenabled(), sum(one['collections'] for one in gc.get_stats()) - before)"
    script = "import atexit, gc; before = sum(one['collections'] for one in gc.get_stats()); atexit.register("
    script += f"lambda: {collections}); from toynn.cli.start import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "info", "--help"], capture_output=True, text=True, check=True)
    enabled, count = done.stdout.splitlines()[-1].split()
    assert enabled == "True"
    assert int(count) < 30  # it would be about 100 if garbage was collected while modules load


def in_a_shell(redirected: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a shell with a redirection such as "<&-"."""
    script = f'exec "$@" {redirected}'
    return subprocess.run(
        ["sh", "-c", script, "sh", *TOYNN, *map(str, words)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("toynn.cli.app", ["info"]),
        ("numpy", ["info"]),
        ("toynn._tinynn", ["info"]),
        ("click", ["info"]),
        ("toynn.cli.info_command", ["info"]),
        ("tokenizers", ["generate", "RUN"]),
        ("safetensors", ["generate", "RUN"]),
        ("matplotlib", ["report", "RUN"]),
    ],
)
def test_ctrl_c_while_modules_load_prints_one_line(module: str, words: list[str], trained: Path) -> None:
    words = [str(trained) if word == "RUN" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "toynn: interrupted\n")


def test_sigint_stays_ignored_if_the_parent_process_ignores_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "numpy", "info"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.returncode == 0, done.stderr
    assert "profile" in done.stdout


def test_an_unknown_kernel_gives_one_line_and_exit_status_2() -> None:
    def info(*before: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TOYNN_GEMM_KERNEL": "foo"}
        return subprocess.run([*TOYNN, *before, "info"], capture_output=True, text=True, check=False, env=environment)

    done = info()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("toynn: TOYNN_GEMM_KERNEL: name must be one of")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in info("-v").stderr


def test_a_closed_stdout_is_an_error(trained: Path) -> None:
    for words in (["info"], ["generate", str(trained), "-n", "3"]):
        done = in_a_shell(">&-", *words)
        assert (done.returncode, done.stderr) == (
            1,
            "toynn: cannot write the output: stdout is closed\n",
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_stdout_is_named(trained: Path) -> None:
    for words in (["info"], ["generate", str(trained), "-n", "3", "--json"]):
        done = in_a_shell(">/dev/full", *words)
        assert (done.returncode, done.stderr) == (1, "toynn: cannot write to stdout: No space left on device\n")


def test_a_closed_stdin_is_an_error_only_if_it_is_read(trained: Path) -> None:
    done = in_a_shell("<&-", "generate", trained, "-n", "3", "-p", "-")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "toynn: --prompt - cannot read the prompt, because stdin is closed; give the text instead of -\n"
    )
    assert in_a_shell("<&-", "generate", trained, "-n", "3", "-p", "the").returncode == 0


def test_no_file_is_opened_in_place_of_a_closed_stderr(data: Path, tmp_path: Path) -> None:
    """A file with the descriptor of stderr, for example the log, would receive the error messages."""
    arguments = ["train", data, "--out", tmp_path / "run", "--set", "train.steps=2", "--set", "model.d_model=16"]
    done = in_a_shell("2>&-", *map(str, arguments), "--set", "model.ctx=16", "--set", "train.batch=1")
    assert done.returncode == 0, done.stdout
    assert "done after 2 steps" in done.stdout
