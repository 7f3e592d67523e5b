"""The versions of a checkpoint's meta.json, and how the content of an older one becomes that of the next.

A new key with a default in `CheckpointMeta` (or in a class it uses, like `ModelShape`) needs no new version: files
without it take the default. Every other change needs one: add a function here that changes the plain JSON, and a run
recorded by the new version in tests/fixtures/runs.
"""

from __future__ import annotations

from typing import Any

from toynn.errors import TinyNNValueError
from toynn.storage.formats import Format


def _describe_the_whole_shape_in_model(meta: dict[str, Any]) -> None:
    """Version 1 to 2: move "untied" and "qkv_bias" into "model", which then is a `ModelShape`."""
    model = meta.get("model")
    if not isinstance(model, dict):
        return  # version 2 reports this error when it reads the result
    for key in ("untied", "qkv_bias"):
        if key not in meta:
            raise TinyNNValueError(f"the key {key!r} is missing")
        if key in model:
            raise TinyNNValueError(f"unknown key {'model.' + key!r}")
        model[key] = meta.pop(key)


CHECKPOINT = Format("toynn-checkpoint", migrations=(_describe_the_whole_shape_in_model,))
