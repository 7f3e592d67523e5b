"""The time since the process of a command was started."""

from __future__ import annotations

import builtins
import subprocess
import sys
import time

import pytest

from toynn.cli import process_start

pytestmark = pytest.mark.quick

_CHILD = """
import time
time.sleep(0.5)  # stands for the imports before the call; uses no CPU time
from toynn.cli.process_start import remember_start, reserved_seconds, seconds_since_start
remember_start()
print(seconds_since_start(), reserved_seconds())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process started")
def test_a_command_knows_when_its_process_was_started() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    since, reserved = map(float, done.stdout.split())
    assert 0.45 < since < time.monotonic() - began + 0.1
    assert reserved > 2 * since


def test_without_the_time_of_the_start_the_cpu_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError

    before = time.process_time()
    monkeypatch.setattr(builtins, "open", refuse)
    age = process_start._age()
    monkeypatch.undo()
    assert before <= age <= time.process_time()


def test_a_program_that_uses_toynn_reserves_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_start, "_began", None)
    assert (process_start.seconds_since_start(), process_start.reserved_seconds()) == (0, 0)
