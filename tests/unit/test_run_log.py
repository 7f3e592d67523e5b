"""The log, the report and the TensorBoard files of a run contain every event once, with exact numbers."""

from __future__ import annotations

import json
import re
import resource
import struct
from pathlib import Path

import pytest

from small_runs import config, losses
from toynn import FileFormatError, TinyNNValueError, TrainArgs, train
from toynn.training import EvaluationArgs, Event, Stepped, StopTraining
from toynn.training.report import write_report
from toynn.training.run_log import RunLog, read_log
from toynn.training.tensorboard import TensorBoardView


def stop_at(step: int) -> object:
    def callback(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            raise StopTraining

    return callback


def test_every_log_line_is_a_json_object_with_version_and_time(data: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    train(TrainArgs(data, tmp_path / "run", config(5)), [seen.append])
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(lines) == len(seen)
    assert read_log(tmp_path / "run") == read_log(tmp_path / "run" / "log.jsonl") == lines
    assert all(line["v"] == 1 and line["time"].endswith("+00:00") for line in lines)
    told = [event.loss.hex() for event in seen if isinstance(event, Stepped)]
    assert [float(line["loss"]).hex() for line in lines if line["event"] == "stepped"] == told


def test_the_log_of_a_killed_and_resumed_run_has_the_events_of_a_whole_run(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "whole", config(9)))
    run = tmp_path / "run"
    train(TrainArgs(data, run, config(9)), [stop_at(4)])  # type: ignore[list-item]
    log = run / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    ahead = [line.replace('"step": 4', '"step": 5') for line in lines if '"stepped"' in line and '"step": 4' in line]
    log.write_text("".join(lines[:-1] + ahead) + '{"v": 1, "event": "step')  # the run was killed while it wrote a line
    assert [event["step"] for event in read_log(log) if event["event"] == "stepped"] == [1, 2, 3, 4, 5]
    train(TrainArgs(data, run, resume=True))
    assert losses(run) == losses(tmp_path / "whole")
    steps = [event["step"] for event in read_log(log) if event["event"] == "stepped"]
    assert steps == list(range(1, 10))
    assert [event["event"] for event in read_log(log)].count("ended") == 1


def test_zeros_of_a_power_loss_cost_only_events_that_are_repeated(data: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    train(TrainArgs(data, run, config(9)), [stop_at(4)])  # type: ignore[list-item]
    whole = read_log(run)
    first = log.read_bytes().splitlines(keepends=True)
    lost = bytes(len(first[3]) + 20) + first[4][20:]  # the event of step 4 is complete, but it is after the zeros
    log.write_bytes(b"".join(first[:3]) + lost + b"".join(first[5:]))
    assert read_log(run) == whole[:3]
    log.write_bytes(log.read_bytes() + bytes(3 << 20))  # the zeros are longer than any event
    assert read_log(run) == whole[:3]
    again = b"".join(line for line in first if b'"started"' in line)
    resumed = again.replace(b'"resumes": null', b'"resumes": "checkpoint"')
    log.write_bytes(log.read_bytes() + b"\n" + resumed + b"".join(first[1:]))
    assert [event["event"] for event in read_log(run)][-len(whole) :] == [event["event"] for event in whole]
    log.write_bytes(b"".join(first[:3]) + lost + resumed.replace(b'"step": 0', b'"step": 4'))
    with pytest.raises(FileFormatError, match="line 4 is damaged: steps up to 4 are missing"):
        read_log(run)


def test_a_damaged_log_and_a_log_of_another_version_are_refused(data: Path, tmp_path: Path) -> None:
    train(TrainArgs(data, tmp_path / "run", config(3)))
    log = tmp_path / "run" / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:2], "{broken\n", *lines[2:]]))
    with pytest.raises(TinyNNValueError, match="line 3 is damaged"):
        read_log(log)
    log.write_text("".join(lines).replace('"v": 1', '"v": 2'))
    with pytest.raises(TinyNNValueError, match="line 1 must have version 1, got 2"):
        read_log(log)


LINES: dict[str, dict[str, object]] = {
    "started": {
        "run": "r", "data": "d", "step": 0, "steps": 9, "parameters": 1, "batch_tokens": 1, "train_tokens": 1,
        "validation_tokens": 0, "resumes": None, "inits": None, "config": "",
    },
    "stepped": {
        "step": 1, "loss": 1.0, "learning_rate": 0.1, "gradient_norm": 1, "tokens": 1, "seconds": 1.0,
        "tokens_per_second": 1.0,
    },
    "evaluated": {
        "step": 1, "loss": 1.0, "perplexity": None, "bits_per_byte": 1.0, "tokens": 1, "seconds": 1.0, "best": True,
    },
    "saved": {"step": 1, "path": "p", "bytes": 1, "seconds": 1.0},
    "ended": {
        "step": 1, "reason": "done", "checkpoint": "p", "loss": 1.0, "best_loss": None, "best_step": None,
        "seconds": 1.0,
    },
}  # fmt: skip


