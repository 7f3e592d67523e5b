"""Python programs in child processes, so that a crash is a failed test and not the end of the test run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

PRELUDE = f'''
import os, resource, signal, sys, threading
sys.path.append({str(Path(__file__).parent)!r})
import numpy as np
from engines import realized, weights_of
from toynn import *
from toynn import tinynn as nn

def slowly_refused():
    """Return a session whose compute takes some time and then fails, because two ids name one row."""
    n = 4_000_000
    s = Session(n_threads=1)
    w, r = (nn.tnn_input_2d_f32_persistent(s, n, 1) for _ in range(2))
    ids = nn.tnn_input_1d_i32_persistent(s, n)
    nn.tnn_finalize_weights(s)
    order = np.random.default_rng(0).permutation(n).astype(np.int32)
    order[-1] = order[0]
    nn.tnn_upload_from_int_array(s, ids, order)
    nn.tnn_realize(s, nn.tnn_set_rows(s, w, r, ids))
    return s
'''


def run_with_toynn(script: str, timeout: float = 120) -> str:
    """Run a script after PRELUDE, and return its output. Raise AssertionError unless the exit status is 0."""
    done = run_python(PRELUDE + textwrap.dedent(script), timeout=timeout)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_python(code: str, *, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script without PRELUDE, with changes to the environment, and return the completed process."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
