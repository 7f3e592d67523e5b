"""toynn prepare: its reports, the texts and options that it refuses, and folders that other processes write."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import toynn
from commands import toynn as command
from small_runs import config, make_data
from toynn import TinyNNValueError
from toynn.data import PackedTokens, load_meta
from toynn.data.prepare import FILES, prepare
from toynn.storage.new_folder import UNFINISHED, new_folder
from toynn.text.documents import END_OF_TEXT

TEXT = "an owl sat in the barn and the mice kept very still until the moon had gone"
WORDS = TEXT.split()


def prose(n: int) -> str:
    return " ".join(WORDS[i * i % 13] for i in range(n))


# ---- splits ----


@pytest.mark.parametrize(
    "text",
    [prose(5000), prose(5000).replace(" ", ""), prose(5000).replace(" ", "\r"), prose(3000).replace(" ", "\r\n"), "ab",
     "one line\n" + prose(3000)],
    ids=["one line", "no spaces", "CR", "CR LF", "two characters", "a short and a long line"],
)  # fmt: skip
@pytest.mark.parametrize("share", [0.05, 1e-9, 0.99])
def test_no_requested_split_is_empty(text: str, share: float, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(text.encode())
    meta = prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=280, validation=share)
    train, validation = (meta.splits[name] for name in ("train", "validation"))
    assert train.tokens > 0
    assert validation.tokens > 0
    assert train.bytes + validation.bytes == len(text)
    if share == 0.05 and len(text) > 2:
        assert validation.bytes == pytest.approx(len(text) * 0.05, rel=0.25)


def test_line_ends_do_not_change_what_is_held_out(tmp_path: Path) -> None:
    tokens = {}
    for name, end in (("lf", "\n"), ("cr", "\r")):
        (tmp_path / name).write_bytes((end.join([prose(12)] * 400)).encode())
        meta = prepare([tmp_path / name], tmp_path / f"data-{name}", vocab_size=280)
        tokens[name] = {split: one.tokens for split, one in meta.splits.items()}
    assert tokens["lf"] == tokens["cr"]


def test_a_document_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(TinyNNValueError, match=r"^validation: the only document is 'x', which cannot be divided"):
        prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=280)
    assert prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=280, validation=0).splits["train"].bytes == 1


# ---- documents and separators ----


def test_the_number_of_documents_is_reported(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(f"{END_OF_TEXT}\n".join(f"Room {i}.\n" for i in range(30)))
    plain = command("prepare", tmp_path / "t.txt", "--vocab-size", "270", "--out", tmp_path / "a")
    assert "documents  30\n" in plain.stdout
    told = command("prepare", tmp_path / "t.txt", "--vocab-size", "270", "--out", tmp_path / "b", "--json")
    assert json.loads(told.stdout)["documents"] == 30
    assert load_meta(tmp_path / "b").splits["train"].documents == 28
    prepared = toynn.prepare(tmp_path / "t.txt", tmp_path / "c", vocab_size=270)
    assert prepared.documents == 30
    assert "30 documents" in repr(prepared)


@pytest.fixture
def other_end(tmp_path: Path) -> Path:
    """Return a tokenizer whose only special token is </s>."""
    (tmp_path / "seed.txt").write_text("Room 1. The lamp is lit.\n" * 3)
    prepare([tmp_path / "seed.txt"], tmp_path / "seed", vocab_size=270, eos="</s>", separator="</s>")
    return tmp_path / "seed" / "tokenizer.json"


def test_another_end_token_does_not_change_the_separator(other_end: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(f"{END_OF_TEXT}\n".join(f"Room {i}.\n" for i in range(30)))
    meta = prepare([tmp_path / "t.txt"], tmp_path / "data", tokenizer=other_end, eos="</s>", validation=0)
    ids = PackedTokens.open(tmp_path / "data", "train").tokens
    assert meta.documents == (ids == meta.eos_id).sum() == 30


@pytest.mark.parametrize("marker", ["</s>", "<|im_end|>", "<eos>", "<|end_of_text|>"])
def test_lines_of_another_known_separator_are_refused_or_reported(marker: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(f"{marker}\n".join(f"Room {i}.\n" for i in range(30)))
    with pytest.raises(TinyNNValueError, match=rf"t\.txt has 29 lines '{marker.replace('|', '.')}'.*set separator to"):
        prepare([tmp_path / "t.txt"], tmp_path / "a", vocab_size=270)
    assert prepare([tmp_path / "t.txt"], tmp_path / "b", vocab_size=270, separator=marker).documents == 30
    with pytest.warns(UserWarning, match=r"has 29 lines .* as ordinary text, because the separator is '---'"):
        prepared = toynn.prepare(tmp_path / "t.txt", tmp_path / "c", vocab_size=270, separator="---")
    assert prepared.documents == 1
    assert len(prepared.notes) == 1


def test_a_separator_inside_of_a_line_is_reported_with_its_count(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(f"Put {END_OF_TEXT} after each text.\n" * 20)
    done = command("prepare", tmp_path / "t.txt", "--vocab-size", "270", "--out", tmp_path / "a", "--json")
    assert "note: " in done.stderr
    (note,) = [note for note in json.loads(done.stdout)["notes"] if "inside lines" in note]
    assert "20 times" in note
    assert "encoded as the end of a document" in note


def test_json_lines_and_nul_characters_are_reported(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"text": "The lamp is lit."}\n' * 30)
    (tmp_path / "n.txt").write_text("The lamp\0 is lit.\n" * 3)
    notes: list[str] = []
    prepare([tmp_path / "d.jsonl", tmp_path / "n.txt"], tmp_path / "a", vocab_size=270, note=notes.append)
    assert len(notes) == 2
    assert "3 NUL characters" in notes[0]
    assert notes[1] == (
        f"{tmp_path / 'd.jsonl'} contains JSON lines, so the model would learn braces and keys as text; to read JSON "
        "objects as samples, leave out the format 'plain'"
    )


def test_documents_given_as_strings_are_called_documents(tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"^documents has 1 line '</s>'"):
        toynn.prepare(documents=["a\n</s>\nb", "c"], out=tmp_path / "a", vocab_size=270)
    assert toynn.prepare(documents=["\ufeffa b", "c"], out=tmp_path / "b", vocab_size=270, separator="").documents == 2


def test_the_normalizer_that_changes_a_text_is_named(other_end: Path, tmp_path: Path) -> None:
    described = json.loads(other_end.read_text())
    described["normalizer"] = {"type": "NFC"}
    (tmp_path / "nfc.json").write_text(json.dumps(described))
    (tmp_path / "nfd.txt").write_text("Un cafe\u0301.\n" * 30)
    with pytest.raises(TinyNNValueError, match=r"its normalizer NFC changes the text of .*convert the texts to NFC"):
        prepare([tmp_path / "nfd.txt"], tmp_path / "a", tokenizer=tmp_path / "nfc.json", eos="</s>")


# ---- folders ----


def test_a_folder_that_another_process_fills_is_refused_and_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(prose(500))

    def second(stage: str, done: int, in_all: int) -> None:
        with pytest.raises(TinyNNValueError, match=r"^out: another process is writing .*data"):
            prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=270)

    prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=270, progress=second)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(FILES)


def test_an_error_deletes_no_file_of_another_program(tmp_path: Path) -> None:
    def fill() -> None:
        with new_folder("out", tmp_path / "data", ["x.bin", "y.json"]) as folder:
            (folder / "x.bin").write_bytes(b"ours")
            (folder / "y.json").write_bytes(b"ours")
            (tmp_path / "data" / "x.bin").write_bytes(b"theirs")

    with pytest.raises(TinyNNValueError, match=r"another program has created .*x\.bin"):
        fill()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["x.bin"]
    assert (tmp_path / "data" / "x.bin").read_bytes() == b"theirs"


def test_files_that_a_killed_prepare_did_not_make_are_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.bin").write_bytes(b"theirs")
    (tmp_path / "t.txt").write_text(prose(500))
    with pytest.raises(TinyNNValueError, match="is not an empty folder"):
        prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=270)
    assert (tmp_path / "data" / "train.bin").read_bytes() == b"theirs"


@pytest.mark.parametrize("entry", ["story.txt", "folder", "link"])
def test_a_subfolder_with_other_files_is_not_taken_over(entry: str, tmp_path: Path) -> None:
    text, work = tmp_path / "t.txt", tmp_path / "out" / UNFINISHED
    work.mkdir(parents=True)
    text.write_text(prose(50))
    if entry == "folder":
        (work / FILES[0]).mkdir()
    elif entry == "link":
        (work / FILES[0]).symlink_to(text)
    else:
        text = text.rename(work / entry)
    before = sorted(work.iterdir())
    with pytest.raises(TinyNNValueError, match=r"out: .*out exists and is not an empty folder; use another path"):
        prepare([text], tmp_path / "out", vocab_size=270)
    assert sorted(work.iterdir()) == before
    assert text.read_text() == prose(50)


def test_the_error_for_a_link_to_a_missing_path_names_it(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(prose(500))
    (tmp_path / "data").symlink_to("nowhere")
    with pytest.raises(TinyNNValueError, match=r"data is a link to nowhere, which does not exist"):
        prepare([tmp_path / "t.txt"], tmp_path / "data", vocab_size=270)


KILLED = """
import os, signal, sys
from pathlib import Path
from toynn.data.prepare import prepare
folder, moment, seen = Path(sys.argv[1]), int(sys.argv[2]), 0
def audit(event, args):
    global seen
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")) and str(folder / "data") in str(args[0]):
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(audit)
prepare([folder / "t.txt"], folder / "data", tokenizer=folder / "seed/tokenizer.json")
"""


def test_prepare_can_be_repeated_after_a_kill_at_every_moment(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(prose(500))
    prepare([tmp_path / "t.txt"], tmp_path / "seed", vocab_size=270)
    wanted = {name: (tmp_path / "seed" / name).read_bytes() for name in FILES}
    moment = 0
    while True:
        moment += 1
        status = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(moment)], check=False).returncode
        data = tmp_path / "data"
        # the process was killed after the last file was moved to its place, or not killed at all
        if (data / "meta.json").exists():
            assert {name: (data / name).read_bytes() for name in FILES} == wanted
        else:
            assert status == -signal.SIGKILL
            prepare([tmp_path / "t.txt"], data, tokenizer=tmp_path / "seed/tokenizer.json")
            assert sorted(path.name for path in data.iterdir()) == sorted(FILES)
            assert {name: (data / name).read_bytes() for name in FILES} == wanted
        for name in (*FILES, f"{UNFINISHED}/.lock"):
            (data / name).unlink(missing_ok=True)
        for folder in (data / UNFINISHED, data):
            if folder.exists():
                folder.rmdir()
        if status == 0:
            break
    assert moment > 10


# ---- documents in toynn eval ----


def test_a_text_is_evaluated_as_prepare_packs_it(tmp_path: Path) -> None:
    run = toynn.train(toynn.TrainArgs(data=make_data(tmp_path / "seed"), out=tmp_path / "run", config=config(2))).run
    text = "".join(f"{END_OF_TEXT}\nthe cat saw {WORDS[i % 17]}.\n" for i in range(30))
    (tmp_path / "t.txt").write_text(text)
    with toynn.load(run) as model:
        data = toynn.prepare(tmp_path / "t.txt", tmp_path / "data", tokenizer=model, validation=0)
        packed = [model.start_id, *PackedTokens.open(data.path, "train").tokens.tolist()]
        scores = model.score(text)
        evaluation = model.evaluate(text)
    assert [score.token for score in scores] == packed[1:]
    assert (evaluation.tokens, evaluation.text_bytes) == (data.tokens["train"], data.meta.splits["train"].bytes)
    told = json.loads(command("eval", run, tmp_path / "t.txt", "--json").stdout)
    assert (told["loss"], told["bytes"]) == (evaluation.loss, evaluation.text_bytes)
