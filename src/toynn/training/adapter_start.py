"""The start of a run that trains an adapter: its initial values, and the check that a resumed run has its base."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from toynn.errors import ConfigurationError, TinyNNTypeError, TinyNNValueError
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.llm.adapters.open_base import OpenBase, needed_base
from toynn.llm.adapters.trained_adapter import TrainedAdapter
from toynn.storage.checkpoint import Checkpoint
from toynn.training.config import TrainConfig
from toynn.wording import spelled


def checkpoint_on_base(opened: OpenBase, config: TrainConfig, out: Path, held: Checkpoint | None) -> Checkpoint:
    """Return the base with a new adapter as a checkpoint of step 0.

    held: the checkpoint that is already in the folder `out` of the run, or None.

    Raises ConfigurationError for a wrong key of [adapter], or TinyNNValueError if the folder has a checkpoint.
    """
    if held is not None:
        raise TinyNNValueError(
            f"{spelled('out', '--out')}: {out} already contains a model, so {spelled('base', '--base')} cannot be "
            f"used; use a new folder, or continue a run with {spelled('resume=True', '--resume')}"
        )
    spec = config.adapter.spec()
    if spec is None:
        raise ConfigurationError(
            "adapter.rank must be at least 1 for training on a base, got 0; to train the weights of a model, give the "
            f"model with {spelled('init=', '--init')}"
        )
    described, seed = opened.description, config.adapter.init_seed
    try:
        tensors = spec.initial(described.shape, config.train.seed if seed is None else seed)
    except TinyNNValueError as error:
        raise ConfigurationError(f"adapter.{error}") from None
    adapter = TrainedAdapter(spec, described.shape, tensors, opened.identity)
    return Checkpoint(opened.path, 0, dataclasses.replace(described, adapter=adapter), None, {})


def continued(base: Path | OpenBase | None, init: Checkpoint) -> tuple[Checkpoint, OpenBase]:
    """Return a checkpoint of step 0 with the adapter `init` on its open base. Also return this base.

    Raises TinyNNValueError if the base is missing or is a different model, or if `init` is not an adapter.
    """
    opened = base_to_resume(base, init)
    if opened is None or not isinstance(init.contents, ModelOnBase) or init.contents.adapter is None:
        raise TinyNNValueError(
            f"{spelled('init', '--init')}: {init.path} is not an adapter; give a run with an adapter"
        )
    adapter = dataclasses.replace(init.contents.adapter, base=opened.identity)
    return Checkpoint(init.path, 0, dataclasses.replace(init.contents, adapter=adapter), None, {}), opened


def base_to_resume(base: Path | OpenBase | None, held: Checkpoint) -> OpenBase | None:
    """Return the base of a resumed run, or None if the run trains no adapter.

    Raises TinyNNValueError if the base is missing or is a different model, or if the run needs no base.
    """
    needed = needed_base(held.contents, held.path, base)
    if needed is None:
        return None
    if base is None:
        raise TinyNNValueError(
            f"{held.path} is an adapter, so its base is needed; give the base with {spelled('base=', '--base')}"
        )
    opened = opened_base(base)
    opened.require(needed)
    return opened


def opened_base(base: Path | OpenBase) -> OpenBase:
    """Return `base`, which must be open. Raises TinyNNTypeError for a path: this package cannot open every format."""
    if not isinstance(base, OpenBase):
        raise TinyNNTypeError(f"base must be an OpenBase here, got the path {base}; `toynn.train` opens a path")
    return base
