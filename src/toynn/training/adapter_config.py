"""The section [adapter] of the configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from toynn.arguments import boolean, integer, positive
from toynn.documented_fields import documented
from toynn.errors import ConfigurationError, TinyNNValueError
from toynn.llm.adapters.model_on_base import ModelOnBase
from toynn.llm.adapters.open_base import OpenBase
from toynn.llm.adapters.spec import AdapterSpec, target_keys
from toynn.storage.checkpoint import Checkpoint
from toynn.storage.regular_files import path_of
from toynn.wording import spelled


@dataclass(frozen=True)
class AdapterArgs:
    """The low-rank adapter (LoRA) that is trained on a frozen base; see `AdapterSpec`."""

    rank: int = documented(0, "rank of the adapter (LoRA) that is trained on a frozen base; 0: no adapter")
    alpha: float = documented(16.0, "the adapter is scaled by alpha / rank")
    rslora: bool = documented(False, "use the scale alpha / sqrt(rank) (rsLoRA) instead of alpha / rank")
    targets: tuple[str, ...] = documented(
        ("q", "k", "v", "o", "gate", "up", "down"), "matrices with an adapter: q, k, v, o, gate, up, down and output"
    )
    init_seed: int | None = documented(None, "random seed of the adapter's initial values. Default: train.seed")

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", integer("adapter.rank", self.rank, 0))
        object.__setattr__(self, "alpha", positive("adapter.alpha", self.alpha))
        object.__setattr__(self, "rslora", boolean("adapter.rslora", self.rslora))
        object.__setattr__(self, "targets", target_keys(self.targets, "adapter.targets"))
        if self.init_seed is not None:
            object.__setattr__(self, "init_seed", integer("adapter.init_seed", self.init_seed, 0))

    def spec(self) -> AdapterSpec | None:
        """Return the description of the adapter, or None if there is no adapter."""
        return AdapterSpec(self.rank, self.alpha, self.rslora, self.targets) if self.rank else None

    def continuing(self, spec: AdapterSpec, path: Path) -> AdapterArgs:
        """Return a copy of these settings with the rank, alpha, rslora and targets of `spec`, the adapter to continue.

        path: the checkpoint of the adapter. Raises ConfigurationError if the user chose a setting that differs from the
        adapter.
        """
        if self.spec() == spec:
            return self
        if (own := replace(self, init_seed=None)) != AdapterArgs():
            key = next(one.name for one in fields(own) if getattr(own, one.name) != one.default)
            raise ConfigurationError(
                f"adapter.{key} = {getattr(own, key)!r} was chosen, but training continues the adapter in {path}, "
                "whose settings cannot be changed; leave out the keys of adapter"
            )
        return replace(self, rank=spec.rank, alpha=spec.alpha, rslora=spec.use_rslora, targets=spec.targets)


def checked_base(base: object, init: object) -> Path | OpenBase | None:
    """Return the base of a run as an open base or a path.

    If init is an adapter, base says where the base of the adapter is. Raises TinyNNTypeError for a base of the wrong
    type, or TinyNNValueError for a base together with an init that is not an adapter.
    """
    continues = isinstance(init, Checkpoint) and isinstance(init.contents, ModelOnBase)
    if base is not None and init is not None and not continues:
        raise TinyNNValueError(
            f"{spelled('init', '--init')} and {spelled('base', '--base')} cannot be combined: the weights of init are "
            "trained, but a base is frozen"
        )
    return base if base is None or isinstance(base, OpenBase) else path_of("base", base)
