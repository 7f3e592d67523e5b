"""SmolLM2Config, the sizes of a model, and RopeScaling, the scaling of its rotary position embedding (RoPE)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, integer, one_of, positive, real, shown
from toynn.documented_fields import documented, required
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.tinynn.memory import memory_for


@dataclass(frozen=True)
class RopeScaling(Initialised):
    """The scaling of RoPE's angles. Make one with `RopeScaling.none()`, `RopeScaling.llama3(...)` or
    `RopeScaling.llama3_hf(...)`.

    The fields from freq_scale to beta_slow are arguments of ggml's operator rope_ext. The fields from factor to
    orig_max_pos are the parameters of Llama 3's scaling.
    """

    kind: str = documented("none", "rule of the scaling: none, llama3_hf (as in Llama 3) or llama3 (a variant of it)")
    freq_scale: float = documented(1.0, "factor of all angles (ggml's rope_ext)")
    ext_factor: float = documented(0.0, "must be 0: YaRN is not supported (ggml's rope_ext)")
    attn_factor: float = documented(1.0, "factor of the queries and keys (ggml's rope_ext)")
    beta_fast: float = documented(32.0, "has no effect, because YaRN is not supported (ggml's rope_ext)")
    beta_slow: float = documented(1.0, "has no effect, because YaRN is not supported (ggml's rope_ext)")
    factor: float = documented(1.0, "divisor of the low frequencies (llama3, llama3_hf)")
    low_freq: float = documented(
        1.0, "wavelengths above orig_max_pos / low_freq are multiplied by factor (llama3, llama3_hf)"
    )
    high_freq: float = documented(4.0, "wavelengths below orig_max_pos / high_freq stay unchanged (llama3, llama3_hf)")
    orig_max_pos: int = documented(8192, "context length of the model before scaling (llama3, llama3_hf)")

    def __post_init__(self) -> None:
        one_of("RopeScaling.kind", self.kind, ("none", "llama3", "llama3_hf"))
        for name in ("freq_scale", "attn_factor", "beta_fast", "beta_slow", "low_freq", "high_freq"):
            object.__setattr__(self, name, positive(f"RopeScaling.{name}", getattr(self, name)))
        # YaRN's extrapolation needs the original context length, but models of this family pass 0 to ggml.
        real("RopeScaling.ext_factor", self.ext_factor, lambda x: x == 0, "0: YaRN extrapolation is not supported")
        factor = real("RopeScaling.factor", self.factor, lambda x: x >= 1, "a finite number, 1 or above")
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "orig_max_pos", integer("RopeScaling.orig_max_pos", self.orig_max_pos, 1))
        if not self.low_freq < self.high_freq:
            raise TinyNNValueError(
                f"RopeScaling.high_freq must be above low_freq = {self.low_freq!r}, got {self.high_freq!r}"
            )

    @classmethod
    def none(cls) -> RopeScaling:
        return cls()

    @classmethod
    def llama3(cls, factor: float, low_freq: float, high_freq: float, orig_max_pos: int) -> RopeScaling:
        """Return Llama 3's scaling as in the reference.

        Short wavelengths keep their frequency, and the frequency of long wavelengths is divided by factor. Between
        them, the divisor of the frequency rises linearly from 1 to factor.
        """
        return cls("llama3", factor=factor, low_freq=low_freq, high_freq=high_freq, orig_max_pos=orig_max_pos)

    @classmethod
    def llama3_hf(cls, factor: float, low_freq: float, high_freq: float, orig_max_pos: int) -> RopeScaling:
        """Return Llama 3's scaling as in Llama 3, Hugging Face (rope_type "llama3") and llama.cpp.

        Between short and long wavelengths, the frequency falls linearly from its unscaled value to that value divided
        by factor.
        """
        return cls("llama3_hf", factor=factor, low_freq=low_freq, high_freq=high_freq, orig_max_pos=orig_max_pos)

    def freq_factors(self, d_head: int, rope_base: float) -> npt.NDArray[np.float32] | None:
        """Return the divisors of the d_head/2 angles, float32, computed in float64, or None if no angle is scaled.

        Raises TinyNNValueError, TinyNNTypeError, TinyNNMemoryError.
        """
        d_head, rope_base = integer("d_head", d_head, 1), positive("rope_base", rope_base)
        if self.kind == "none":
            return None
        with memory_for("d_head", 40 * d_head, f"the factors of {d_head // 2} angles"):
            return self._freq_factors(d_head, rope_base)

    def _freq_factors(self, d_head: int, rope_base: float) -> npt.NDArray[np.float32]:
        pair = np.arange(d_head // 2, dtype=np.float64)
        wavelength = 2.0 * math.pi * rope_base ** (2.0 * pair / d_head)
        smooth = (self.orig_max_pos / wavelength - self.low_freq) / (self.high_freq - self.low_freq)
        if self.kind == "llama3":
            factors = (1.0 - smooth) * self.factor + smooth
        else:
            factors = 1.0 / ((1.0 - np.clip(smooth, 0, 1)) / self.factor + np.clip(smooth, 0, 1))
        factors[wavelength < self.orig_max_pos / self.high_freq] = 1.0
        factors[wavelength > self.orig_max_pos / self.low_freq] = self.factor
        return factors.astype(np.float32)


@dataclass(frozen=True)
class SmolLM2Config(Initialised):
    """The sizes of a model of the llama family.

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
    def smollm2_135m(cls) -> SmolLM2Config:
        cls._require_vocab("smollm2_135m")
        return cls(49152, 576, 9, 3, 1536, 30, 8192, 100000.0, 1e-5)
