"""Make the builds that the determinism matrix compares: compilers, build types, ways to install, Python versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from paths import ROOT

# Candidates for each kind of compiler, as (C compiler, C++ compiler); the first pair that is installed is used.
COMPILERS = {
    "gcc": [("gcc", "g++"), *((f"gcc-{n}", f"g++-{n}") for n in range(20, 10, -1))],
    "clang": [("clang", "clang++"), *((f"clang-{n}", f"clang++-{n}") for n in range(25, 12, -1))],
}
OLDEST_MINOR, NEWEST_MINOR = 10, 20  # Python 3.10 to 3.19; versions that are not installed are skipped


class NotRunError(Exception):
    """A cell cannot be computed on this machine; the message is the reason."""


class BuildFailedError(NotRunError):
    """toynn does not build with an installed compiler. This is a defect of toynn, not of the machine."""


@dataclass(frozen=True)
class Installed:
    """An installed toynn: its interpreter, and `toynn.build_info()` with the Python version."""

    python: Path
    info: dict[str, str]


def output_of(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Return the output of a command. Raise NotRunError with the last line of the output if the command fails."""
    done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode()
    if done.returncode != 0:
        lines = text.strip().splitlines() or [f"exit status {done.returncode}"]
        print(text, file=sys.stderr)
        raise NotRunError(f"{Path(command[0]).name}: {lines[-1]}")
    return text


def installed(python: Path) -> Installed:
    """Return the toynn that is installed for an interpreter."""
    code = (
        "import json, platform, toynn; print(json.dumps({**toynn.build_info(), 'python': platform.python_version()}))"
    )
    info: dict[str, str] = json.loads(output_of(python, "-c", code))
    return Installed(python, info)


@dataclass
class Builds:
    """Make each build once. The build folders are kept, so a later run compiles only changed files."""

    folder: Path
    _made: dict[str, Installed | NotRunError] = field(default_factory=dict)
    _wheels: dict[str, Path | NotRunError] = field(default_factory=dict)

    def editable(self) -> Installed:
        """Return the toynn of the interpreter that runs this script."""
        return installed(Path(sys.executable))

    def of(self, compiler: str, build_type: str, python: Path | None = None, from_sdist: bool = False) -> Installed:
        """Build a wheel with a compiler and install it for an interpreter, by default the running interpreter."""
        python = python or Path(sys.executable)
        name = f"{compiler}-{build_type}{'-sdist' if from_sdist else ''}"
        key = f"{name}-{interpreter_version(python)}"
        if name not in self._wheels:
            try:
                self._wheels[name] = self._wheel(name, compiler, build_type, from_sdist)
            except NotRunError as why:
                self._wheels[name] = why
        wheel = self._wheels[name]
        if isinstance(wheel, NotRunError):
            raise wheel
        if key not in self._made:
            try:
                self._made[key] = self._install(key, python, wheel)
            except NotRunError as why:
                self._made[key] = why
        made = self._made[key]
        if isinstance(made, NotRunError):
            raise made
        kind = {"gcc": "GNU", "clang": "Clang"}[compiler]
        if not made.info["compiler"].startswith(kind) or made.info["build_type"] != build_type:
            raise AssertionError(f"{key} was not built with {kind} as {build_type}: {made.info}")
        return made

    def _wheel(self, name: str, compiler: str, build_type: str, from_sdist: bool) -> Path:
        cc, cxx = found_compiler(compiler)
        folder = self.folder / name
        shutil.rmtree(folder / "wheel", ignore_errors=True)
        if from_sdist:  # all files of an sdist have the same old date, so ninja would not detect a change
            shutil.rmtree(folder / "build", ignore_errors=True)
        source = self._unpacked_sdist() if from_sdist else ROOT
        settings = [f"build-dir={folder / 'build'}", f"cmake.build-type={build_type}", "install.strip=true"]
        arguments = [argument for setting in settings for argument in ("--config-setting", setting)]
        env = {key: value for key, value in os.environ.items() if key not in ("CFLAGS", "CXXFLAGS", "LDFLAGS")}
        print(f"building {name}", file=sys.stderr, flush=True)
        arguments += ["--outdir", str(folder / "wheel"), str(source)]
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", *arguments]
        try:
            output_of(*build, env={**env, "CC": cc, "CXX": cxx})
        except NotRunError as why:
            raise BuildFailedError(f"{name} does not build: {why}") from why
        (wheel,) = (folder / "wheel").glob("*.whl")
        return wheel

    def _unpacked_sdist(self) -> Path:
        folder = self.folder / "sdist"
        shutil.rmtree(folder, ignore_errors=True)
        output_of(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT)
        (sdist,) = folder.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            shutil.unpack_archive(sdist, folder / "unpacked")
            return folder / "unpacked" / archive.getnames()[0].split("/")[0]

    def _install(self, key: str, python: Path, wheel: Path) -> Installed:
        venv = self.folder / "venv" / key
        output_of(python, "-m", "venv", "--clear", venv)
        own = venv / "bin" / "python"
        output_of(own, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", wheel)
        return installed(own)


def found_compiler(kind: str) -> tuple[str, str]:
    for cc, cxx in COMPILERS[kind]:
        if shutil.which(cc) and shutil.which(cxx):
            return cc, cxx
    raise NotRunError(f"{kind} is not installed")


def interpreter_version(python: Path) -> str:
    return output_of(python, "-c", "import platform; print(platform.python_version())").strip()


def found_pythons(named: Iterable[Path]) -> dict[str, Path]:
    """Return interpreters by version: the running interpreter, the named ones, and all that start from PATH."""
    on_path = (shutil.which(f"python3.{minor}") for minor in range(OLDEST_MINOR, NEWEST_MINOR))
    found: dict[str, Path] = {}
    for python in [Path(sys.executable), *named, *(Path(path) for path in on_path if path)]:
        try:
            version = interpreter_version(python)
        except NotRunError:
            continue  # a version manager may put commands on PATH for versions that are not installed
        minor = ".".join(version.split(".")[:2])
        if int(minor.split(".")[1]) >= OLDEST_MINOR and not any(v.startswith(f"{minor}.") for v in found):
            found[version] = python
    return found
