"""The texts on which `make sweep` and `make scaling-law` train, as data folders."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import toynn
from benchmarks.program_process import ROOT, ProgramError

VOCABULARY = 2048  # tokens
# the git tree of the source code; it is fixed, so that later commits do not change the corpora
_SOURCES = "5249389f84498913580f5c52e5c9b9881383e7eb"
_FOLDERS = ("docs", "src", "csrc")
_ENDS = (".md", ".py", ".c", ".h")
STORIES, SOURCES = "stories", "sources"
CORPORA = {
    STORIES: "the stories of examples/data/corpus.txt, which a grammar wrote",
    SOURCES: f"documentation, Python and C sources of this repository (the git tree {_SOURCES[:8]})",
}


def data_folder(name: str, work: Path) -> Path:
    """Return the data folder of a corpus inside `work`. Make the folder if it does not exist.

    Raises ProgramError if the repository lacks the sources, for example in a shallow clone.
    """
    folder = work / "data" / name
    if (folder / "meta.json").exists():
        return folder
    texts = [ROOT / "examples" / "data" / "corpus.txt"] if name == STORIES else _sources(work / "texts")
    toynn.prepare(texts, folder, vocab_size=VOCABULARY, progress=False)
    return folder


def _sources(folder: Path) -> list[Path]:
    """Write the files of the git tree _SOURCES into a folder, one file for each document, and return their paths."""
    command = ["git", "archive", "--format=tar", _SOURCES, *_FOLDERS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode != 0:
        raise ProgramError(
            f"git has no tree {_SOURCES}, whose files are the corpus {SOURCES!r}; use a complete clone of the "
            f"repository, or leave this corpus out ({found.stderr.decode(errors='replace').strip()})"
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as tar:
        for member in sorted(tar.getmembers(), key=lambda one: one.name):
            file = tar.extractfile(member) if member.name.endswith(_ENDS) else None
            if file is not None:
                path = folder / f"{member.name.replace('/', '_')}.txt"
                path.write_bytes(file.read())
                paths.append(path)
    return paths
