"""Compute what the page of `toynn watch` shows about a run, from the events of its log."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from toynn.text.terminal_text import terminal_text
from toynn.training.diagnosis import advice_in_log
from toynn.training.run_log import planned_steps

_MOST_POINTS = 500  # largest number of points of a curve; a longer curve shows the means of neighbouring steps
_RECENT = 200  # number of last steps from which the speed is computed
_REWARDS = ("reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy")
_MOST_EVALUATIONS = 20  # number of last evaluations whose texts are shown

Event = Mapping[str, Any]


def watch_data(events: Sequence[Event]) -> dict[str, Any]:
    """Return the figures and curves of a run as JSON values. events: as `read_log` returns them."""
    started = next((event for event in reversed(events) if event["event"] == "started"), None)
    steps = [event for event in events if event["event"] == "stepped"]
    evaluated = [event for event in events if event["event"] == "evaluated"]
    ended = events[-1] if events and events[-1]["event"] == "ended" else None
    best = min(evaluated, key=lambda event: float(event["loss"]), default=None)
    last = steps[-1] if steps else None
    step = last["step"] if last is not None else started["step"] if started is not None else 0
    figures = {
        "state": ended["reason"] if ended is not None else "waiting" if started is None else "training",
        "step": step,
        "steps": planned_steps(events),
        "epoch": None if last is None else last.get("epoch"),
        "tokens": None if last is None else last["tokens"],
        "parameters": None if started is None else started["parameters"],
        "loss": None if last is None else last["loss"],
        "reward_margin": None if last is None else last.get("reward_margin"),
        "reward_accuracy": None if last is None else last.get("reward_accuracy"),
        "best_loss": None if best is None else best["loss"],
        "best_step": None if best is None else best["step"],
        "tokens_per_second": _speed(steps),
        "seconds_left": _seconds_left(events, started, step) if ended is None else 0.0,
        "time": events[-1]["time"] if events else None,
        "config": None if started is None else started["config"],
    }
    curves = {
        "loss": _curve(steps, "loss"),
        "validation": [[event["step"], event["loss"]] for event in evaluated],
        "learning_rate": _curve(steps, "learning_rate"),
        "gradient_norm": _curve(steps, "gradient_norm"),
        "tokens_per_second": _curve(steps, "tokens_per_second"),
    }
    for name in _REWARDS:
        curves[name] = _curve([event for event in steps if event.get(name) is not None], name)
        curves[f"validation_{name}"] = [
            [event["step"], event[name]] for event in evaluated if event.get(name) is not None
        ]
    return {
        "figures": figures,
        "curves": curves,
        "advice": [{"step": one.step, "text": str(one)} for one in advice_in_log(events)],
        "sources": _sources(evaluated),
        "texts": _texts(evaluated),
    }


def _speed(steps: Sequence[Event]) -> float | None:
    """Return the tokens per second of the last steps, without evaluations and checkpoints."""
    return statistics.median(step["tokens_per_second"] for step in steps[-_RECENT:]) if steps else None


def _seconds_left(events: Sequence[Event], started: Event | None, step: int) -> float | None:
    """Return the expected time of the remaining steps, with their evaluations and checkpoints. None if unknown."""
    if started is None:
        return None
    since = max(i for i, event in enumerate(events) if event is started)
    steps = [event for event in events[since:] if event["event"] == "stepped"][-_RECENT:]
    if len(steps) < 2:
        return None
    planned = planned_steps(events)
    if planned is None:
        return None
    seconds = (_time(steps[-1]) - _time(steps[0])).total_seconds() / (len(steps) - 1)
    return max(seconds, 0.0) * max(planned - step, 0)


def _time(event: Event) -> dt.datetime:
    """Return the time of an event; the start of 1970 if the log does not contain a valid one."""
    try:
        time = dt.datetime.fromisoformat(event["time"])
    except (KeyError, TypeError, ValueError):
        time = dt.datetime(1970, 1, 1)
    return time if time.tzinfo is not None else time.replace(tzinfo=dt.timezone.utc)


def _curve(steps: Sequence[Event], field: str) -> list[list[float]]:
    """Return the points (step, value) of a curve, at most _MOST_POINTS. Each point is the mean of consecutive steps."""
    width = -(-len(steps) // _MOST_POINTS) or 1
    parts = [steps[i : i + width] for i in range(0, len(steps), width)]
    return [[part[-1]["step"], statistics.fmean(step[field] for step in part)] for part in parts]


def _sources(evaluated: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the validation loss of each source at the last evaluation, and the training tokens read from it."""
    if not evaluated:
        return []
    last = evaluated[-1]
    columns = [last.get(field, ()) for field in ("sources", "source_losses", "source_tokens")]
    return [
        {"name": terminal_text(name), "loss": loss, "tokens": tokens}
        for name, loss, tokens in zip(*columns, strict=False)
    ]


def _texts(evaluated: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the texts that the model wrote at the last evaluations, the newest first."""
    return [
        {"step": event["step"], "prompt": terminal_text(prompt), "text": terminal_text(text)}
        for event in reversed(evaluated[-_MOST_EVALUATIONS:])
        for prompt, text in zip(event.get("prompts", ()), event.get("samples", ()), strict=False)
    ]