def write_lines(path: Path, **changed: object) -> Path:
    """Write a log with one line for each event.

    changed: a keyword event_field=value changes a field; ... removes it.
    """
    lines = []
    for name, fields in LINES.items():
        line = {"v": 1, "event": name, "time": "2026-01-01T00:00:00.000+00:00", **fields}
        line |= {key.partition("_")[2]: value for key, value in changed.items() if key.partition("_")[0] == name}
        lines.append(json.dumps({key: value for key, value in line.items() if value is not ...}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.quick
def test_a_log_without_later_fields_is_read(tmp_path: Path) -> None:
    assert [event["event"] for event in read_log(write_lines(tmp_path / "log.jsonl"))] == list(LINES)
    write_report(tmp_path)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"stepped_loss": ...}, "line 2 is damaged: the field 'loss' is missing"),
        ({"stepped_step": ...}, "line 2 is damaged: the field 'step' is missing"),
        ({"stepped_step": True}, "line 2 is damaged: step must be an integer, 0 or above, got True"),
        ({"stepped_step": -1}, "line 2 is damaged: step must be an integer, 0 or above, got -1"),
        ({"stepped_step": 1.0}, "line 2 is damaged: step must be an integer, 0 or above, got 1.0"),
        ({"stepped_loss": "low"}, "line 2 is damaged: loss must be a finite number, got 'low'"),
        ({"stepped_loss": float("nan")}, "line 2 is damaged: loss must be a finite number, got nan"),
        ({"stepped_loss": 10**400}, "line 2 is damaged: loss must be a finite number, got 1000"),
        ({"stepped_loss": -1e308}, r"line 2 is damaged: loss must be a finite number, got -1e\+308"),
        ({"stepped_loss": [1]}, r"line 2 is damaged: loss must be a finite number, got \[1\]"),
        ({"evaluated_perplexity": {}}, "line 3 is damaged: perplexity must be a finite number or null, got {}"),
        ({"evaluated_best": 1}, "line 3 is damaged: best must be true or false, got 1"),
        ({"ended_reason": None}, "line 5 is damaged: reason must be a string, got None"),
        ({"started_steps": "9"}, "line 1 is damaged: steps must be an integer, 0 or above, got '9'"),
        ({"started_resumes": 3}, "line 1 is damaged: resumes must be a path or null, got 3"),
        ({"saved_path": 5}, "line 4 is damaged: path must be a path, got 5"),
        ({"saved_event": "salved"}, "line 4: event must be one of started, stepped, .*, got 'salved'"),
        ({"saved_v": 2}, "line 4 must have version 1, got 2"),
    ],
)
def test_each_field_of_a_log_is_checked_and_named(changed: dict[str, object], says: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", **changed)
    for read in (read_log, write_report):
        with pytest.raises(FileFormatError, match=rf"{path}: {says}"):
            read(tmp_path)


@pytest.mark.quick
def test_a_log_without_line_ends_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl")
    with path.open("ab") as file:
        file.truncate(1 << 40)  # a sparse file, which takes no space on the disk
    for read in (read_log, write_report):
        with pytest.raises(
            FileFormatError, match=r"log\.jsonl is damaged: line 6 is longer than 1048576 bytes, the limit"
        ):
            read(tmp_path)


def test_an_error_of_a_full_disk_names_the_log(tmp_path: Path) -> None:
    log, limits = tmp_path / "log.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write_bytes(b"{" + 98 * b" " + b"}")  # the line has no end, so opening the log writes a line end
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"log\.jsonl"), RunLog(log):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_report_is_one_page_with_plots_and_figures(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "a <run> & more"
    train(TrainArgs(data, run, config(120, evaluation=EvaluationArgs(every=40))))
    written = write_report(run)
    assert [path.name for path in written] == ["loss.png", "learning_rate.png", "gradient_norm.png", "report.html"]
    for path in written[:3]:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width > 600 and height > 300
    page = written[3].read_text(encoding="utf-8")
    assert "<h1>a &lt;run&gt; &amp; more</h1>" in page
    assert not re.search(r'(src|href)="(?!data:)', page), "the page must not refer to other files"
    last = [event for event in read_log(run / "log.jsonl") if event["event"] == "evaluated"][-1]
    assert f"{last['loss']:.4f}" in page
    assert page.count("data:image/png;base64,") == 3
    assert "[optimizer]" in page


def test_a_report_of_a_run_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TinyNNValueError, match=r"has no log\.jsonl"):
        write_report(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(TinyNNValueError, match="contains no training steps yet"):
        write_report(tmp_path)


def test_tensorboard_files_contain_every_figure(data: Path, tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event as Record

    seen: list[Event] = []
    with TensorBoardView(tmp_path / "tb") as view:
        train(TrainArgs(data, tmp_path / "run", config(5)), [view, seen.append])
    (file,) = (tmp_path / "tb").iterdir()
    content, records = file.read_bytes(), []
    # a TFRecord consists of u64 length, u32 checksum of the length, the record, u32 checksum of the record
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        records.append(Record.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    values = [(record.step, value.tag, value.simple_value) for record in records for value in record.summary.value]
    steps = [event for event in seen if isinstance(event, Stepped)]
    expected = [(event.step, "train/loss", pytest.approx(event.loss)) for event in steps]
    assert [value for value in values if value[1] == "train/loss"] == expected
    assert {tag for _, tag, _ in values} == {
        "train/loss", "train/learning_rate", "train/gradient_norm", "train/tokens_per_second",
        "validation/loss", "validation/perplexity", "validation/bits_per_byte",
    }  # fmt: skip
