"""SmolLM2Config, the sizes of a model, and RopeScaling, the scaling of its rotary position embedding (RoPE)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer, one_of, positive, real, shown
from toynn.documented_fields import documented, required
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.tinynn.memory import memory_for

SCALINGS = ("none", "linear", "yarn", "llama3", "llama3_hf")


@dataclass(frozen=True, init=False)
class RopeScaling(Initialised):
    """The scaling of RoPE's angles. Make one by `none()`, `linear(...)`, `yarn(...)`, `llama3(...)` or
    `llama3_hf(...)`.

    The angle of pair i at position p is p * rope_base^(-2i / d_head) * `angle_scale` / `freq_factors`[i], and q and k
    are multiplied by `amplitude`. Positional arguments have the same order as in the Ruby project toy.

    low_freq_factor, high_freq_factor: the names of low_freq and high_freq in the Ruby project toy, as keywords and
        attributes.
    """

    kind: str = documented(
        "none", "rule of the scaling: none, linear, yarn, llama3_hf (as in Llama 3) or llama3 (a variant of it)"
    )
    freq_scale: float = documented(1.0, "multiplier of all angles; linear and yarn set it to 1 / factor")
    orig_max_pos: int = documented(
        0, "context length of the model before scaling; required with yarn; 0 means 8192 with llama3 and llama3_hf"
    )
    factor: float = documented(1.0, "divisor of the low frequencies; with linear, divisor of all frequencies")
    low_freq: float = documented(
        1.0, "llama3 and llama3_hf: wavelengths above orig_max_pos / low_freq are multiplied by factor"
    )
    high_freq: float = documented(
        4.0, "llama3 and llama3_hf: wavelengths below orig_max_pos / high_freq stay unchanged"
    )
    ext_factor: float = documented(
        0.0, "yarn: weight of the unscaled angles, at most 1 (0 means 1); other kinds: must be 0"
    )
    attn_factor: float = documented(
        1.0, "factor of the queries and keys; yarn also multiplies queries and keys by 1 + 0.1 ln(factor)"
    )
    beta_fast: float = documented(
        32.0, "yarn: RoPE pairs that rotate more than this number of times in orig_max_pos tokens keep their frequency"
    )
    beta_slow: float = documented(
        1.0,
        "yarn: the frequency of RoPE pairs that rotate less than this number of times in orig_max_pos tokens is "
        "divided by factor",
    )

    def __init__(
        self,
        kind: str = "none",
        freq_scale: float = 1.0,
        orig_max_pos: int = 0,
        factor: float = 1.0,
        low_freq: float | None = None,
        high_freq: float | None = None,
        ext_factor: float = 0.0,
        attn_factor: float = 1.0,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
        *,
        low_freq_factor: float | None = None,
        high_freq_factor: float | None = None,
    ) -> None:
        """Set and check all fields. Raises TinyNNValueError or TinyNNTypeError, which name the field."""
        values = {
            "kind": one_of("RopeScaling.kind", kind, SCALINGS),
            "freq_scale": positive("RopeScaling.freq_scale", freq_scale),
            "orig_max_pos": integer("RopeScaling.orig_max_pos", orig_max_pos, 0),
            "factor": real("RopeScaling.factor", factor, lambda x: x >= 1, "a finite number, 1 or above"),
            "low_freq": positive("RopeScaling.low_freq", _either("low_freq", low_freq, low_freq_factor, 1.0)),
            "high_freq": positive("RopeScaling.high_freq", _either("high_freq", high_freq, high_freq_factor, 4.0)),
            "ext_factor": real("RopeScaling.ext_factor", ext_factor, lambda x: 0 <= x <= 1, "from 0 to 1"),
            "attn_factor": positive("RopeScaling.attn_factor", attn_factor),
            "beta_fast": positive("RopeScaling.beta_fast", beta_fast),
            "beta_slow": positive("RopeScaling.beta_slow", beta_slow),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._derive_and_check()

    def _derive_and_check(self) -> None:
        """Set the fields that the kind determines, and refuse values that contradict the kind or each other."""
        if not self.low_freq < self.high_freq:
            raise TinyNNValueError(
                f"RopeScaling.high_freq must be above low_freq = {self.low_freq!r}, got {self.high_freq!r}"
            )
        if self.kind == "yarn":
            object.__setattr__(self, "ext_factor", self.ext_factor or 1.0)
            self._check_yarn()
        elif self.ext_factor != 0:
            raise TinyNNValueError(
                f"RopeScaling.ext_factor must be 0 with kind {self.kind!r}, because only 'yarn' uses it, got "
                f"{self.ext_factor!r}"
            )
        if self.kind in ("linear", "yarn"):
            self._derive_freq_scale()
        if self.kind in ("none", "linear"):  # files of older versions contain a meaningless number here
            object.__setattr__(self, "orig_max_pos", 0)
        elif self.orig_max_pos == 0:
            object.__setattr__(self, "orig_max_pos", 8192)

    def _check_yarn(self) -> None:
        if self.orig_max_pos == 0:
            raise TinyNNValueError("RopeScaling.orig_max_pos must be at least 1 with kind 'yarn', got 0")
        if not self.beta_slow < self.beta_fast:
            raise TinyNNValueError(
                f"RopeScaling.beta_fast must be above beta_slow = {self.beta_slow!r}, got {self.beta_fast!r}"
            )

    def _derive_freq_scale(self) -> None:
        """If only one of freq_scale and factor was given, set the other from it."""
        if self.freq_scale == 1.0:
            object.__setattr__(self, "freq_scale", 1.0 / self.factor)
        elif self.factor == 1.0 and self.freq_scale < 1.0:
            object.__setattr__(self, "factor", 1.0 / self.freq_scale)
        if not math.isclose(self.freq_scale * self.factor, 1.0, rel_tol=1e-6):
            raise TinyNNValueError(
                f"RopeScaling.freq_scale must be 1 / factor = {1.0 / self.factor!r} with kind {self.kind!r}, got "
                f"{self.freq_scale!r}"
            )

    @classmethod
    def none(cls) -> RopeScaling:
        return cls()

    @classmethod
    def linear(cls, factor: float) -> RopeScaling:
        """Return position interpolation: all angles are divided by factor."""
        return cls("linear", factor=factor)

    @classmethod
    def yarn(
        cls, factor: float, orig_max_pos: int, ext_factor: float = 1.0, attn_factor: float = 1.0,
        beta_fast: float = 32.0, beta_slow: float = 1.0,
    ) -> RopeScaling:  # fmt: skip
        """Return YaRN (Peng et al. 2023) as in ggml and transformers.

        Low frequencies are divided by factor, high frequencies stay unchanged, and queries and keys are multiplied by
        attn_factor * (1 + 0.1 ln(factor)).
        """
        return cls(
            "yarn", factor=factor, orig_max_pos=orig_max_pos, ext_factor=ext_factor, attn_factor=attn_factor,
            beta_fast=beta_fast, beta_slow=beta_slow,
        )  # fmt: skip

    @classmethod
    def llama3(
        cls, factor: float, low_freq: float | None = None, high_freq: float | None = None, orig_max_pos: int = 0, *,
        low_freq_factor: float | None = None, high_freq_factor: float | None = None,
    ) -> RopeScaling:  # fmt: skip
        """Return Llama 3's scaling as in the Ruby project toy.

        Short wavelengths keep their frequency, and the frequency of long wavelengths is divided by factor. Between
        them, the divisor of the frequency rises linearly from 1 to factor.
        """
        return cls(
            "llama3", factor=factor, low_freq=low_freq, high_freq=high_freq, orig_max_pos=orig_max_pos,
            low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor,
        )  # fmt: skip

    @classmethod
    def llama3_hf(
        cls, factor: float, low_freq: float | None = None, high_freq: float | None = None, orig_max_pos: int = 0, *,
        low_freq_factor: float | None = None, high_freq_factor: float | None = None,
    ) -> RopeScaling:  # fmt: skip
        """Return Llama 3's scaling as in Llama 3, Hugging Face (rope_type "llama3") and llama.cpp.

        Between short and long wavelengths, the frequency falls linearly from its unscaled value to that value divided
        by factor.
        """
        return cls(
            "llama3_hf", factor=factor, low_freq=low_freq, high_freq=high_freq, orig_max_pos=orig_max_pos,
            low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor,
        )  # fmt: skip

    # ---- values that a graph uses ----

    @property
    def low_freq_factor(self) -> float:
        """The name of low_freq in the Ruby project toy."""
        return self.low_freq

    @property
    def high_freq_factor(self) -> float:
        """The name of high_freq in the Ruby project toy."""
        return self.high_freq

    @property
    def angle_scale(self) -> float:
        """The factor of all angles: freq_scale, or 1 with yarn, whose factors differ from pair to pair."""
        return 1.0 if self.kind == "yarn" else self.freq_scale

    @property
    def amplitude(self) -> float:
        """The factor of q and k: attn_factor, which yarn multiplies by 1 + 0.1 ln(factor)."""
        return self.attn_factor * (1.0 + 0.1 * math.log(self.factor)) if self.kind == "yarn" else self.attn_factor

    @property
    def has_freq_factors(self) -> bool:
        """True if the divisor of an angle differs from pair to pair."""
        return self.kind in ("yarn", "llama3", "llama3_hf")

    def freq_factors(self, d_head: int, rope_base: float) -> npt.NDArray[np.float32] | None:
        """Return the divisors of the d_head/2 angles, float32, computed in float64, or None if all are 1.

        Raises TinyNNValueError or TinyNNTypeError for a wrong argument, or TinyNNMemoryError if there is not enough
        memory.
        """
        d_head, rope_base = integer("d_head", d_head, 1), positive("rope_base", rope_base)
        if not self.has_freq_factors:
            return None
        with memory_for("d_head", 40 * d_head, f"the factors of {d_head // 2} angles"):
            make = self._yarn_factors if self.kind == "yarn" else self._llama3_factors
            return make(d_head, rope_base).astype(np.float32)

    @staticmethod
    def compute_llama3_freq_factors(
        d_head: int, rope_base: float, orig_max_pos: int, factor: float, low_freq: float, high_freq: float
    ) -> npt.NDArray[np.float32]:
        """Return the divisors of the d_head/2 angles of `llama3` scaling, as `freq_factors` does: float32."""
        scaling = RopeScaling.llama3(factor, low_freq, high_freq, integer("orig_max_pos", orig_max_pos, 1))
        factors = scaling.freq_factors(d_head, rope_base)
        if factors is None:
            raise AssertionError("bug in toynn: llama3 scaling has no factors; please report it")
        return factors

    def _llama3_factors(self, d_head: int, rope_base: float) -> npt.NDArray[np.float64]:
        pair = np.arange(d_head // 2, dtype=np.float64)
        wavelength = 2.0 * math.pi * rope_base ** (2.0 * pair / d_head)
        smooth = (self.orig_max_pos / wavelength - self.low_freq) / (self.high_freq - self.low_freq)
        if self.kind == "llama3":
            factors = (1.0 - smooth) * self.factor + smooth
        else:
            factors = 1.0 / ((1.0 - np.clip(smooth, 0, 1)) / self.factor + np.clip(smooth, 0, 1))
        factors[wavelength < self.orig_max_pos / self.high_freq] = 1.0
        factors[wavelength > self.orig_max_pos / self.low_freq] = self.factor
        return factors

    def _yarn_factors(self, d_head: int, rope_base: float) -> npt.NDArray[np.float64]:
        if rope_base <= 1.0:
            raise TinyNNValueError(f"rope_base must be above 1 with yarn scaling, got {rope_base!r}")

        def pair_with(turns: float) -> float:
            """Return the index of the pair that rotates this many times in orig_max_pos tokens, as a real number."""
            return d_head * math.log(self.orig_max_pos / (turns * 2.0 * math.pi)) / (2.0 * math.log(rope_base))

        low = max(math.floor(pair_with(self.beta_fast)), 0)
        high = min(math.ceil(pair_with(self.beta_slow)), d_head - 1)
        pair = np.arange(d_head // 2, dtype=np.float64)
        unscaled = self.ext_factor * (1.0 - np.clip((pair - low) / max(high - low, 0.001), 0.0, 1.0))
        return 1.0 / ((1.0 - unscaled) / self.factor + unscaled)


def _either(name: str, value: float | None, by_reference: float | None, default: float) -> float:
    """Return the value of a field that has two names. Raises TinyNNTypeError if both names were given."""
    if value is not None and by_reference is not None:
        raise TinyNNTypeError(
            f"RopeScaling.{name} and {name}_factor are two names of one field: give only one of these names"
        )
    given = by_reference if value is None else value
    return default if given is None else given


Config = TypeVar("Config", bound="SmolLM2Config")


def _assignable(*names: str) -> Callable[[type[Config]], type[Config]]:
    """Return a decorator for a frozen dataclass, which makes these fields assignable, but not in subclasses."""

    def decorated(kind: type[Config]) -> type[Config]:
        refuse = kind.__setattr__

        def assign(self: Config, name: str, value: Any) -> None:
            if type(self) is not kind or name not in names:
                refuse(self, name, value)
                return
            object.__setattr__(self, name, getattr(replace(self, **{name: value}), name))  # replace() runs all checks

        kind.__setattr__ = assign  # type: ignore[assignment, method-assign]
        return kind

    return decorated


@_assignable("head_dim", "donor_d_in", "rope_scaling")
@dataclass(frozen=True)
class SmolLM2Config(Initialised):
    """The sizes of a model of the llama family.

    The caller can assign new values to head_dim, donor_d_in and rope_scaling, as in the Ruby project toy. The checks of
    the constructor then run again. A model copies this object, so a later assignment does not change the model. All
    other fields, and all fields of subclasses, are frozen.

    head_dim: 0 becomes d_model / n_heads in the constructor. So `dataclasses.replace(cfg, d_model=...)` keeps the old
        head size; pass `head_dim=0` too to derive it again.
    donor_d_in: if above 0, the embedding is frozen and has this width, and a trained matrix, the lens, projects it to
        d_model.
    """

    vocab: int = required("tokens of the vocabulary")
    d_model: int = required("width of the stream between layers")
    n_heads: int = required("query heads of each layer")
    n_kv: int = required("key and value heads; divides n_heads")
    d_ff: int = required("width inside the feed-forward part")
    n_layers: int = required("layers")
    ctx: int = required("context length in tokens")
    rope_base: float = required("base of the rotary embedding")
    rms_eps: float = required("epsilon of the norms")
    head_dim: int = documented(0, "size of one attention head; 0 means d_model / n_heads")
    donor_d_in: int = documented(
        0, "width of a frozen embedding that a trained matrix (the lens) projects to d_model; 0: no such embedding"
    )
    rope_scaling: RopeScaling = RopeScaling()

    def __post_init__(self) -> None:
        for name in ("vocab", "d_model", "n_heads", "n_kv", "d_ff", "n_layers", "ctx"):
            object.__setattr__(self, name, integer(name, getattr(self, name), 1))
        for name in ("head_dim", "donor_d_in"):
            object.__setattr__(self, name, integer(name, getattr(self, name), 0))
        for name in ("rope_base", "rms_eps"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        if not isinstance(self.rope_scaling, RopeScaling):
            raise TinyNNTypeError(f"rope_scaling must be a RopeScaling, got {shown(self.rope_scaling)}")
        if self.n_heads % self.n_kv:
            raise TinyNNValueError(f"n_kv must divide n_heads = {self.n_heads}, got {self.n_kv}")
        if self.head_dim == 0:
            if self.d_model % self.n_heads:
                raise TinyNNValueError(
                    f"n_heads must divide d_model = {self.d_model} when head_dim is not given, got {self.n_heads}"
                )
            object.__setattr__(self, "head_dim", self.d_model // self.n_heads)
        if self.head_dim % 2:
            raise TinyNNValueError(f"head_dim must be even, because RoPE rotates pairs, got {self.head_dim}")
        if self.n_heads * self.head_dim > INT31_MAX:
            raise TinyNNValueError(f"n_heads * head_dim must be below 2^31, got {self.n_heads} * {self.head_dim}")

    @classmethod
    def mha(
        cls, vocab: int, d_model: int, n_heads: int, d_ff: int, n_layers: int, ctx: int, rope_base: float,
        rms_eps: float, *, head_dim: int = 0, donor_d_in: int = 0, rope_scaling: RopeScaling = RopeScaling(),
    ) -> SmolLM2Config:  # fmt: skip
        """Return the sizes of a model with multi-head attention: n_kv = n_heads."""
        cls._require_vocab("mha")
        return cls(
            vocab, d_model, n_heads, n_heads, d_ff, n_layers, ctx, rope_base, rms_eps,
            head_dim=head_dim, donor_d_in=donor_d_in, rope_scaling=rope_scaling,
        )  # fmt: skip

    @classmethod
    def gqa(
        cls, vocab: int, d_model: int, n_heads: int, n_kv: int, d_ff: int, n_layers: int, ctx: int, rope_base: float,
        rms_eps: float, *, head_dim: int = 0, donor_d_in: int = 0, rope_scaling: RopeScaling = RopeScaling(),
    ) -> SmolLM2Config:  # fmt: skip
        """Return the sizes of a model with grouped-query attention: n_heads / n_kv query heads share a KV head."""
        cls._require_vocab("gqa")
        return cls(
            vocab, d_model, n_heads, n_kv, d_ff, n_layers, ctx, rope_base, rms_eps,
            head_dim=head_dim, donor_d_in=donor_d_in, rope_scaling=rope_scaling,
        )  # fmt: skip

    @classmethod
    def _require_vocab(cls, name: str) -> None:
        if not cls.__dataclass_fields__["vocab"].init:
            raise TinyNNTypeError(
                f"{cls.__name__} has no {name}(), because its vocabulary comes from the data: call "
                f"SmolLM2Config.{name}()"
            )

    @classmethod
    def tiny(cls) -> SmolLM2Config:
        cls._require_vocab("tiny")
        return cls(627, 64, 4, 4, 128, 2, 32, 10000.0, 1e-5)

    @classmethod
    def mid(cls) -> SmolLM2Config:
        cls._require_vocab("mid")
        return cls(4096, 256, 8, 8, 1024, 8, 256, 10000.0, 1e-5)

    @classmethod
    def smollm2_135m(cls) -> SmolLM2Config:
        cls._require_vocab("smollm2_135m")
        return cls(49152, 576, 9, 3, 1536, 30, 8192, 100000.0, 1e-5)
