"""Fill vendor/ggml with the CPU part of the ggml source that vendor/ggml.lock pins.

    python vendor/populate.py            # does nothing if vendor/ggml is complete
    TOYNN_GGML_SDIST=libggml_python-0.20.2.post1.tar.gz python vendor/populate.py      # without a network

The build runs this script. It uses the standard library, and `python -m pip` for the download. The tree is created by
one rename, so it is complete or does not exist. A stamp file lists every file of the tree with its sha256, so a second
run only compares the files with this list. The tree is never edited: csrc/ adds what ggml lacks.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

VENDOR = Path(__file__).resolve().parent
SDIST_ENV = "TOYNN_GGML_SDIST"
STAMP = ".toynn-stamp"

# The parts of ggml/ that the CPU build needs: whole folders, single files, and the files (not folders) directly in
# src/.
KEPT_FOLDERS = ("include", "src/ggml-cpu", "cmake")
KEPT_FILES = ("CMakeLists.txt", "LICENSE", "AUTHORS", "ggml.pc.in")
KEPT_TOP_LEVEL = "src"
# Every ggml tree has these files, so an archive without them is refused.
REQUIRED = ("CMakeLists.txt", "LICENSE", "include/ggml.h", "src/ggml.c", "src/ggml-cpu/ggml-cpu.c")


class PopulateError(Exception):
    """The source of ggml cannot be provided. The message says why, and what to do."""


def pairs_of(path: Path) -> dict[str, str]:
    """Return the values of the lock file by key. The file consists of lines `key = value`, and `#` starts a comment."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in lines if "=" in line)


@dataclass(frozen=True)
class Lock:
    """The pinned source distribution."""

    package: str
    version: str
    sha256: str

    @property
    def sdist_name(self) -> str:
        return f"{self.package.replace('-', '_')}-{self.version}.tar.gz"

    @classmethod
    def read(cls, path: Path) -> Lock:
        pairs = pairs_of(path)
        missing = [key for key in ("package", "version", "sha256") if not pairs.get(key)]
        if missing:
            raise PopulateError(f"{path} lacks {', '.join(missing)}. Restore it: git checkout -- vendor/ggml.lock")
        return cls(pairs["package"], pairs["version"], pairs["sha256"])


# ---------------------------------------------------------------- the tree and its stamp


def damage(tree: Path, lock: Lock) -> str:
    """Return a description of what is wrong with the tree, or "" if it is complete and equals the pinned source.

    Raises PopulateError if a file was edited or added.
    """
    if not tree.exists():
        return "it does not exist"
    stamp = tree / STAMP
    if not stamp.is_file():
        return f"it is incomplete: its stamp {STAMP} is missing"
    first, *lines = stamp.read_text(encoding="utf-8").splitlines() or [""]
    if first != stamp_header(lock):
        return f"it was made from another source than the lock file names: its stamp says {first!r}"
    recorded = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    absent = [name for name in recorded if not (tree / name).is_file()]
    if absent:
        return f"it is incomplete: {len(absent)} of {len(recorded)} files are missing, for example {absent[0]}"
    changed = [name for name, digest in recorded.items() if file_sha256(tree / name) != digest]
    if changed:  # these files are not overwritten, because the user may want to keep the changes
        raise PopulateError(
            f"{len(changed)} files of {tree} were changed after unpacking, for example {changed[0]}. ggml is built "
            "unmodified: additions belong in csrc/. Save your change if you need it, then remove the folder "
            f"{tree} and build again."
        )
    strange = sorted(names_of(tree) - recorded.keys())
    if strange:  # the build would include an added header
        raise PopulateError(
            f"{tree} contains {len(strange)} files that do not belong to ggml, for example {strange[0]}. ggml is built "
            f"unmodified. Move them away if you need them, then remove the folder {tree} and build again."
        )
    return ""


def names_of(tree: Path) -> set[str]:
    """Return the paths of the files in the tree, relative to it, without the stamp."""
    paths = (path.relative_to(tree).as_posix() for path in tree.rglob("*") if not path.is_dir())
    return {name for name in paths if name != STAMP}


