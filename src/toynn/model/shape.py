"""ModelShape: the sizes and variants that define the weights of a model and its computation."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from toynn.arguments import boolean, instance_of, integer, one_of, positive
from toynn.documented_fields import documented
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.config import SmolLM2Config

_NO_WINDOW = {"sliding_window": 0, "global_interval": 0, "local_rope_base": 10000.0, "query_pre_attn_scalar": 0}
# The architectures, each with the fields of a shape that have the same value in all its models.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": False, "no_rope_interval": 0, **_NO_WINDOW},
    "qwen2": {"qkv_bias": True, "qk_norm": False, "no_rope_interval": 0, **_NO_WINDOW},
    "qwen3": {"qkv_bias": False, "qk_norm": True, "no_rope_interval": 0, **_NO_WINDOW},
    "smollm3": {"qkv_bias": False, "qk_norm": False, **_NO_WINDOW},
    "gemma3": {"qkv_bias": False, "qk_norm": True, "no_rope_interval": 0},
}
# The fields that must be at least 1 in the models of an architecture.
_REQUIRED = {"smollm3": ("no_rope_interval",), "gemma3": ("sliding_window", "global_interval")}


@dataclass(frozen=True)
class ModelShape(SmolLM2Config):
    """The sizes of a model, as in `SmolLM2Config`, and its variants. Modules pass the description of a model to each
    other only as this object.

    A field that is added here becomes a key of the section [model] and a field of checkpoints without further changes.

    Raises TinyNNTypeError or TinyNNValueError, which name the field.
    """

    untied: bool = documented(False, "the output matrix is a weight of its own, not the embedding")
    qkv_bias: bool = documented(False, "the projections q, k and v have biases")
    architecture: str = documented(
        "llama",
        "family of the model: llama, qwen2 (with qkv_bias), qwen3 (with qk_norm), smollm3 (with no_rope_interval) or "
        "gemma3 (with qk_norm, sliding_window and global_interval)",
    )
    qk_norm: bool = documented(False, "each head of q and k is normalized before RoPE (RMSNorm)")
    no_rope_interval: int = documented(
        0, "with a value n, the layers n, 2 n, 3 n and so on have no RoPE; 0: all layers have RoPE"
    )
    sliding_window: int = documented(0, "size of the window of local layers in tokens; 0: no layer is local")
    global_interval: int = documented(
        0,
        "with a value n and sliding_window, the layers n, 2 n, 3 n and so on are global, and all other layers "
        "are local",
    )
    local_rope_base: float = documented(
        10000.0, "base of the rotary embedding in local layers; these layers have no RoPE scaling"
    )
    query_pre_attn_scalar: int = documented(
        0, "attention scores are divided by the square root of this number; 0 means head_dim"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("untied", "qkv_bias", "qk_norm"):
            object.__setattr__(self, name, boolean(name, getattr(self, name)))
        for name in ("no_rope_interval", "sliding_window", "global_interval", "query_pre_attn_scalar"):
            object.__setattr__(self, name, integer(name, getattr(self, name), 0))
        object.__setattr__(self, "local_rope_base", positive("local_rope_base", self.local_rope_base))
        for name, only in ARCHITECTURES[one_of("architecture", self.architecture, tuple(ARCHITECTURES))].items():
            if (value := getattr(self, name)) != only:
                raise TinyNNValueError(f"{name} must be {only} with architecture = {self.architecture!r}, got {value}")
        for name in _REQUIRED.get(self.architecture, ()):
            if getattr(self, name) == 0:
                raise TinyNNValueError(f"{name} must be at least 1 with architecture = {self.architecture!r}, got 0")
        if self.architecture == "gemma3" and self.query_pre_attn_scalar == 0:
            object.__setattr__(self, "query_pre_attn_scalar", self.head_dim)
        if self.donor_d_in > 0 and not self.untied:
            raise TinyNNValueError(
                f"donor_d_in = {self.donor_d_in} needs untied = True, because a frozen embedding cannot be the "
                "output matrix too"
            )

    def has_rope(self, layer: int) -> bool:
        """Return whether a layer, counted from 0, rotates its queries and keys by their positions."""
        return self.no_rope_interval == 0 or (layer + 1) % self.no_rope_interval != 0

    def is_local(self, layer: int) -> bool:
        """Return whether the tokens of a layer, counted from 0, see only the tokens of their window."""
        return self.sliding_window > 0 and (layer + 1) % self.global_interval != 0

    def window(self, layer: int) -> int:
        """Return the number of tokens that a token sees in a layer, including itself; 0: the token sees all tokens
        before it.
        """
        return self.sliding_window if self.is_local(layer) else 0

    @property
    def score_divisor(self) -> float:
        """The number by which attention scores are divided."""
        return math.sqrt(self.query_pre_attn_scalar or self.head_dim)

    @property
    def post_norms(self) -> bool:
        """True if the results of attention and of the feed-forward part are normalized before they are added."""
        return self.architecture == "gemma3"

    @property
    def has_gelu(self) -> bool:
        """True if the feed-forward part is gated by GELU, approximated by tanh; False if it is gated by SiLU."""
        return self.architecture == "gemma3"

    @property
    def embedding_scale(self) -> float | None:
        """The factor of the embedding, or None if the embedding is used as it is."""
        return math.sqrt(self.d_model) if self.architecture == "gemma3" else None

    def differing_field(self, other: ModelShape, ignored: str = "") -> str | None:
        """Return the name of the first field in which two shapes differ, or None. ignored: a field that may differ."""
        instance_of("other", other, ModelShape)
        names = (field.name for field in dataclasses.fields(self) if field.name != ignored)
        return next((name for name in names if getattr(self, name) != getattr(other, name)), None)

    @classmethod
    def of(cls, cfg: SmolLM2Config, *, untied: bool | None = None, qkv_bias: bool | None = None) -> ModelShape:
        """Return the shape of `cfg` with these variants. None means the variant of `cfg` if it is a ModelShape,
        otherwise False.

        All checks run again, because the fields of `cfg` may have been changed after its construction. Raises
        TinyNNValueError for a variant that differs from the variant of `cfg`.
        """
        if not isinstance(cfg, SmolLM2Config):
            raise TinyNNTypeError(f"cfg must be a SmolLM2Config, got {type(cfg).__name__}")
        values = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(cfg) if field.init}
        variants = {"untied": untied, "qkv_bias": qkv_bias}
        given = {name: boolean(name, value) for name, value in variants.items() if value is not None}
        for name, value in given.items():
            if values.get(name, value) != value:
                raise TinyNNValueError(
                    f"{name} = {value} contradicts cfg, which has {name} = {values[name]}; leave out {name}, or "
                    "give the value of cfg"
                )
        return ModelShape(**{**values, **given})
