"""vendor/populate.py creates the ggml tree, or its error says what to do. These tests do not need a network."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from paths import ROOT

POPULATE = ROOT / "vendor" / "populate.py"
TOP = "libggml_python-1.0/"

# The smallest ggml tree that populate.py accepts, and some files that populate.py must not keep.
TREE = {
    "ggml/CMakeLists.txt": "project(ggml)",
    "ggml/LICENSE": "MIT",
    "ggml/include/ggml.h": "// ggml",
    "ggml/cmake/common.cmake": "",
    "ggml/src/ggml.c": "int ggml;",
    "ggml/src/ggml-cpu/ggml-cpu.c": "int cpu;",
    "ggml/src/ggml-cpu/arch/x86/quants.c": "int quants;",
    "ggml/src/ggml-cuda/ggml-cuda.cu": "not kept",
    "ggml/tests/test-opt.cpp": "not kept",
    "CMakeLists.txt": "not kept",
}
KEPT = {name.removeprefix("ggml/"): text for name, text in TREE.items() if text != "not kept"}


def make_sdist(path: Path, files: Mapping[str, str], extra: tarfile.TarInfo | None = None) -> Path:
    """Write a source distribution with reproducible bytes."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(TOP + name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        if extra is not None:
            archive.addfile(extra, io.BytesIO(b"x" * extra.size))
    path.write_bytes(gzip.compress(tar.getvalue(), mtime=0))
    return path


