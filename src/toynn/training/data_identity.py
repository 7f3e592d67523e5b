"""The identity of the data of a run, by which a resumed run recognizes its data."""

from __future__ import annotations

import hashlib

from toynn.data import DataMeta, Split
from toynn.storage.checkpoint.meta import DataIdentity


def data_identity(meta: DataMeta) -> DataIdentity:
    """Return the sha256 of the files of a data folder that determine the result of a run."""
    return DataIdentity(
        train=_of_split(meta.splits["train"]),
        validation=_of_split(meta.splits["validation"]),
        tokenizer=None if meta.tokenizer is None else meta.tokenizer.sha256,
    )


def _of_split(split: Split) -> str:
    """Return the sha256 of the only file of a split, or the sha256 of a list with the sha256 of each of its files."""
    if split.samples is None:
        return split.sha256
    files = (split.sha256, split.samples.starts_sha256, split.samples.counted_sha256 or "")
    return hashlib.sha256("\n".join(files).encode("ascii")).hexdigest()
