"""Describe the machine, and measure the memory of this process."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path

_FEATURES = {"sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "sve"}


def cores() -> int:
    """Return the number of cores that this process can use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_bytes() -> int | None:
    """Return the bytes of memory that are available without swapping, or None if the system does not report them."""
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable")


def rss() -> int:
    """Return the resident bytes of this process; if the system does not report them, their maximum so far."""
    return _kilobytes(Path("/proc/self/status"), "VmRSS") or _maxrss()


def peak_rss() -> int:
    """Return the largest number of resident bytes so far."""
    # ru_maxrss is not used, because on Linux it starts with the value of the parent process.
    return _kilobytes(Path("/proc/self/status"), "VmHWM") or _maxrss()


def description() -> str:
    """Return a text with the cores, CPU features, caches and memory."""
    parts = [f"{platform.machine()}, {cores()} core(s)"]
    features = _features()
    if features:
        parts.append("CPU features " + " ".join(features))
    caches = _caches()
    if caches:
        parts.append("caches " + ", ".join(caches))
    total = _kilobytes(Path("/proc/meminfo"), "MemTotal")
    if total:
        parts.append(f"{total / 2**30:.0f} GiB of memory")
    return "; ".join(parts)


def load() -> float:
    """Return the load average of the last minute: near 0 on an idle machine."""
    return os.getloadavg()[0]


def _kilobytes(path: Path, key: str) -> int | None:
    """Return the bytes of the line `key: n kB`, or None if the file has no such line."""
    if not path.exists():
        return None
    for line in path.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def _maxrss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _features() -> list[str]:
    """Return the CPU features that affect the speed, in the order of the system."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        if line.startswith(("flags", "Features")):
            return [feature for feature in line.split(":", 1)[1].split() if feature in _FEATURES]
    return []


def _caches() -> list[str]:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return found
