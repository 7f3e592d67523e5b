"""Start a Python program of toynn as a child process that has one end of a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from multiprocessing.connection import Connection

# The child gets the module search path of this process before it imports other modules. multiprocessing.Process is not
# used, because it would run the user's main program again in the child.
_START = "import sys; file, _, *sys.path = sys.argv[1:]; import runpy; runpy.run_path(file, run_name='__main__')"


def start_child(
    program: Path, theirs: Connection, task: str, environment: Mapping[str, str], messages: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start a program and return its process. The caller closes its own copy of `theirs` and ends the process.

    program: the path of the Python file.
    theirs: the end of the pipe for the child, which finds its file descriptor in sys.argv[2].
    task: the task of the child, for a message.
    messages: the file or pipe that receives stderr of the child.

    Raises OSError if the process cannot be started.
    """
    import subprocess  # a slow import, which most models do not need

    if not sys.executable:
        raise OSError(
            f"{task} needs a second Python process, but sys.executable is empty; set sys.executable to the path of "
            "the Python interpreter"
        )
    return subprocess.Popen(
        [sys.executable, "-c", _START, str(program), str(theirs.fileno()), *map(str, sys.path)],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=messages,
        env=dict(environment),
    )
