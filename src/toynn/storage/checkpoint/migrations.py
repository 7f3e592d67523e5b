"""The versions of a checkpoint's meta.json, and the functions that convert an older version to the next one.

A new key with a default in `CheckpointMeta`, or in a class that it uses, like `ModelShape`, needs no new version: a
file without the key gets the default. Every other change needs a new version. To make one, add a function here that
converts the plain JSON, and add a run that the new version has recorded to tests/fixtures/runs.
"""

from __future__ import annotations

from typing import Any

from toynn.errors import TinyNNValueError
from toynn.storage.formats import Format


def _describe_the_whole_shape_in_model(meta: dict[str, Any]) -> None:
    """Convert version 1 to 2: move "untied" and "qkv_bias" into "model", so that "model" is a `ModelShape`."""
    model = meta.get("model")
    if not isinstance(model, dict):
        return  # the error is reported when the result is read as version 2
    for key in ("untied", "qkv_bias"):
        if key not in meta:
            raise TinyNNValueError(f"the key {key!r} is missing")
        if key in model:
            raise TinyNNValueError(f"unknown key {'model.' + key!r}")
        model[key] = meta.pop(key)


CHECKPOINT = Format("toynn-checkpoint", migrations=(_describe_the_whole_shape_in_model,))
