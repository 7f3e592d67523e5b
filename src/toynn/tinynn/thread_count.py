"""The number of threads that a session computes with: from an argument, from the environment, or all cores."""

from __future__ import annotations

import os

from toynn.arguments import boolean, int32
from toynn.errors import TinyNNValueError
from toynn.tinynn.calls.build import tnn_available_cores

__all__: list[str] = []  # users of toynn.tinynn need nothing from here


def thread_count(n_threads: object, oversubscribe: object) -> tuple[int, bool]:
    """Return the number of threads, and whether it may exceed the number of cores."""
    over = boolean("oversubscribe", oversubscribe) or oversubscribe_from_environment()
    if n_threads is not None:
        return _checked("n_threads", int32("n_threads", n_threads), over), over
    value = os.environ.get("TOYNN_N_THREADS", "").strip()
    if not value:
        return tnn_available_cores(), over
    name = "the environment variable TOYNN_N_THREADS"
    if not (value.isascii() and value.isdecimal()):
        raise TinyNNValueError(f"{name} must be an integer, got {value!r:.60}")
    if len(value.lstrip("0")) > 9:
        raise TinyNNValueError(
            f"{name} must be at most {tnn_available_cores()} (the number of cores for this process), got {value:.60}"
        )
    return _checked(name, int(value[-9:]), over), over


def _checked(name: str, count: int, oversubscribe: bool) -> int:
    cores = tnn_available_cores()
    if count < 1:
        raise TinyNNValueError(f"{name} must be at least 1, got {count}")
    if count > cores and not oversubscribe:
        raise TinyNNValueError(f"{name} must be at most {cores} (the number of cores for this process), got {count}")
    return count


def oversubscribe_from_environment() -> bool:
    value = os.environ.get("TOYNN_OVERSUBSCRIBE", "").strip()
    if value not in ("", "0", "1"):
        raise TinyNNValueError(f"the environment variable TOYNN_OVERSUBSCRIBE must be 0 or 1, got {value!r}")
    return value == "1"