def stamp_header(lock: Lock) -> str:
    return f"# {lock.package} {lock.version} sha256:{lock.sha256}"


def write_stamp(tree: Path, lock: Lock) -> None:
    lines = [stamp_header(lock), *(f"{file_sha256(tree / name)}  {name}" for name in sorted(names_of(tree)))]
    (tree / STAMP).write_text("\n".join(lines) + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- getting the sdist


def obtain_sdist(lock: Lock, workdir: Path) -> Path:
    """Return the path of the verified sdist: the file that the environment names, or a download."""
    named = os.environ.get(SDIST_ENV, "").strip()
    sdist = local_sdist(Path(named).expanduser()) if named else download(lock, workdir)
    verify(sdist, lock, f"the file named by {SDIST_ENV}" if named else "the downloaded file")
    return sdist


def local_sdist(path: Path) -> Path:
    if not path.is_file():
        raise PopulateError(
            f"{SDIST_ENV} names {path}, which is not a file. Set it to the path of the sdist, "
            "or unset it to download the sdist."
        )
    return path


def verify(sdist: Path, lock: Lock, what: str) -> None:
    got = file_sha256(sdist)
    if got != lock.sha256:
        raise PopulateError(
            f"{what} ({sdist.name}) is not the pinned ggml source.\n"
            f"  sha256 expected: {lock.sha256} (vendor/ggml.lock)\n"
            f"  sha256 found:    {got}\n"
            f"Do not use it. Download {lock.sdist_name} of {lock.package} {lock.version} again. To change the pinned "
            "version, change version and sha256 in vendor/ggml.lock together."
        )


def download(lock: Lock, workdir: Path) -> Path:
    """Download the sdist with the pip of this interpreter, not with the first pip on PATH."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0:
        raise PopulateError(
            "vendor/ggml must be downloaded, but this Python has no pip.\n"
            + other_ways(lock, "install pip here (python -m ensurepip)")
        )
    requirements = workdir / "requirements.txt"
    requirements.write_text(f"{lock.package}=={lock.version} --hash=sha256:{lock.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += ["--no-deps", "--no-binary", lock.package, "--dest", str(workdir), "--requirement", str(requirements)]
    say(f"downloading {lock.sdist_name}")
    done = subprocess.run(
        command, env=_own_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    sdist = workdir / lock.sdist_name
    if done.returncode == 0 and sdist.is_file():
        return sdist
    if "DO NOT MATCH THE HASHES" in done.stdout:
        raise PopulateError(
            f"the package index returned a {lock.sdist_name} that is not the pinned ggml source (sha256 {lock.sha256} "
            "in vendor/ggml.lock). It is not used. Check whether pip uses another index or a mirror: pip config list\n"
            + quoted(done.stdout)
        )
    raise PopulateError(
        f"the ggml source ({lock.sdist_name}) could not be downloaded: no network, or not in the package index.\n"
        + other_ways(lock, "build again with a network")
        + quoted(done.stdout)
    )


def _own_environment() -> dict[str, str]:
    """Return the environment without the variables that pip sets for a build backend.

    The pip that downloads ggml runs inside that build, and would use them too.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith(("PEP517_", "_PYPROJECT_HOOKS_"))}


def other_ways(lock: Lock, first: str) -> str:
    return (
        "Do one of these:\n"
        f"  - {first};\n"
        "  - on a machine with a network, run\n"
        f"      pip download --no-deps --no-binary {lock.package} {lock.package}=={lock.version}\n"
        f"    copy the file to this machine, and build with {SDIST_ENV}=path/to/{lock.sdist_name};\n"
        "  - build from the sdist of toynn, or install its wheel: they contain ggml and download nothing.\n"
    )


def quoted(output: str) -> str:
    tail = output.strip().splitlines()[-6:]
    return "pip said:\n" + "\n".join(f"  | {line}" for line in tail)


