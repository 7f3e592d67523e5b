"""Preference pairs that are so small that a test can train on them, and a model to start from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import toynn
from small_runs import MODEL, config


def pair_records(n: int = 40) -> list[dict[str, str]]:
    """Return n preference pairs of texts."""
    animals = ("cat", "dog", "hen")
    return [
        {
            "prompt": f"say {i % 7} of a {animals[i % 3]}. ",
            "chosen": f"the {animals[i % 3]} ran {'home ' * (i % 4)}",
            "rejected": f"no {i % 5}",
        }
        for i in range(n)
    ]


def write_lines(path: Path, records: list[Any]) -> Path:
    """Write records as JSON lines, and return the path."""
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def make_pairs(folder: Path) -> None:
    """Write into a folder: `data` with preference pairs, `texts` with the same tokenizer, and `base`, a model that was
    trained on the texts.
    """
    source = write_lines(folder / "pairs.jsonl", pair_records())
    toynn.prepare(source, folder / "data", vocab_size=300, validation=0.2, progress=False)
    texts = [{"text": one["prompt"] + one[key]} for one in pair_records() for key in ("chosen", "rejected")]
    lines = write_lines(folder / "texts.jsonl", texts)
    toynn.prepare(lines, folder / "texts", tokenizer=folder / "data", progress=False)
    shape = dataclasses.replace(MODEL, ctx=32)
    toynn.train(folder / "texts", folder / "base", config=config(30, model=shape), progress=False)
