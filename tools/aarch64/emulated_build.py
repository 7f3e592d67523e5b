"""Build toynn for aarch64 on an x86-64 machine, and run it there in an emulator (qemu-user).

Everything is written below one folder: a root file system with the system's own distribution for arm64, the wheel, the
Python packages, and two commands that run in the emulator. Packages come from the package sources that apt and pip of
this machine are configured with. Files that exist already are used again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT

# The necessary programs, and the Debian package of each program.
PROGRAMS = {
    "qemu-aarch64-static": "qemu-user-static",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "mmdebstrap": "mmdebstrap",
}
SYSTEM_PACKAGES = "python3,libpython3-dev,libstdc++6,coreutils,bash"
TEST_PACKAGES = ["hypothesis>=6.100", "psutil>=5.9", "pyelftools>=0.31", "pytest>=8.0"]

TOOLCHAIN = """\
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_SYSROOT "{sysroot}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
"""

# With -0, sys.executable is this script, so a child process of Python also runs in the emulator.
COMMAND = """\
#!/bin/sh
export PYTHONPATH="{packages}:{toynn}" PYTHONDONTWRITEBYTECODE=1 PYTHONHOME=/usr
exec qemu-aarch64-static -L "{sysroot}" -0 "{python}" "{sysroot}/usr/bin/{version}" {arguments}"$@"
"""
RUN_TOYNN = "-c 'from toynn.cli.start import main; main()' "


class AArch64Error(Exception):
    """The build for aarch64 is not possible on this machine. The message is one line that says what to do."""


@dataclass(frozen=True)
class EmulatedBuild:
    """The commands of an aarch64 build. They run in the emulator."""

    python: Path
    toynn: Path


def emulated_build(folder: Path) -> EmulatedBuild:
    """Return a build of this source tree for aarch64, made in `folder`. Raise AArch64Error if that is not possible."""
    _want_programs()
    folder.mkdir(parents=True, exist_ok=True)
    sysroot = _sysroot(folder)
    wheel = _wheel(folder, sysroot)
    version = _python_version(sysroot)
    packages = folder / "packages"
    if not packages.exists():
        _install(folder, packages, version, f"{wheel}[cli,interop]", *TEST_PACKAGES)
    toynn = folder / "toynn"
    shutil.rmtree(toynn, ignore_errors=True)
    _install(folder, toynn, version, "--no-deps", str(wheel))
    shutil.rmtree(packages / "toynn", ignore_errors=True)  # this copy of toynn may be from an earlier source tree
    commands = EmulatedBuild(folder / "bin" / "python3", folder / "bin" / "toynn")
    for path, arguments in ((commands.python, ""), (commands.toynn, RUN_TOYNN)):
        path.parent.mkdir(exist_ok=True)
        text = COMMAND.format(
            packages=packages, toynn=toynn, sysroot=sysroot, python=commands.python, version=version,
            arguments=arguments,
        )  # fmt: skip
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    return commands


def run(what: str, *command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command without showing its output. Raise AArch64Error with the last line of the output if it fails."""
    print(what, file=sys.stderr, flush=True)
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
        raise AArch64Error(f"{what}: {Path(command[0]).name} failed: {lines[-1]}")


def _want_programs() -> None:
    packages = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if packages:
        raise AArch64Error(
            f"make aarch64 needs programs that are not installed; run: apt-get install {' '.join(packages)}"
        )


def _sysroot(folder: Path) -> Path:
    """Make and return the root file system: the distribution of this machine, for arm64. No arm64 program is run."""
    sysroot = folder / "sysroot"
    if sysroot.exists():
        return sysroot
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))]
    archive, unpacked = folder / "sysroot.tar", folder / "sysroot.part"
    run(
        "Fetching the system's packages for arm64",
        "mmdebstrap", "--variant=extract", "--architectures=arm64", f"--include={SYSTEM_PACKAGES}", _codename(),
        archive, *(path for path in sources if path.is_file()),
    )  # fmt: skip
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    # Device files are not needed, and only root can create them.
    run("Unpacking them", "tar", "-x", "-f", archive, "-C", unpacked, "--no-same-owner", "--exclude=./dev/*")
    archive.unlink()
    return unpacked.rename(sysroot)


def _codename() -> str:
    """Return the release of this machine's distribution, for example bookworm."""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise AArch64Error("make aarch64 needs a distribution with apt, but /etc/os-release has no VERSION_CODENAME")


def _python_version(sysroot: Path) -> str:
    """Return the name of the interpreter in the root file system, for example python3.11."""
    return (sysroot / "usr" / "bin" / "python3").readlink().name


def _wheel(folder: Path, sysroot: Path) -> Path:
    """Return the wheel of this source tree. The build folder is kept, so only changed files are compiled again."""
    toolchain, wheels = folder / "toolchain.cmake", folder / "wheel"
    text = TOOLCHAIN.format(sysroot=sysroot)
    if not toolchain.exists() or toolchain.read_text(encoding="utf-8") != text:
        toolchain.write_text(text, encoding="utf-8")
    shutil.rmtree(wheels, ignore_errors=True)
    settings = {
        "build-dir": folder / "cmake",
        "cmake.define.CMAKE_TOOLCHAIN_FILE": toolchain,
        "cmake.define.Python_INCLUDE_DIR": sysroot / "usr" / "include" / _python_version(sysroot),
    }
    env = {key: value for key, value in os.environ.items() if key not in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS")}
    # the build uses cmake and ninja of the virtual environment
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env["_PYTHON_HOST_PLATFORM"] = "linux-aarch64"  # the platform in the wheel's name
    run(
        "Building the wheel for aarch64",
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", wheels,
        *(part for key, value in settings.items() for part in ("--config-settings", f"{key}={value}")), ROOT,
        env=env,
    )  # fmt: skip
    (wheel,) = wheels.glob("*_aarch64.whl")
    return wheel


def _install(folder: Path, target: Path, version: str, *what: str) -> None:
    """Install packages for the interpreter of the root file system in the new folder `target`.

    An error removes the folder.
    """
    part = folder / f"{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    platforms = ["linux_aarch64", "manylinux2014_aarch64", *(f"manylinux_2_{n}_aarch64" for n in range(17, 37))]
    run(
        f"Installing {target.name}",
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", part,
        "--python-version", version.removeprefix("python"), "--implementation", "cp", "--only-binary=:all:",
        *(part for platform in platforms for part in ("--platform", platform)), *what,
    )  # fmt: skip
    part.rename(target)
