"""The figures of an event, by the names under which TensorBoard, Weights & Biases and MLflow show them."""

from __future__ import annotations

import dataclasses
import math
import re

from toynn.errors import SessionError
from toynn.training.events import Evaluated, Event, PairFigures, Rescheduled, Stepped
from toynn.training.sources import distinct

_FIGURES: dict[type[Event], tuple[str, tuple[str, ...]]] = {
    Stepped: ("train", ("loss", "learning_rate", "gradient_norm", "tokens_per_second")),
    Evaluated: ("validation", ("loss", "perplexity", "bits_per_byte")),
}
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_. -]")  # characters of a source's name that MLflow refuses in names


def figures_of(event: Event) -> dict[str, float]:
    """Return the figures of an event by name, for example "train/loss". A figure that is unknown (NaN) is left out."""
    group, names = _FIGURES.get(type(event), ("", ()))
    values = {f"{group}/{name}": float(getattr(event, name)) for name in names}
    if isinstance(event, Stepped | Evaluated):
        of_pairs = {f"{group}/{one.name}": getattr(event, one.name) for one in dataclasses.fields(PairFigures)}
        values |= {name: float(value) for name, value in of_pairs.items() if value is not None}
    if isinstance(event, Evaluated):
        names = distinct(_NOT_IN_NAMES.sub("_", name) for name in event.sources)
        for name, loss, tokens in zip(names, event.source_losses, event.source_tokens, strict=True):
            values |= {f"validation/loss of {name}": math.nan if loss is None else loss}
            values |= {f"train/tokens of {name}": float(tokens)}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def not_started(view: object) -> SessionError:
    """Return the error for a view that receives another event before Started."""
    return SessionError(
        f"{type(view).__name__} must receive the event Started before other events; pass it to `train` as a callback"
    )


def texts_of(event: Event) -> list[str]:
    """Return the texts that the model wrote at an evaluation, each with its prompt."""
    if not isinstance(event, Evaluated):
        return []
    return [f"{prompt}{text}" for prompt, text in zip(event.prompts, event.samples, strict=True)]


def figures_in_words(event: Evaluated) -> str:
    """Return the figures of an evaluation besides its loss, as the end of a line for the user."""
    if event.reward_margin is not None and event.reward_accuracy is not None:
        return f", reward margin {event.reward_margin:.4f}, accuracy {event.reward_accuracy:.1%}"
    bits = "" if math.isnan(event.bits_per_byte) else f", {event.bits_per_byte:.3f} bits/byte"
    return f", perplexity {event.perplexity:.5g}{bits}"


def new_end_in_words(event: Rescheduled) -> str:
    """Return a line for the user about the new last step of a run with train.seconds."""
    what = "the learning rate begins to fall" if len(event.falls) == 1 else "the speed has changed"
    return f"step {event.step}: {what}, the last step is {event.steps}"


def fields_of(figures: PairFigures | None) -> dict[str, float]:
    """Return the figures of preference pairs as fields of an event; {} without figures."""
    return {} if figures is None else dataclasses.asdict(figures)
