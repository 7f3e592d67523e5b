"""The texts on which `make scaling-law` trains and on which `make bench-plan` tests plans, as data folders.

The grammar of tools/corpus writes the stories. The grammar comes from a fixed git tree of this repository, so that
later changes of the grammar do not change the texts.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import toynn
from benchmarks.program_process import ROOT, ProgramError
from benchmarks.sweep_corpora import SOURCES, STORIES, VOCABULARY
from benchmarks.sweep_corpora import data_folder as folder_of_corpus

_GRAMMAR = "9e51358b10e92e43854db08486eb392e624f2971"  # the git tree of tools/corpus from which the stories are made
MEGABYTES = {"stories-0.3MB": 0.3, "stories-2MB": 2.0, "stories-20MB": 20.0}
TEXTS = (*MEGABYTES, STORIES, SOURCES)
NEW = "new-"  # prefix of the names of texts with other stories of the same grammar
_FIRST_NEW = 1_000_000  # number of the first new story of each schema

# Writes stories of all schemas in turn until the file has enough bytes. Arguments: folder, file, bytes, first number.
_WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from grammar.schemas import SCHEMAS
from grammar.telling import Teller
wanted, written, number = int(sys.argv[3]), 0, int(sys.argv[4])
with open(sys.argv[2], "w", encoding="ascii", newline="\\n") as file:
    while written < wanted:
        for name, schema in SCHEMAS.items():
            teller = Teller(f"{name}:{number}")
            schema(teller)
            written += file.write(f"{teller.text()}\\n<|endoftext|>\\n")
        number += 1
"""


def data_folder(name: str, work: Path) -> Path:
    """Return the data folder of a text inside `work`. Make the folder if it does not exist.

    Raises ProgramError if the repository lacks the tree of the grammar, for example in a shallow clone.
    """
    size = MEGABYTES.get(name.removeprefix(NEW))
    if size is None:
        return folder_of_corpus(name, work)
    folder = work / "data" / name
    if not (folder / "meta.json").exists():
        first = _FIRST_NEW if name.startswith(NEW) else 0
        text = _stories(work / "texts", name, round(1e6 * size), first)
        toynn.prepare([text], folder, vocab_size=VOCABULARY, progress=False)
    return folder


def _stories(folder: Path, name: str, nbytes: int, first: int) -> Path:
    """Write stories into a file of at least nbytes bytes, and return its path."""
    grammar, text = folder / "grammar", folder / f"{name}.txt"
    command = ["git", "archive", "--format=tar", _GRAMMAR, "grammar"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if found.returncode != 0:
        raise ProgramError(
            f"git has no tree {_GRAMMAR}, whose grammar writes the text {name}; use a complete clone of the repository "
            f"({found.stderr.decode(errors='replace').strip()})"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as tar:
        tar.extractall(folder, filter="data")
    if not grammar.is_dir():
        raise ProgramError(f"the tree {_GRAMMAR} has no folder 'grammar'")
    made = subprocess.run(
        [sys.executable, "-c", _WRITER, str(folder), str(text), str(nbytes), str(first)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise ProgramError(f"the grammar cannot write the text {name}: {made.stderr.strip()}")
    return text
