"""The available memory and cores respect the limits of the process's control groups and their parent groups.

A mount namespace shows other control groups to a child process. If this is not possible, the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

from toynn import tinynn as nn

NAMESPACE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
SHOWN = """
    set -e
    mount -t tmpfs none /sys/fs/cgroup
    cp -r "$1"/tree/. /sys/fs/cgroup
    mount --bind "$1"/groups /proc/$$/cgroup
    shift
    exec "$@"
"""
ASKED = "from toynn import tinynn as nn; print(nn.tnn_available_memory(), nn.tnn_available_cores())"


def shown(folder: Path, groups: str, files: dict[str, str], command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command in a process whose /proc/self/cgroup is `groups` and whose /sys/fs/cgroup contains `files`."""
    (folder / "tree").mkdir()
    (folder / "groups").write_text(groups)
    for name, text in files.items():
        path = folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arguments = [*NAMESPACE, "sh", "-c", textwrap.dedent(SHOWN), "sh", str(folder), *command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


@cache
def why_not() -> str:
    """Return why this machine cannot show other groups to a process, or "" if it can."""
    if sys.platform != "linux":
        return "only Linux has control groups"
    if shutil.which(NAMESPACE[0]) is None:
        return f"{NAMESPACE[0]} is not installed"
    probe = "mount -t tmpfs none /sys/fs/cgroup && mount --bind /dev/null /proc/$$/cgroup"
    done = subprocess.run([*NAMESPACE, "sh", "-c", probe], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"cannot create a mount namespace: {done.stderr.strip()}"


def left(folder: Path, groups: str, files: dict[str, str]) -> tuple[int, int]:
    """Return the memory and the number of cores that toynn finds available in the given groups."""
    if why := why_not():
        pytest.skip(why)
    done = shown(folder, groups, files, [sys.executable, "-c", ASKED])
    assert done.returncode == 0, done.stderr
    memory, cores = map(int, done.stdout.split())
    return memory, cores


MIB = 1 << 20


@pytest.mark.parametrize(("limited", "other"), [("slice", "slice/scope"), ("slice/scope", "slice")])
def test_a_limit_of_version_2_applies_to_its_group_and_the_groups_below(
    tmp_path: Path, limited: str, other: str
) -> None:
    files = {
        f"{limited}/memory.max": f"{300 * MIB}\n",
        f"{limited}/memory.current": f"{100 * MIB}\n",
        f"{limited}/cpu.max": "50000 100000\n",
        f"{other}/memory.max": "max\n",
        f"{other}/memory.current": f"{100 * MIB}\n",
        f"{other}/cpu.max": "max 100000\n",
    }
    assert left(tmp_path, "0::/slice/scope\n", files) == (200 * MIB, 1)


def test_the_root_group_of_a_container_is_its_own_group(tmp_path: Path) -> None:
    files = {"memory.max": f"{64 * MIB}\n", "memory.current": f"{60 * MIB}\n", "cpu.max": "100000 100000\n"}
    assert left(tmp_path, "0::/docker/0123\n", files) == (4 * MIB, 1)


def test_a_limit_of_version_1_applies(tmp_path: Path) -> None:
    none = 9223372036854771712
    files = {
        "memory/memory.limit_in_bytes": f"{none}\n",
        "memory/memory.usage_in_bytes": f"{900 * MIB}\n",
        "memory/job/memory.limit_in_bytes": f"{128 * MIB}\n",
        "memory/job/memory.usage_in_bytes": f"{28 * MIB}\n",
        "memory/job/step/memory.limit_in_bytes": f"{none}\n",
        "memory/job/step/memory.usage_in_bytes": f"{28 * MIB}\n",
        "cpu/job/cpu.cfs_quota_us": "100000\n",
        "cpu/job/cpu.cfs_period_us": "100000\n",
        "cpu/job/step/cpu.cfs_quota_us": "-1\n",
        "cpu/job/step/cpu.cfs_period_us": "100000\n",
    }
    groups = "5:devices:/\n4:memory:/job/step\n3:cpu,cpuacct:/job/step\n0::/\n"
    assert left(tmp_path, groups, files) == (100 * MIB, 1)


def test_reclaimable_file_pages_count_as_available_memory(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{256 * MIB}\n",
        "memory.current": f"{250 * MIB}\n",
        "memory.stat": f"anon {40 * MIB}\nfile {210 * MIB}\ninactive_file {200 * MIB}\nactive_file 0\n",
    }
    assert left(tmp_path, "0::/\n", files)[0] == 206 * MIB


@pytest.mark.parametrize("groups", ["", "0::", "x" * 10_000, "0::/" + "a/" * 3000 + "\n", ":::\n::\n:\n", "0::/\x01\n"])
def test_malformed_groups_do_not_limit_anything(tmp_path: Path, groups: str) -> None:
    memory, cores = left(tmp_path, groups, {"memory.max": "words\n", "memory.current": "\n", "cpu.max": "0 0\n"})
    assert memory > 256 * MIB
    assert cores == nn.tnn_available_cores()
