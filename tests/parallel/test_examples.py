"""The containers of examples/containers and the Slurm script of docs/scaling.md."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from commands import SMALL, TOYNN
from mpi import MPICH, environment, launch
from paths import ROOT
from small_runs import make_data

# A replacement for ssh, which records the name of the host and runs the command on this machine.
SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
echo "$1" >> "$HOSTS_REACHED"
shift
exec sh -c "$*"
"""


def command_of_compose_file() -> list[str]:
    """Return the command of the container `train`."""
    text = (ROOT / "examples" / "containers" / "compose.yaml").read_text(encoding="utf-8")
    (command,) = re.findall(r"command: \[(mpiexec, .*)\]", text)
    return [word.strip('"') for word in command.split(", ")]


@pytest.mark.quick
def test_the_hosts_of_the_command_are_containers() -> None:
    text = (ROOT / "examples" / "containers" / "compose.yaml").read_text(encoding="utf-8")
    command = command_of_compose_file()
    assert command[command.index("-hosts") + 1].split(",") == re.findall(r"hostname: (host\d)", text)


@pytest.mark.slow
def test_the_command_of_the_containers_starts_a_process_on_each_host(tmp_path: Path) -> None:
    make_data(tmp_path / "data")
    ssh, reached = tmp_path / "ssh", tmp_path / "reached"
    ssh.write_text(SSH, encoding="utf-8")
    ssh.chmod(0o755)
    command = command_of_compose_file()
    at = command.index("toynn")
    options = [
        *SMALL,
        *command[at + 1 :][command[at + 1 :].index("--set") :],
        "--set",
        "train.steps=3",
        "--threads",
        "1",
    ]
    train = [*TOYNN, *command[at + 1 : command.index("--set")], *options]
    variables = {"HYDRA_LAUNCHER": "ssh", "HYDRA_LAUNCHER_EXEC": str(ssh), "HOSTS_REACHED": str(reached)}
    done = subprocess.run(
        [launch(MPICH, 2)[0], *command[1:at], *train],
        cwd=tmp_path,
        env=environment(MPICH, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(reached.read_text().split()) == ["host1", "host2"]
    assert (tmp_path / "run" / "latest").read_text() == "step-00000003\n"


@pytest.mark.quick
def test_the_slurm_script_is_a_shell_script() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(#!/bin/bash.*?)^```", page, re.DOTALL | re.MULTILINE)
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "srun --kill-on-bad-exit=1" in script