# ---------------------------------------------------------------- unpacking


def is_kept(path: PurePosixPath) -> bool:
    """Return whether the CPU build needs this file of ggml/."""
    name = path.as_posix()
    in_folder = any(name.startswith(folder + "/") for folder in KEPT_FOLDERS)
    return in_folder or name in KEPT_FILES or path.parent.as_posix() == KEPT_TOP_LEVEL


def unpack(sdist: Path, lock: Lock, tree: Path) -> None:
    """Write the needed files of ggml/ in the sdist to `tree`, which must not exist yet."""
    prefix = PurePosixPath(lock.sdist_name.removesuffix(".tar.gz"), "ggml")
    try:
        with tarfile.open(sdist, "r:gz") as archive:
            for member in archive:
                refuse_unsafe(member)
                path = PurePosixPath(member.name)
                if not member.isfile() or prefix not in path.parents or not is_kept(path.relative_to(prefix)):
                    continue
                source = archive.extractfile(member)
                assert source is not None  # None only if the member is not a regular file
                target = tree / path.relative_to(prefix)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise PopulateError(f"{sdist.name} could not be unpacked into {tree.parent}: {error}") from error
    absent = [name for name in REQUIRED if not (tree / name).is_file()]
    if absent:
        raise PopulateError(
            f"{sdist.name} does not contain the expected ggml tree: {prefix}/{absent[0]} is missing. "
            "vendor/ggml.lock must name a release with the folder ggml/ at its top level."
        )


def refuse_unsafe(member: tarfile.TarInfo) -> None:
    """Raise PopulateError for a member that is a link or that would be written outside the target folder."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise PopulateError(
            f"the archive contains a file that would be written outside vendor/ggml: {member.name!r}. It was not "
            "unpacked. It is not a release of ggml: check its origin and vendor/ggml.lock."
        )
    if not (member.isfile() or member.isdir()):
        raise PopulateError(
            f"the archive contains a member that is neither a file nor a folder: {member.name!r}. It was not "
            "unpacked. It is not a release of ggml: check its origin and vendor/ggml.lock."
        )


# ---------------------------------------------------------------- populating


def populate(vendor: Path, lock: Lock) -> bool:
    """Make vendor/ggml complete. Return False if it was already complete."""
    tree = vendor / "ggml"
    wrong = damage(tree, lock)
    if not wrong:
        return False
    if tree.exists():
        say(f"{tree} is not usable: {wrong}. It is created again.")
    with tempfile.TemporaryDirectory(prefix=".populate-", dir=vendor) as work:
        workdir = Path(work)
        try:
            sdist = obtain_sdist(lock, workdir)
            unpack(sdist, lock, workdir / "ggml")
        except PopulateError as error:
            if tree.exists():
                raise PopulateError(
                    f"vendor/ggml is not usable: {wrong}; and it could not be created again, because\n{error}"
                ) from error
            raise
        write_stamp(workdir / "ggml", lock)
        move_into_place(workdir / "ggml", tree, workdir / "old", lock)
    return True


def move_into_place(fresh: Path, tree: Path, old: Path, lock: Lock) -> None:
    if not damage(tree, lock):
        return  # another build created the tree meanwhile
    with contextlib.suppress(FileNotFoundError):
        tree.rename(old)
    fresh.rename(tree)


def say(text: str) -> None:
    print(f"populate: {text}", flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--lock", type=Path, default=VENDOR / "ggml.lock", help="path of the lock file (default: vendor/ggml.lock)"
    )
    parser.add_argument(
        "--vendor", type=Path, default=VENDOR, help="folder in which ggml/ is created (default: vendor/)"
    )
    arguments = parser.parse_args(argv)
    try:
        lock = Lock.read(arguments.lock)
        made = populate(arguments.vendor, lock)
    except (PopulateError, OSError) as error:
        print(f"populate: {error}", file=sys.stderr)
        return 1
    if made:
        say(f"{arguments.vendor / 'ggml'} contains ggml from {lock.package} {lock.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
