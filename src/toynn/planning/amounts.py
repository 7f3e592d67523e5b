"""Read amounts with a unit: a time like "1h30m", a number of parameters like "2M", a memory size like "4GB"."""

from __future__ import annotations

import re

from toynn.arguments import float64, shown
from toynn.errors import TinyNNValueError

SHORTEST_TIME, LONGEST_TIME = 5.0, 30 * 86400.0  # seconds
_FEWEST_PARAMETERS, _MOST_PARAMETERS = 1e4, 1e10
_LEAST_MEMORY, _MOST_MEMORY = 1e6, 1e15  # bytes
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_TIME = re.compile(r"(?:([0-9.]+)d)?(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?", re.ASCII)
_THOUSANDS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_BYTES = {
    **{f"{letter}{b}": 1e3**power for letter, power in _POWERS.items() for b in ("", "b")},
    **{f"{letter}ib": 1024.0**power for letter, power in _POWERS.items() if letter},
}
_NUMBER = re.compile(r"([0-9.]+) ?([a-z]*)", re.ASCII)


def seconds_of(name: str, value: object) -> float:
    """Return a time in seconds. value: a number of seconds, or a text like "90s", "20m", "1h30m" or "2d".

    Raises TinyNNTypeError if the value has another type, or TinyNNValueError if a text has another form or the time is
    outside 5 s to 30 days. Both errors name the argument `name`.
    """
    seconds = _seconds(value.strip().lower()) if isinstance(value, str) else float64(name, value)
    if seconds is None or not SHORTEST_TIME <= seconds <= LONGEST_TIME:
        raise TinyNNValueError(
            f'{name} must be a time from 5s to 30d, like "90s", "20m" or "1h30m", got {_short(value)}'
        )
    return seconds


def _seconds(text: str) -> float | None:
    match = _TIME.fullmatch(text)
    if match is None or not text:
        return _float(text)
    parts = [None if part is None else _float(part) for part in match.groups()]
    if any(given is not None and part is None for given, part in zip(match.groups(), parts, strict=True)):
        return None
    return sum(unit * part for unit, part in zip(_SECONDS.values(), parts, strict=True) if part is not None)


def parameters_of(name: str, value: object) -> int:
    """Return a number of parameters. value: a number, or a text like "500k" or "1.5M".

    Raises the errors of `seconds_of`; the number must be from 10 thousand to 10 billion.
    """
    number = _scaled(value, _THOUSANDS) if isinstance(value, str) else float64(name, value)
    if number is None or not _FEWEST_PARAMETERS <= number <= _MOST_PARAMETERS:
        raise TinyNNValueError(
            f'{name} must be a number of parameters from 10k to 10G, like "500k" or "2M", got {_short(value)}'
        )
    return round(number)


def bytes_of(name: str, value: object) -> int:
    """Return a memory size in bytes. value: a number of bytes, or a text like "500MB", "4GB" or "4GiB".

    Raises the errors of `seconds_of`; the size must be from 1 MB to 1000 TB.
    """
    number = _scaled(value, _BYTES) if isinstance(value, str) else float64(name, value)
    if number is None or not _LEAST_MEMORY <= number <= _MOST_MEMORY:
        raise TinyNNValueError(
            f'{name} must be a memory size from 1MB to 1000TB, like "500MB" or "4GB", got {_short(value)}'
        )
    return round(number)


def _scaled(text: str, units: dict[str, float]) -> float | None:
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None or match[2] not in units:
        return None
    number = _float(match[1])
    return None if number is None else number * units[match[2]]


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _short(value: object) -> str:
    return f"{value!r:.40}" if isinstance(value, str) else shown(value)


def time_in_words(seconds: float) -> str:
    """Return a time as a text like "45 s", "12 min 30 s" or "1 h 30 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def parameters_in_words(parameters: float) -> str:
    """Return a number of parameters as a short text, like "2.1 M"."""
    return f"{parameters / 1e6:.3g} M" if parameters >= 1e5 else f"{parameters:.0f}"
