"""`toynn watch`: the page that follows a run, its figures, and a real browser."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

import toynn
from commands import TOYNN
from http_servers import ask, running
from preference_pairs import make_pairs
from small_runs import MODEL, config
from toynn import TrainArgs
from toynn.serve.watch_app import watch_app
from toynn.serve.watch_data import watch_data
from toynn.training import EvaluationArgs, StepArgs
from toynn.training.run_log import read_log

PROMPT = "<script>document.title = 'changed'</script>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("watch") / "a <run>"
    evaluation = EvaluationArgs(every=5, prompts=(PROMPT,), sample_tokens=4)
    wider = dataclasses.replace(MODEL, ctx=64)
    toynn.train(TrainArgs(data, made, config(10, evaluation=evaluation, model=wider)))
    return made


def event(kind: str, step: int, second: int = 0, **fields: Any) -> dict[str, Any]:
    values = {"loss": 1.0, "learning_rate": 0.1, "gradient_norm": 2.0, "tokens": 10 * step, "tokens_per_second": 5.0}
    return {"event": kind, "step": step, "time": f"2026-01-01T00:{second // 60:02}:{second % 60:02}+00:00", **values,
            **fields}  # fmt: skip


def started(step: int, second: int = 0) -> dict[str, Any]:
    return event("started", step, second, steps=2000, parameters=7, config="x = 1", inits=None)


# ---- figures ----


def test_the_figures_are_those_of_the_log(run: Path) -> None:
    events = read_log(run)
    steps = [one for one in events if one["event"] == "stepped"]
    evaluated = [one for one in events if one["event"] == "evaluated"]
    found = watch_data(events)
    figures, curves = found["figures"], found["curves"]
    assert (figures["state"], figures["step"], figures["steps"], figures["seconds_left"]) == ("done", 10, 10, 0.0)
    assert (figures["loss"], figures["epoch"]) == (steps[-1]["loss"], steps[-1]["epoch"])
    assert figures["tokens"] == steps[-1]["tokens"]
    assert figures["best_loss"] == min(one["loss"] for one in evaluated)
    assert curves["loss"] == [[one["step"], one["loss"]] for one in steps]
    assert curves["validation"] == [[one["step"], one["loss"]] for one in evaluated]
    assert [one["step"] for one in found["texts"]] == [10, 5]
    assert found["texts"][0]["prompt"] == PROMPT


def test_the_time_left_is_that_of_the_last_steps_of_the_present_process() -> None:
    events = [started(0), event("stepped", 1, 1), event("stepped", 2, 600), started(2, 700)]
    assert watch_data(events)["figures"]["seconds_left"] is None
    events += [event("stepped", 2 + i, 700 + 3 * i) for i in range(1, 6)]
    found = watch_data(events)["figures"]
    assert found["seconds_left"] == 3 * (2000 - 7)
    assert found["state"] == "training"
    broken = [*events[:-1], {**events[-1], "time": "never"}]
    assert watch_data(broken)["figures"]["seconds_left"] >= 0


def test_a_long_curve_has_the_means_of_neighbouring_steps() -> None:
    events = [started(0), *(event("stepped", i, loss=float(i)) for i in range(1, 1601))]
    curve = watch_data(events)["curves"]["loss"]
    assert len(curve) == 400
    assert curve[0] == [4, 2.5]
    assert curve[-1] == [1600, 1598.5]


def test_a_run_that_has_not_started_is_waiting() -> None:
    found = watch_data([])
    assert (found["figures"]["state"], found["texts"], found["curves"]["loss"]) == ("waiting", [], [])


# ---- the server ----


def test_the_page_loads_nothing_from_other_servers(run: Path) -> None:
    with running(watch_app(run)) as port:
        page, script = ask(port, "GET", "/"), ask(port, "GET", "/watch.js")
        for answer in (page, script):
            assert answer.status == 200
            assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert re.findall(rb'(?:src|href)="([^"]*)"', page.body) == [b"/watch.js"]
        urls = re.findall(rb"https?://[^\"' ]+", page.body + script.body)
        assert set(urls) == {b"http://www.w3.org/2000/svg"}
        assert ask(port, "GET", "/progress", Host="evil.example").status == 403
        assert ask(port, "GET", "/progress", Origin="http://evil.example").status == 403


def test_the_progress_follows_the_log(run: Path, tmp_path: Path) -> None:
    with running(watch_app(tmp_path)) as port:
        assert ask(port, "GET", "/progress").json["figures"]["state"] == "waiting"
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        log = tmp_path / "log.jsonl"
        log.write_text("".join(lines[:4]), encoding="utf-8")
        first = ask(port, "GET", "/progress").json
        assert first["figures"]["state"] == "training"
        log.write_text("".join(lines), encoding="utf-8")
        found = ask(port, "GET", "/progress").json
        assert found == {"name": tmp_path.name, **json.loads(json.dumps(watch_data(read_log(run))))}
        log.write_text('{"event": "stepped", "v": 1}\n', encoding="utf-8")
        assert "the field 'step' is missing" in ask(port, "GET", "/progress").json["error"]
        log.write_text("".join(lines), encoding="utf-8")
        assert ask(port, "GET", "/progress").json == found


def test_the_command_serves_the_page_until_ctrl_c(run: Path) -> None:
    command = [*TOYNN, "watch", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(
        rf"watch {re.escape(str(run))} on http://127\.0\.0\.1:(\d+) \(Ctrl-C ends the server\)\n", line
    )
    assert found, line
    assert ask(int(found[1]), "GET", "/progress").json["name"] == "a <run>"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("the server has ended\n", "")
    assert process.returncode == 0


def in_the_browser(run: Path, profile: Path) -> str:
    """Return the page of a run as HTML, after its script has shown the figures."""
    with running(watch_app(run)) as port:
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        shown = subprocess.run(
            [str(BROWSER), *options, "--virtual-time-budget=3000", "--dump-dom", f"http://127.0.0.1:{port}/"],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
    return shown.stdout


@pytest.mark.other_programs
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_the_run_and_treats_every_text_as_text(run: Path, tmp_path: Path) -> None:
    shown = in_the_browser(run, tmp_path)
    last = [one for one in read_log(run) if one["event"] == "evaluated"][-1]
    assert "<title>toynn watch: a &lt;run&gt;</title>" in shown
    assert '<h1 id="name">a &lt;run&gt;</h1>' in shown
    assert "<dt>Step</dt><dd>10 of 10</dd>" in shown
    assert f"<b>{html.escape(PROMPT, quote=False)}</b>" in shown
    assert f"{last['loss']:.4f}".rstrip("0") in shown
    assert shown.count("<polyline") == 5
    assert "<dt>Reward margin</dt>" not in shown


@pytest.mark.other_programs
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_the_rewards_of_preference_pairs(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    steps = StepArgs(steps=4, batch=2, objective="dpo")
    chosen = config(4, model=None, train=steps, evaluation=EvaluationArgs(every=2))
    toynn.train(tmp_path / "data", tmp_path / "run", init=tmp_path / "base", config=chosen, progress=False)
    shown = in_the_browser(tmp_path / "run", tmp_path / "profile")
    margin = [one for one in read_log(tmp_path / "run") if one["event"] == "stepped"][-1]["reward_margin"]
    assert f"<dt>Reward margin</dt><dd>{margin:.4f}".rstrip("0") in shown
    captions = re.findall("<figcaption>(.*?)</figcaption>(.*?)</figure>", shown)
    counted = {caption: (part.count("<polyline"), part.count("<circle")) for caption, part in captions}
    assert counted == {
        "Loss, mean of a pair; dots: validation": (2, 2),
        "Reward margin; dots: validation": (2, 2),
        "Reward accuracy (share of pairs with a margin above 0); dots: validation": (2, 2),
        "Rewards in training; blue: chosen, orange: rejected": (2, 0),
        "Rewards in validation; blue: chosen, orange: rejected": (2, 4),
        "Learning rate": (1, 0),
        "Gradient norm before clipping": (1, 0),
        "Tokens per second": (1, 0),
    }
