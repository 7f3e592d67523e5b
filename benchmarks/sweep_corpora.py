"""The texts on which `make sweep` and `make scaling-law` train, as data folders.

The texts are files of a fixed git tree of this repository, so that later commits change no result.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import toynn
from benchmarks.program_process import ROOT, ProgramError

VOCABULARY = 2048  # tokens
# the git tree of the texts; it is fixed, so that later commits do not change the corpora
_TREE = "5249389f84498913580f5c52e5c9b9881383e7eb"
_STORIES = "examples/data/corpus.txt"
_FOLDERS = ("docs", "src", "csrc")
_ENDS = (".md", ".py", ".c", ".h", ".txt")
STORIES, SOURCES = "stories", "sources"
CORPORA = {
    STORIES: f"0.9 MB of stories that a grammar wrote (examples/data/corpus.txt of the git tree {_TREE[:8]})",
    SOURCES: f"documentation, Python and C sources of this repository (the git tree {_TREE[:8]})",
}


def data_folder(name: str, work: Path) -> Path:
    """Return the data folder of a corpus inside `work`. Make the folder if it does not exist.

    Raises ProgramError if the repository lacks the sources, for example in a shallow clone.
    """
    folder = work / "data" / name
    if (folder / "meta.json").exists():
        return folder
    texts = _texts([_STORIES] if name == STORIES else _FOLDERS, work / "texts" / name)
    toynn.prepare(texts, folder, vocab_size=VOCABULARY, progress=False)
    return folder


def stories() -> str:
    """Return the text of the corpus STORIES. Raises ProgramError as `data_folder` does."""
    return next(_members([_STORIES]))[1].decode("ascii")


def _texts(places: Sequence[str], folder: Path) -> list[Path]:
    """Write the texts of files and folders of the fixed tree into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in _members(places):
        path = folder / f"{name.replace('/', '_')}.txt"
        path.write_bytes(content)
        paths.append(path)
    return paths


def _members(places: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each text in files and folders of the fixed tree, sorted by name."""
    command = ["git", "archive", "--format=tar", _TREE, *places]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode != 0:
        raise ProgramError(
            f"git has no tree {_TREE}, which contains the texts of the benchmark; use a complete clone of the "
            f"repository ({found.stderr.decode(errors='replace').strip()})"
        )
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as tar:
        for member in sorted(tar.getmembers(), key=lambda one: one.name):
            file = tar.extractfile(member) if member.name.endswith(_ENDS) else None
            if file is not None:
                yield member.name, file.read()
