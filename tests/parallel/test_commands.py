"""`toynn eval`, `prepare` and `generate` in several processes give the same output and files as one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import SMALL, output_of, toynn
from mpi import MPICH, OPEN_MPI, different_commands, refused, toynn_in_processes
from small_runs import make_data


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the text data.txt, the data folder `data` and a run."""
    folder = tmp_path_factory.mktemp("commands")
    make_data(folder / "data")
    steps = ["--set", "train.steps=2", "--set", "schedule.warmup=1", "--quiet"]
    output_of("train", folder / "data", "--out", folder / "run", *SMALL, *steps)
    return folder


@pytest.mark.parametrize(
    ("library", "n", "text", "options"),
    [
        (MPICH, 3, "data.txt", ["--json", "--stride", "5"]),
        (OPEN_MPI, 2, "data", ["--ids"]),
        slow(MPICH, 2, "data.txt", []),
        slow(MPICH, 3, "data", ["--ce", "--json"]),
        slow(MPICH, 4, "data.txt", ["--window", "3"]),
        slow(OPEN_MPI, 3, "data", ["--ids", "--json", "--tokens", "7"]),
    ],
)
def test_eval_prints_the_figures_of_one_process(
    library: str, n: int, text: str, options: list[str], folder: Path
) -> None:
    command: list[str | Path] = ["eval", folder / "run", folder / text, *options]
    done = toynn_in_processes(library, n, *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output_of(*command)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["text", "window", "separator"])
def test_wrong_input_gives_the_message_of_one_process(wrong: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "marked").write_text("a\n</s>\nb\n")
    text = {"text": tmp_path / "empty", "window": folder / "data.txt", "separator": tmp_path / "marked"}[wrong]
    command: list[str | Path] = ["eval", folder / "run", text, *(["--window", "99"] if wrong == "window" else [])]
    alone = toynn(*command)
    done = toynn_in_processes(MPICH, 2, *command)
    assert (done.stderr.splitlines()[0], done.returncode) == (alone.stderr.strip(), alone.returncode)
    refused(done, alone.stderr.strip())


def test_processes_with_different_texts_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text((folder / "data.txt").read_text() + "the end\n")
    commands: list[tuple[str | Path, ...]] = [("eval", folder / "run", one / "data.txt") for one in (folder, tmp_path)]
    refused(different_commands(MPICH, commands), "the data (")


@pytest.fixture(scope="module")
def texts(folder: Path) -> Path:
    """A folder with a text, samples, pairs, conversations and a tokenizer.json."""
    (folder / "tokenizer.json").write_bytes((folder / "data" / "tokenizer.json").read_bytes())
    (folder / "long.txt").write_text((folder / "data.txt").read_text() * 20)
    records: dict[str, list[object]] = {
        "samples": [{"prompt": f"hen {i} ", "completion": "cat " * (i % 7 + 1)} for i in range(400)],
        "pairs": [{"prompt": f"hen {i} ", "chosen": "ran " * (i % 5 + 1), "rejected": "saw"} for i in range(300)],
        "chats": [
            {"messages": [{"role": "user", "content": f"old {i}"}, {"role": "assistant", "content": "dog " * (i % 9)}]}
            for i in range(300)
        ],
    }
    for name, lines in records.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    broken = (folder / "samples.jsonl").read_text().splitlines()
    broken[150] = '{"prompt": 3'
    (folder / "broken.jsonl").write_text("\n".join(broken))
    return folder


@pytest.mark.parametrize(
    ("library", "n", "files", "options"),
    [
        (MPICH, 3, ["samples.jsonl", "long.txt"], ["--weights", "1.5,1"]),
        (OPEN_MPI, 2, ["long.txt"], []),
        slow(MPICH, 2, ["pairs.jsonl"], ["--max-tokens", "9"]),
        slow(OPEN_MPI, 3, ["chats.jsonl"], ["--chat-template", "chatml", "--max-tokens", "90", "--truncate", "turns"]),
        slow(MPICH, 4, ["broken.jsonl"], ["--skip-bad", "1"]),
    ],
)
def test_prepare_writes_the_bytes_of_one_process(
    library: str, n: int, files: list[str], options: list[str], texts: Path, tmp_path: Path
) -> None:
    command: list[str | Path] = ["prepare", *(texts / one for one in files), *options]
    command += ["--tokenizer", texts / "tokenizer.json", "--json", "--out"]
    alone = toynn(*command, tmp_path / "out")
    assert alone.returncode == 0, alone.stderr
    (tmp_path / "out").rename(tmp_path / "alone")
    done = toynn_in_processes(library, n, *command, tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, alone.stdout, alone.stderr)
    folders = [{one.name: one.read_bytes() for one in (tmp_path / name).iterdir()} for name in ("alone", "out")]
    assert folders[0] == folders[1]


def test_an_error_of_prepare_is_that_of_one_process(texts: Path, tmp_path: Path) -> None:
    command: list[str | Path] = ["prepare", texts / "broken.jsonl", "--tokenizer", texts / "tokenizer.json"]
    alone = toynn(*command, "--out", tmp_path / "out")
    assert "broken.jsonl, line 151:" in alone.stderr
    done = toynn_in_processes(MPICH, 2, *command, "--out", tmp_path / "out")
    refused(done, alone.stderr.strip())
    assert done.returncode == alone.returncode
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("library", "n"), [(MPICH, 3), slow(OPEN_MPI, 2)])
def test_generate_continues_the_prompts_as_one_process_does(library: str, n: int, folder: Path, tmp_path: Path) -> None:
    texts = ["the cat", "old hen saw", "a", "red", "and then", "dog ran home"] * 3
    (tmp_path / "prompts.jsonl").write_text("\n\n".join(json.dumps({"prompt": one}) for one in texts))
    (tmp_path / "prompts.txt").write_text("\n".join(texts) + "\n")
    options: list[str | Path] = ["--max-tokens", "6", "--seed", "3"]
    command: list[str | Path] = ["generate", folder / "run", *options]
    alone = output_of(*command, "--prompts", tmp_path / "prompts.txt")
    assert [json.loads(line)["prompt"] for line in alone.splitlines()] == texts
    assert json.loads(alone.splitlines()[1]) == json.loads(output_of(*command, "--json", "--prompt", texts[1]))
    done = toynn_in_processes(library, n, *command, "--prompts", tmp_path / "prompts.jsonl")
    assert (done.returncode, done.stdout) == (0, alone), done.stderr


def test_wrong_prompts_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a\n" + "the cat " * 40 + "\n")
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "wrong.jsonl").write_text('{"prompt": "a"}\n{"text": "a"}\n')
    for name, says in (
        ("long.txt", "long.txt, line 2: the prompt has"),
        ("empty.txt", "contains no prompts"),
        ("wrong.jsonl", "wrong.jsonl, line 2 must be a JSON object whose field 'prompt' is a text"),
    ):
        alone = toynn("generate", folder / "run", "--prompts", tmp_path / name)
        assert (alone.returncode, alone.stderr.count("\n")) == (2, 1), alone.stderr
        assert says in alone.stderr
        assert alone.stdout == ""  # no prompt was continued, because all prompts are checked first
    refused(
        toynn_in_processes(MPICH, 2, "generate", folder / "run", "--prompts", tmp_path / "long.txt"),
        "long.txt, line 2: the prompt has",
    )
