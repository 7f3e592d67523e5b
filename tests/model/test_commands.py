"""The commands as processes: from a text to generated text, exit codes, output in a terminal, Ctrl-C, and kill -9."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from commands import SMALL, TOYNN, start_training, toynn, wait_for_a_step
from small_runs import final_bytes, losses
from toynn.api.plain_progress import PlainProgress
from toynn.cli.app import COMMANDS
from toynn.data import load_meta
from toynn.extras import how_to_install
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import DataArgs, Evaluated, Saved, Started, Stepped
from toynn.training.toml_config import from_toml, read_config

DIVERGES = ["--set", "optimizer.lr=3e38", "--set", "optimizer.clip=0"]


# ---- help and mistakes ----


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help_of_at_most_80_columns(command: list[str]) -> None:
    done = toynn(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    if not command:
        assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nonsense"], 2, "there is no command 'nonsense'; the commands are prepare, plan, train"),
        (["trian", "DATA"], 2, "there is no command 'trian'; did you mean 'train'?"),
        (["--nonsense"], 2, "No such option '--nonsense'; see toynn --help"),
        (["train", "DATA", "--nonsense"], 2, "see toynn train --help"),
        (["train", "DATA"], 2, "the option --out is missing; give the folder of the run to create; see toynn train"),
        (["train", "--out", "RUN"], 2, "is missing; give a data folder"),
        (["train", "--resume", "--show-config"], 2, "--resume needs --out"),
        (["train", "DATA", "--out", "RUN", "--from", "step-00000007"], 2, "needs --resume"),
        (["train", "DATA", "--out", "RUN", "--init", "GGUF"], 2, "GGUF: "),
        (["generate", "GGUF"], 2, "GGUF: "),
        (["eval", "GGUF", "BAD"], 2, "GGUF: "),
        (["info", "GGUF"], 2, "GGUF: "),
        (["train", "DATA", "--out", "RUN", "--set", "model.vocab=300"], 2, "because it comes from the data"),
        (["train", "DATA", "--out", ""], 2, "'--out': the path must not be empty; use . for the current folder"),
        (["prepare", "BAD", "--out", ""], 2, "'--out': the path must not be empty"),
        (["export", "EMPTY", ""], 2, "'OUT': the path must not be empty"),
        (["train", "DATA", "--out", "/proc/no"], 2, "/proc/no: the folder cannot be created (No such"),
        (["train", "DATA", "--out", "RUN", "--set", "model.ctx=100000000"], 2, "model.ctx = 100000000 is too large"),
        (["train", "--out", "RUN", "--resume"], 2, "has no log.jsonl, so there is no run to resume; give"),
        (["generate", "DATA"], 2, "is a data folder, not a run"),
        (["prepare", "EMPTY", "--out", "RUN"], 2, "is a folder; name the files in it, like EMPTY/*.txt"),
        (["prepare", "BAD", "--out", "DATA"], 2, "toynn: --out: DATA exists and is not an empty folder; use another"),
        (["prepare", "BAD", "--out", "DATA"], 2, "use another path, like DATA-2"),
        (["prepare", "BAD", "--out", "RUN", "--vocab-size", "300", "--tokenizer", "BAD"], 2, "cannot be combined"),
        (["prepare", "GGUF", "--out", "RUN"], 2, "is not UTF-8"),
        (["train", "NOWHERE", "--out", "RUN"], 2, "does not exist"),
        (["train", "EMPTY", "--out", "RUN"], 2, "is not a data folder: it has no meta.json (`toynn prepare` makes a"),
        (["train", "DATA", "--out", "RUN", "--set", "optimizer.lrr=1"], 2, "did you mean 'optimizer.lr'"),
        (["train", "DATA", "--out", "RUN", "--config", "BAD"], 2, "bad.toml: the text is not valid TOML"),
        (["train", "DATA", "--out", "RUN", "--resume"], 2, "no checkpoint to resume from"),
        (["train", "DATA", "--out", "DATA"], 2, "exists and is not a run"),
        (["train", "DATA", "--out", "RUN", "--threads", "0"], 2, "--threads"),
        (["train", "DATA", "--out", "RUN", "--threads", "4000"], 2, "n_threads"),
        (["report", "EMPTY"], 2, "has no log.jsonl"),
        (["train", "DATA", "--out", "RUN", *SMALL, *DIVERGES], 1, "NaN or infinity"),
    ],
)  # fmt: skip
def test_a_usage_error_is_one_line_that_says_what_to_do(
    words: list[str], code: int, says: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("x = ")
    (tmp_path / "m.gguf").write_bytes(b"GGUF\xff")
    places = {
        "DATA": data,
        "RUN": tmp_path / "run",
        "NOWHERE": tmp_path / "nowhere",
        "EMPTY": tmp_path / "empty",
        "BAD": tmp_path / "bad.toml",
        "GGUF": tmp_path / "m.gguf",
    }
    done = toynn(*(places.get(word, word) for word in words))
    assert done.returncode == code, done.stderr
    for word, place in places.items():
        if word != "RUN":  # RUN is not replaced, because "RUN" also occurs in messages
            says = re.sub(rf"\b{word}\b", str(place), says)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("toynn: ")
    if code == 2:
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "run").exists(), "a failed command must leave no files"


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("tensorboardX", "tensorboard", ["train", "DATA", "--out", "RUN", "--tensorboard"]),
        ("wandb", "wandb", ["train", "DATA", "--out", "RUN", "--wandb"]),
        ("mlflow", "mlflow", ["train", "DATA", "--out", "RUN", "--mlflow"]),
        ("matplotlib", "plot", ["report", "DATA"]),
        ("starlette", "serve", ["serve", "DATA"]),
        ("uvicorn", "serve", ["serve", "DATA"]),
        ("uvicorn", "serve", ["watch", "DATA"]),
        ("gguf", "interop", ["export", "DATA", "m.gguf"]),
        ("tokenizers", "cli", ["generate", "DATA"]),
        ("safetensors", "cli", ["info", "DATA"]),
        ("rich", "cli", ["train", "DATA", "--out", "RUN"]),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    module: str, extra: str, words: list[str], data: Path, tmp_path: Path
) -> None:
    places = {"DATA": str(data), "RUN": str(tmp_path / "run")}
    program = f"import sys; sys.modules[{module!r}] = None; from toynn.cli import main; main()"
    command = [sys.executable, "-c", program, *(places.get(word, word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == f"toynn: {module} is not installed; {how_to_install(extra)}\n"
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_is_shown_with_v(data: Path, tmp_path: Path) -> None:
    assert "Traceback" in toynn("-v", "train", data, "--out", tmp_path / "run", "--resume").stderr


def test_training_without_matplotlib_says_how_to_get_plots(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    program = "import sys; sys.modules['matplotlib'] = None; from toynn.cli import main; main()"
    words = ["train", str(data), "--out", str(run), *SMALL, "--set", "train.steps=3"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert f"no plots, because matplotlib is not installed; {how_to_install('plot')}, then:" in done.stdout
    assert done.stdout.endswith(f"toynn report '{run}'\n")


# ---- all commands in order ----


def test_prepare_train_evaluate_and_generate_work_together(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("<|endoftext|>\n".join(f"Story {i}: the cat saw a hen and ran.\n" for i in range(200)))
    done = toynn("prepare", text, "--out", tmp_path / "data", "--vocab-size", "300", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["vocab_size"] <= 300
    run = tmp_path / "run"
    words = ["--set", "train.steps=150", "--set", "optimizer.lr=1e-2", "--set", "checkpoint.every=100"]
    done = toynn("train", tmp_path / "data", "--out", run, *SMALL, *words)
    assert done.returncode == 0, done.stderr
    assert "step 150/150: loss" in done.stderr
    assert f"report  {run / 'report.html'}" in done.stdout
    written = toynn("generate", run, "-p", "Story 7:", "--greedy", "-n", "20")
    assert "the cat saw a hen" in written.stdout
    assert written.stdout == toynn("generate", run, "-p", "Story 7:", "--greedy", "-n", "20", "--threads", "1").stdout
    judged = json.loads(toynn("eval", run, text, "--json").stdout)
    assert judged["step"] == 150
    assert judged["perplexity"] < 10
    info = json.loads(toynn("info", run, "--json").stdout)
    assert info["step"] == 150
    assert json.loads(toynn("info", tmp_path / "data", "--json").stdout)["vocab_size"] <= 300
    assert "profile" in json.loads(toynn("info", "--json").stdout)
    report = json.loads(toynn("report", run, "--json").stdout)
    assert [Path(path).name for path in report["written"]][-1] == "report.html"


def test_the_shown_configuration_can_be_used(data: Path, tmp_path: Path) -> None:
    shown = toynn("train", data, "--out", tmp_path / "run", *SMALL, "--set", "train.steps=3", "--show-config")
    path = tmp_path / "run.toml"
    path.write_text(shown.stdout)
    assert "lr = 0.01               # highest learning rate of the schedule" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert toynn("train", *SMALL, "--set", "train.steps=3", "--show-config").stdout == shown.stdout
    done = toynn("train", data, "--out", tmp_path / "run", "--config", path, "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["step"] == 3
    own = tmp_path / "run" / "run.toml"
    # the data determines document_attention, so the run sets this key
    used = dataclasses.replace(read_config(path), data=DataArgs(document_attention=False))
    assert read_config(own) == used
    # the state of a run that was killed while it was resumed
    own.write_text(own.read_text().replace("steps = 3", "steps = 9"))
    resumed: list[str | Path] = ["train", data, "--out", tmp_path / "run", "--resume"]
    assert from_toml(toynn(*resumed, "--show-config").stdout) == used, (
        "--resume must use the configuration of the checkpoint"
    )
    own.unlink()
    more = toynn(*resumed, "--set", "train.steps=4", "--quiet")
    assert (more.returncode, more.stderr) == (0, "")
    assert "steps = 4 " in toynn(*resumed, "--show-config").stdout
    older = toynn(*resumed, "--from", "step-00000003", "--show-config")
    assert "steps = 3 " in older.stdout, older.stderr
    for words in (["--show-config"], ["--set", "train.steps=5"], []):
        assert "has no checkpoint '../run'" in toynn(*resumed, "--from", "../run", *words).stderr
    by_init = toynn("train", "--init", tmp_path / "run", "--set", "train.steps=3", "--show-config").stdout
    assert "d_ff = 24 " in by_init, "the shape must be that of --init"


def test_a_new_run_writes_tensorboard_files_when_asked(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--set", "train.steps=3", "--tensorboard", "--quiet"]
    done = toynn("train", data, "--out", run, *SMALL, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"done after 3 steps, training loss [\d.]+, best .*\n", done.stdout), "with --quiet, one line"
    assert len(list((run / "tensorboard").iterdir())) == 1
    again = toynn("train", data, "--out", run, "--resume")
    assert again.stdout.startswith("nothing to do: the run has taken all its 3 steps")
    fewer = toynn("train", data, "--out", run, "--resume", "--set", "train.steps=2")
    assert fewer.returncode == 2
    assert "train.steps = 2 is too small, but the run has already taken 3 steps" in fewer.stderr


def test_training_with_a_damaged_log_ends_with_a_note(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert toynn("train", data, "--out", run, "--quiet", *SMALL, "--set", "train.steps=3").returncode == 0
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join([lines[0], "junk\n", *lines[1:]]))
    done = toynn("train", data, "--out", run, "--resume", "--json", "--quiet", "--set", "train.steps=4")
    assert done.returncode == 0, done.stderr
    assert "note: no report: " in done.stderr
    told = json.loads(done.stdout)
    assert (told["step"], told["report"]) == (4, None)


def test_toynn_info_describes_a_run_in_80_columns(data: Path, tmp_path: Path) -> None:
    words = ["--set", "train.steps=4", "--set", "checkpoint.keep_last=3"]
    done = toynn("train", data, "--out", tmp_path / "run", *SMALL, *words)
    lines = done.stderr.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("step 4: validation ") and line.endswith(" bits/byte, best") for line in lines)
    info = json.loads(toynn("info", tmp_path / "run", "--json").stdout)
    assert (info["step"], info["steps planned"], info["ended"]) == (4, 4, "done")
    assert info["checkpoints"] == "step-00000002, step-00000003, step-00000004"
    assert info["best checkpoint"] == "step-00000004"
    (tmp_path / "run" / "log.jsonl").write_text("no log\n" + '{"v": 1, "event": "stepped"}\n')
    done = toynn("info", tmp_path / "run", "--json")
    assert "is damaged" in json.loads(done.stdout)["ended"]
    assert (done.returncode, done.stderr) == (
        2,
        f"toynn: {tmp_path / 'run/log.jsonl'}: line 1 is damaged: it must be the JSON object of an event\n",
    )
    (tmp_path / "run" / "best").write_text("step-00000009\n")
    told = json.loads(toynn("info", tmp_path / "run", "--json").stdout)
    assert told["best checkpoint"].startswith("unknown: "), "the latest checkpoint must still be reported"
    for path in ([], [tmp_path / "run"]):
        shown = toynn("info", *path).stdout.splitlines()
        assert max(len(line) for line in shown if str(tmp_path) not in line) <= 80


def test_an_unwritable_file_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    assert toynn("train", data, "--out", tmp_path / "run", *SMALL, "--set", "train.steps=3").returncode == 0
    done = toynn("export", tmp_path / "run", tmp_path / "x.safetensors")
    assert done.returncode == 2
    assert "does not write .safetensors files" in done.stderr
    assert "x.safetensors; name a file that ends in .gguf, or a folder" in done.stderr
    assert not (tmp_path / "x.safetensors").exists()


def test_a_smaller_vocabulary_than_requested_is_reported(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("the cat saw the hen\n" * 50)
    done = toynn("prepare", tmp_path / "t.txt", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    size = load_meta(tmp_path / "data").vocab_size
    assert done.stderr == f"note: the texts are too short for 4096 tokens, so the vocabulary has {size} tokens\n"


def test_shell_completion_is_available() -> None:
    environment = {**os.environ, "_TOYNN_COMPLETE": "bash_source"}
    done = subprocess.run(TOYNN, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    assert "_toynn_completion" in done.stdout


# ---- interrupted and killed ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_is_saved_and_says_how_to_resume(data: Path, tmp_path: Path, number: int) -> None:
    run = tmp_path / "my run"
    process = start_training(data, run, 100000, "--threads", "1", "--tensorboard")
    wait_for_a_step(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"continue with: toynn train {data} --out '{run}' --resume --threads 1 --tensorboard" in out
    assert "Traceback" not in err
    step = load_checkpoint(run).step
    assert f"interrupted after {step} step{'' if step == 1 else 's'}, saved" in out
    done = toynn("train", data, "--out", run, "--resume", "--set", f"train.steps={step + 2}", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == step + 2


def test_a_run_killed_many_times_ends_with_the_bytes_of_an_uninterrupted_run(data: Path, tmp_path: Path) -> None:
    whole, run, steps = tmp_path / "whole", tmp_path / "run", 40
    assert start_training(data, whole, steps, "--quiet").wait() == 0
    kills = 0
    while not (run / "latest").exists() or load_checkpoint(run).step < steps:
        process = start_training(data, run, steps, *(["--resume"] if (run / "latest").exists() else []))
        wait_for_a_step(process)
        # the pauses differ, so that the kills hit different steps and saves, on a fast or slow machine
        time.sleep(0.01 * (kills % 6) * (1 + kills // 12))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert kills < 100
    assert kills > 3
    assert toynn("train", data, "--out", run, "--resume").returncode == 0
    assert losses(run) == losses(whole)
    assert final_bytes(run) == final_bytes(whole)


# ---- a terminal ----


def in_a_terminal(words: list[str], columns: int = 80, interrupt_after: str | None = None) -> tuple[int, str]:
    """Run a command in a terminal, and return the exit status and the output.

    interrupt_after: a regular expression; Ctrl-C is typed once, when the output contains a match.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [*TOYNN, *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (Ctrl-C needs a controlling terminal)
    )
    os.close(follower)
    written = bytearray()
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # reading fails after the process has closed the terminal
            break
        if not piece:
            break
        written += piece
        if interrupt_after is not None and re.search(interrupt_after.encode(), written):
            os.write(leader, b"\x03")
            interrupt_after = None
    os.close(leader)
    return process.wait(), written.decode("utf-8")