class Vendor:
    """A temporary vendor folder whose lock names a small sdist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "vendor"
        self.folder.mkdir()
        self.tree = self.folder / "ggml"
        self.lock = self.folder / "ggml.lock"
        self.sdist = folder / "libggml_python-1.0.tar.gz"
        self.pin(TREE)

    def pin(self, files: Mapping[str, str], extra: tarfile.TarInfo | None = None) -> None:
        """Create the sdist and write its hash to the lock."""
        make_sdist(self.sdist, files, extra)
        sha256 = hashlib.sha256(self.sdist.read_bytes()).hexdigest()
        self.lock.write_text(f"package = libggml-python\nversion = 1.0 # of a test\nsha256 = {sha256}\n")

    def populate(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Run populate, by default with the local sdist and without access to a package index."""
        offline = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder),
            "TOYNN_GGML_SDIST": str(self.sdist),
        }
        return subprocess.run(
            [sys.executable, str(POPULATE), "--lock", str(self.lock), "--vendor", str(self.folder)],
            env={**os.environ, **offline, **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def populated(self) -> Vendor:
        done = self.populate()
        assert done.returncode == 0, done.stderr
        return self

    def files(self) -> dict[str, str]:
        """Return the files of the tree, without the stamp."""
        paths = [path for path in self.tree.rglob("*") if path.is_file() and path.name != ".toynn-stamp"]
        return {path.relative_to(self.tree).as_posix(): path.read_text() for path in paths}

    def leftovers(self) -> set[str]:
        """Return the names of all files in the vendor folder, except the lock and the tree."""
        return {path.name for path in self.folder.iterdir()} - {"ggml.lock", "ggml"}


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that populate failed with an error that contains all the words, and without a traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


# ---------------------------------------------------------------- the tree


def test_only_files_for_the_cpu_build_are_kept(vendor: Vendor) -> None:
    vendor.populated()
    assert vendor.files() == KEPT
    assert vendor.leftovers() == set()


def test_a_complete_tree_is_not_changed_and_needs_no_source(vendor: Vendor) -> None:
    before = vendor.populated().tree.stat().st_ino
    vendor.sdist.unlink()
    done = vendor.populate(TOYNN_GGML_SDIST="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert vendor.tree.stat().st_ino == before


def test_the_tree_of_this_build_is_the_complete_pinned_one() -> None:
    done = subprocess.run([sys.executable, str(POPULATE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_ggml_licence_in_our_packages_is_that_of_the_source() -> None:
    assert (ROOT / "vendor" / "LICENSE.ggml").read_bytes() == (ROOT / "vendor" / "ggml" / "LICENSE").read_bytes()


# ---------------------------------------------------------------- incomplete trees


def test_a_tree_with_a_missing_file_is_created_again_with_a_notice(vendor: Vendor) -> None:
    (vendor.populated().tree / "src" / "ggml.c").unlink()
    done = vendor.populate()
    assert done.returncode == 0
    assert "incomplete: 1 of 7 files are missing, for example src/ggml.c. It is created again." in done.stdout
    assert vendor.files() == KEPT
    assert vendor.leftovers() == set()


def test_a_tree_without_its_stamp_is_created_again_with_a_notice(vendor: Vendor) -> None:
    vendor.tree.mkdir()
    (vendor.tree / "CMakeLists.txt").write_text("half a ggml")
    done = vendor.populate()
    assert done.returncode == 0
    assert "incomplete: its stamp .toynn-stamp is missing. It is created again." in done.stdout
    assert vendor.files() == KEPT


def test_a_tree_of_another_release_is_created_again_when_the_lock_changes(vendor: Vendor) -> None:
    vendor.populated().pin({**TREE, "ggml/src/ggml.c": "int newer;"})
    done = vendor.populate()
    assert done.returncode == 0
    assert "made from another source than the lock file names" in done.stdout
    assert vendor.files()["src/ggml.c"] == "int newer;"


def test_the_error_for_an_incomplete_tree_without_a_source_names_both_problems(vendor: Vendor) -> None:
    (vendor.populated().tree / "LICENSE").unlink()
    refused(
        vendor.populate(TOYNN_GGML_SDIST=""),
        "vendor/ggml is not usable: it is incomplete: 1 of 7 files are missing, for example LICENSE",
        "could not be downloaded",
        "TOYNN_GGML_SDIST=path/to/libggml_python-1.0.tar.gz",
    )


def test_a_changed_tree_is_refused_and_not_overwritten(vendor: Vendor) -> None:
    edited = vendor.populated().tree / "src" / "ggml.c"
    edited.write_text("int mine;")
    refused(vendor.populate(), "src/ggml.c", "ggml is built unmodified", "remove the folder", "build again")
    assert edited.read_text() == "int mine;"


def test_an_added_file_in_the_tree_is_refused_and_not_removed(vendor: Vendor) -> None:
    """A header added to include/ would be compiled, and the hashes of the unpacked files would not show it."""
    strange = vendor.populated().tree / "include" / "stdlib.h"
    strange.write_text("int mine;")
    refused(
        vendor.populate(), "do not belong to ggml", "include/stdlib.h", "ggml is built unmodified", "remove the folder"
    )
    assert strange.read_text() == "int mine;"


# ---------------------------------------------------------------- missing or wrong sources


def test_a_file_with_another_hash_is_refused(vendor: Vendor) -> None:
    make_sdist(vendor.sdist, {**TREE, "ggml/src/ggml.c": "int evil;"})
    found = hashlib.sha256(vendor.sdist.read_bytes()).hexdigest()
    refused(
        vendor.populate(),
        "is not the pinned ggml source",
        f"found:    {found}",
        "Do not use it. Download libggml_python-1.0.tar.gz",
        "vendor/ggml.lock",
    )
    assert not vendor.tree.exists()
    assert vendor.leftovers() == set()


def test_a_download_with_another_hash_is_refused(vendor: Vendor) -> None:
    make_sdist(vendor.folder / vendor.sdist.name, {**TREE, "ggml/src/ggml.c": "int evil;"})
    refused(vendor.populate(TOYNN_GGML_SDIST=""), "not the pinned ggml source", "It is not used.", "pip config list")
    assert not vendor.tree.exists()


def test_a_source_variable_without_a_file_is_refused(vendor: Vendor) -> None:
    refused(
        vendor.populate(TOYNN_GGML_SDIST="nowhere.tar.gz"),
        "TOYNN_GGML_SDIST names nowhere.tar.gz, which is not a file",
        "or unset it to download the sdist",
    )


def test_the_error_without_a_network_says_what_to_do(vendor: Vendor) -> None:
    refused(
        vendor.populate(TOYNN_GGML_SDIST=""),
        "could not be downloaded: no network",
        "build again with a network",
        "pip download --no-deps --no-binary libggml-python libggml-python==1.0",
        "build with TOYNN_GGML_SDIST=path/to/libggml_python-1.0.tar.gz",
        "the sdist of toynn, or install its wheel",
        "pip said:",
    )
    assert not vendor.tree.exists()
    assert vendor.leftovers() == set()


def test_an_index_that_does_not_answer_is_reported_as_no_network(vendor: Vendor) -> None:
    done = vendor.populate(
        TOYNN_GGML_SDIST="",
        PIP_NO_INDEX="0",
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_RETRIES="0",
        PIP_TIMEOUT="2",
    )
    refused(done, "could not be downloaded: no network", "TOYNN_GGML_SDIST=path/to/")


def test_the_error_without_pip_says_what_to_do(vendor: Vendor, tmp_path: Path) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit(1)")
    refused(
        vendor.populate(TOYNN_GGML_SDIST="", PYTHONPATH=str(tmp_path)),
        "no pip",
        "ensurepip",
        "TOYNN_GGML_SDIST=path/to",
    )


def test_the_environment_of_the_download_does_not_contain_our_build_backend(vendor: Vendor, tmp_path: Path) -> None:
    """The pip that builds toynn sets these variables. The pip that downloads ggml must not inherit them."""
    (tmp_path / "pip.py").write_text(
        "import os, sys\n"
        "if '--version' not in sys.argv:\n"
        "    found = [key for key in os.environ if 'PEP517' in key or 'PYPROJECT' in key]\n"
        "    sys.exit(f'found {found}')\n"
    )
    ours = {"PEP517_BUILD_BACKEND": "ours", "PEP517_BACKEND_PATH": "here", "_PYPROJECT_HOOKS_BACKEND_PATH": "here"}
    refused(vendor.populate(TOYNN_GGML_SDIST="", PYTHONPATH=str(tmp_path), **ours), "found []")


def test_a_file_that_is_not_an_archive_is_refused(vendor: Vendor) -> None:
    vendor.sdist.write_bytes(b"<html>login to the hotel's network</html>")
    sha256 = hashlib.sha256(vendor.sdist.read_bytes()).hexdigest()
    vendor.lock.write_text(f"package = libggml-python\nversion = 1.0\nsha256 = {sha256}\n")
    refused(vendor.populate(), "libggml_python-1.0.tar.gz could not be unpacked")
    assert not vendor.tree.exists()


def test_an_archive_without_ggml_in_it_is_refused(vendor: Vendor) -> None:
    vendor.pin({name: text for name, text in TREE.items() if name != "ggml/src/ggml.c"})
    refused(vendor.populate(), "libggml_python-1.0/ggml/src/ggml.c is missing", "vendor/ggml.lock must name a release")
    assert not vendor.tree.exists()


def test_a_lock_without_its_hash_is_refused(vendor: Vendor) -> None:
    vendor.lock.write_text("package = libggml-python\nversion = 1.0\n")
    refused(vendor.populate(), "lacks sha256", "git checkout -- vendor/ggml.lock")


# ---------------------------------------------------------------- hostile archives


@pytest.mark.parametrize(
    "name",
    [f"{TOP}ggml/include/../../../../escaped.h", "/escaped.h", f"{TOP}ggml/include/..\\escaped.h", "../escaped.h"],
)
def test_a_member_outside_the_folder_is_refused(vendor: Vendor, name: str, tmp_path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.size = 1
    vendor.pin(TREE, member)
    refused(vendor.populate(), "would be written outside vendor/ggml", "escaped.h", "check its origin")
    assert not vendor.tree.exists()
    assert vendor.leftovers() == set()
    assert not list(tmp_path.rglob("*escaped.h"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_a_device_is_refused(vendor: Vendor, kind: bytes) -> None:
    member = tarfile.TarInfo(f"{TOP}ggml/include/sly.h")
    member.type = kind
    member.linkname = "/etc/passwd"
    vendor.pin(TREE, member)
    refused(vendor.populate(), "neither a file nor a folder", "sly.h", "check its origin")
    assert not vendor.tree.exists()
