"""ModelShape: the sizes and variants that define the weights of a model and its computation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from toynn.arguments import boolean, integer, one_of
from toynn.documented_fields import documented
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.config import SmolLM2Config

# The architectures, each with the fields of a shape that have the same value in all its models.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": False, "no_rope_interval": 0},
    "qwen2": {"qkv_bias": True, "qk_norm": False, "no_rope_interval": 0},
    "qwen3": {"qkv_bias": False, "qk_norm": True, "no_rope_interval": 0},
    "smollm3": {"qkv_bias": False, "qk_norm": False},
}


@dataclass(frozen=True)
class ModelShape(SmolLM2Config):
    """The sizes of a model, as in `SmolLM2Config`, and its variants. It is the one value passed between modules.

    A field that is added here becomes a key of the section [model] and a field of checkpoints without further changes.

    Raises TinyNNTypeError or TinyNNValueError, which name the field.
    """

    untied: bool = documented(False, "the output matrix is a weight of its own, not the embedding")
    qkv_bias: bool = documented(False, "the projections q, k and v have biases")
    architecture: str = documented(
        "llama",
        "family of the model: llama, qwen2 (with qkv_bias), qwen3 (with qk_norm) or smollm3 (with no_rope_interval)",
    )
    qk_norm: bool = documented(False, "each head of q and k is normalized before RoPE (RMSNorm)")
    no_rope_interval: int = documented(0, "layers n, 2 n, 3 n and so on have no RoPE; 0: all layers have it")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("untied", "qkv_bias", "qk_norm"):
            object.__setattr__(self, name, boolean(name, getattr(self, name)))
        object.__setattr__(self, "no_rope_interval", integer("no_rope_interval", self.no_rope_interval, 0))
        for name, only in ARCHITECTURES[one_of("architecture", self.architecture, tuple(ARCHITECTURES))].items():
            if (value := getattr(self, name)) != only:
                raise TinyNNValueError(f"{name} must be {only} with architecture = {self.architecture!r}, got {value}")
        if self.architecture == "smollm3" and self.no_rope_interval == 0:
            raise TinyNNValueError("no_rope_interval must be at least 1 with architecture = 'smollm3', got 0")
        if self.donor_d_in > 0 and not self.untied:
            raise TinyNNValueError(
                f"donor_d_in = {self.donor_d_in} needs untied = True, because a frozen embedding cannot be the "
                "output matrix too"
            )

    def has_rope(self, layer: int) -> bool:
        """Return whether a layer, counted from 0, rotates its queries and keys by their positions."""
        return self.no_rope_interval == 0 or (layer + 1) % self.no_rope_interval != 0

    @classmethod
    def of(cls, cfg: SmolLM2Config, *, untied: bool | None = None, qkv_bias: bool | None = None) -> ModelShape:
        """Return the shape of `cfg` with these variants. None means the variant of `cfg` if it is a ModelShape,
        otherwise False.

        All checks run again, because the fields of `cfg` may have been changed after its construction. Raises
        TinyNNValueError for a variant that differs from that of `cfg`.
        """
        if not isinstance(cfg, SmolLM2Config):
            raise TinyNNTypeError(f"cfg must be a SmolLM2Config, got {type(cfg).__name__}")
        values = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg) if field.init}
        variants = {"untied": untied, "qkv_bias": qkv_bias}
        given = {name: boolean(name, value) for name, value in variants.items() if value is not None}
        for name, value in given.items():
            if values.get(name, value) != value:
                raise TinyNNValueError(
                    f"{name} = {value} contradicts cfg, which has {name} = {values[name]}; leave {name} out or "
                    "give both the same value"
                )
        return ModelShape(**{**values, **given})