def test_a_terminal_shows_a_progress_bar_of_its_width(data: Path, tmp_path: Path) -> None:
    words = ["train", str(data), "--out", str(tmp_path / "run"), *SMALL, "--set", "train.steps=30"]
    code, written = in_a_terminal(words)
    assert code == 0, written
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    lines = [line for part in plain.split("\n") for line in part.split("\r")]
    assert any("training" in line and "30/30" in line and "loss" in line for line in lines)
    assert not any(line.startswith("step 3/30") for line in lines), (
        "with a progress bar there must be no line for each step"
    )
    assert any("done after 30 steps" in line for line in lines)
    bars = [line for line in lines if line.startswith("training")]
    assert max(map(len, bars)) <= 80


def test_progress_lines_fit_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainProgress(every=1)
    view(Started(Path("run"), Path("data"), 0, 1_000_000, 163_000_000, 8192, 10**9, 10**7, None, None, ""))
    view(Stepped(999_999, 12.1234, 1e-3, 123.456, 10**10, 1.0, 123456.7, 12.34))
    view(Evaluated(999_999, 12.1234, 183456.7, 13.1234, 10**7, 1.0, True))
    view(Saved(999_999, Path("x"), 10**10, 100.123))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80


def seen(written: str, columns: int) -> list[str]:
    """Return the lines that a terminal of this width shows after the output `written` was written to it."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n", written):
        if piece == "\n":
            row += 1
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", piece):
            row -= int(piece[2:-1] or 1)
        elif not piece.startswith("\x1b"):
            if column == columns:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            lines[row] = (lines[row].ljust(column)[:column] + piece + lines[row][column + 1 :]).rstrip("\n")
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return lines


def test_ctrl_c_in_a_terminal_leaves_one_progress_bar(data: Path, tmp_path: Path) -> None:
    words = ["train", str(data), "--out", str(tmp_path / "run"), *SMALL, "--set", "train.steps=100000"]
    code, written = in_a_terminal([*words, "--set", "checkpoint.every=0"], interrupt_after="[1-9][0-9]*/100000")
    assert code == 130, written[-2000:]
    assert "^C" in written
    lines = seen(written, 80)
    assert sum(line.startswith("training") for line in lines) == 1, lines
    assert any(line.startswith("interrupted after") for line in lines), lines


def test_a_terminal_shows_generated_text_as_it_is_sampled(data: Path, tmp_path: Path) -> None:
    assert toynn("train", data, "--out", tmp_path / "run", *SMALL, "--set", "train.steps=5").returncode == 0
    words = ["generate", str(tmp_path / "run"), "-p", "the cat", "-n", "10", "--seed", "3"]
    code, written = in_a_terminal(words)
    assert code == 0
    assert written.startswith("the cat")
    assert written.replace("\r\n", "\n") == toynn(*words).stdout
