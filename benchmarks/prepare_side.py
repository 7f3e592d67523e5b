"""Prepare data once with one program, and print the time as JSON: `python -m benchmarks.prepare_side NAME KIND FOLDER`.

The imports are not timed. All programs turn the same file into the same token ids, which are compared by their sha256.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import peak_rss
from benchmarks.prepare_data import END, TEMPLATE, TOKENIZER, file_of, separated

CONVERSATIONS, TEXTS, PLAIN = "conversations", "texts", "plain"

# The digest of the token ids, and the digest of the marks that say which tokens count ("" if all tokens count).
Digests = tuple[str, str]
# A function that does the timed work, and returns a function that computes the digests.
Program = Callable[[], Callable[[], Digests]]


def _digest(arrays: Iterable[Any], dtype: str) -> str:
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(np.asarray(values, dtype=dtype).tobytes())
    return digest.hexdigest()


def toynn_program(kind: str, folder: Path, out: Path) -> tuple[str, Program]:
    import toynn
    import toynn.api.prepare_data

    def run() -> Callable[[], Digests]:
        toynn.prepare(
            file_of(folder, kind), out / "data", tokenizer=folder / TOKENIZER, validation=0.0, eos=END,
            progress=False, chat_template=folder / TEMPLATE if kind == CONVERSATIONS else None,
        )  # fmt: skip

        def digests() -> Digests:
            split = toynn.data.DataFolder.open(out / "data").train
            return _digest([split.tokens], "<u2"), "" if split.counted is None else _digest([split.counted], "u1")

        return digests

    return f"toynn {toynn.__version__}", run


def datasets_program(kind: str, folder: Path, out: Path) -> tuple[str, Program]:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out)}
    import datasets  # type: ignore[import-untyped]
    import transformers

    datasets.disable_progress_bars()
    cores = len(os.sched_getaffinity(0))
    workers = cores if cores > 1 else None
    tokenizer: Any = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))  # type: ignore[no-untyped-call]
    tokenizer.chat_template = (folder / TEMPLATE).read_text(encoding="utf-8")
    end = tokenizer.convert_tokens_to_ids(END)

    def conversations(batch: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer.apply_chat_template(
            batch["messages"], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return {"ids": found["input_ids"], "counted": found["assistant_masks"]}

    def texts(batch: dict[str, Any]) -> dict[str, Any]:
        return {"ids": [[*ids, end] for ids in tokenizer(batch["text"], add_special_tokens=False)["input_ids"]]}

    def run() -> Callable[[], Digests]:
        rows = datasets.load_dataset("json", data_files=str(file_of(folder, kind)), split="train", cache_dir=str(out))
        call = conversations if kind == CONVERSATIONS else texts
        rows = rows.map(call, batched=True, num_proc=workers, remove_columns=rows.column_names)

        def digests() -> Digests:
            counted = _digest((row["counted"] for row in rows), "u1") if kind == CONVERSATIONS else ""
            return _digest((row["ids"] for row in rows), "<u2"), counted

        return digests

    return f"datasets {datasets.__version__}, transformers {transformers.__version__}", run


def tokenizers_program(kind: str, folder: Path, out: Path) -> tuple[str, Program]:  # noqa: ARG001
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    end = tokenizer.token_to_id(END)

    def run() -> Callable[[], Digests]:
        content = file_of(folder, kind).read_text(encoding="utf-8")
        texts = separated(content) if kind == PLAIN else [json.loads(line)["text"] for line in content.splitlines()]
        ids = [[*one.ids, end] for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
        return lambda: (_digest(ids, "<u2"), "")

    return f"tokenizers {tokenizers.__version__}", run


PROGRAMS = {"toynn": toynn_program, "datasets": datasets_program, "tokenizers": tokenizers_program}


def main() -> None:
    name, kind, folder, out, cores = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    version, run = PROGRAMS[name](kind, folder, out)
    start, cpu = time.perf_counter(), _cpu_seconds()
    digests = run()
    found = {"seconds": time.perf_counter() - start, "cpu": _cpu_seconds() - cpu, "peak_rss": peak_rss()}
    ids, counted = digests()
    print(json.dumps({**found, "version": version, "ids": ids, "counted": counted}))


def _cpu_seconds() -> float:
    """Return the seconds of CPU time of this process and of its children that have ended."""
    every = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in every)


if __name__ == "__main__":
    main()
