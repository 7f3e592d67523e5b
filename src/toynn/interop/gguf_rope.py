"""RoPE scaling in GGUF files.

Linear scaling and YaRN are keys of the architecture, under `rope.scaling.`. For llama3 scaling, llama.cpp reads the
frequency factors from the tensor `rope_freqs.weight`. toynn computes these factors from four numbers, so an export also
writes the numbers, under keys that llama.cpp ignores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.gguf_header import GgufValues, shortest
from toynn.model.config import RopeScaling
from toynn.model.shape import ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter

ROPE_FREQS = "rope_freqs.weight"
_KEY = "toynn.rope_scaling."
_YARN = {"ext_factor": 1.0, "beta_fast": 32.0, "beta_slow": 1.0}  # llama.cpp does not read these keys
# The keys that read_scaling reads, without the name of the architecture.
READ = tuple(f"rope.scaling.{name}" for name in ("type", "factor", "attn_factor", "original_context_length"))
_CLOSE = 1e-5  # relative tolerance, because another program may have computed the factors in float32

# Llama 3.1 and later use low_freq_factor 1, high_freq_factor 4 and original_max_position_embeddings 8192. Small models
# may have smaller original contexts, so smaller contexts are tried too.
_LOW, _HIGH = 1.0, 4.0
_ORIGINALS = [8192, *(1 << n for n in range(4, 18) if n != 13)]


def write_scaling(writer: GGUFWriter, scaling: RopeScaling) -> None:
    """Write the keys of the scaling.

    Raises TinyNNValueError for a scaling that llama.cpp does not support.
    """
    if scaling.attn_factor != 1.0:
        writer.add_rope_scaling_attn_factors(scaling.attn_factor)
    if scaling.kind in ("linear", "yarn"):
        from gguf import RopeScalingType  # importing the library takes long, and only an export needs it

        writer.add_rope_scaling_type(RopeScalingType(scaling.kind))
        writer.add_rope_scaling_factor(scaling.factor)
        if scaling.kind == "yarn":
            for name, only in _YARN.items():
                if (value := getattr(scaling, name)) != only:
                    raise TinyNNValueError(
                        f"rope_scaling.{name} = {value!r} cannot be exported to GGUF: llama.cpp always uses "
                        f"{only!r} for this architecture"
                    )
            writer.add_rope_scaling_orig_ctx_len(scaling.orig_max_pos)
        return
    if scaling.freq_scale != 1.0:
        raise TinyNNValueError(f"rope_scaling.freq_scale = {scaling.freq_scale!r} cannot be exported: it must be 1")
    if scaling.kind == "none":
        return
    writer.add_string(f"{_KEY}kind", scaling.kind)
    for name in ("factor", "low_freq", "high_freq"):
        writer.add_float64(f"{_KEY}{name}", getattr(scaling, name))
    writer.add_uint32(f"{_KEY}orig_max_pos", scaling.orig_max_pos)


def read_scaling(values: GgufValues, factors: npt.NDArray[np.float32] | None, shape: ModelShape) -> RopeScaling:
    """Return the scaling that the keys describe, or that gives the factors of the file.

    factors: the tensor `rope_freqs.weight`, if the file has it.
    shape: the shape of the model, still without RoPE scaling.

    Raises FileFormatError for a scaling that toynn does not support.
    """
    scaling = _scaling_of_keys(values, shape)
    if factors is not None:
        if scaling.kind != "none":
            raise FileFormatError(
                f"the file has both {ROPE_FREQS} and the scaling {scaling.kind!r}, but toynn supports only one of them"
            )
        scaling = _scaling_of_factors(values, factors, shape.head_dim, shape.rope_base)
    elif f"{_KEY}kind" in values:
        raise FileFormatError(
            f"the key {_KEY}kind is present, but the tensor {ROPE_FREQS} is missing; export the model again"
        )
    attn_factor = shortest(values.number(f"{shape.architecture}.rope.scaling.attn_factor", 1.0))
    return scaling if attn_factor == 1.0 else replace(scaling, attn_factor=attn_factor)


def _scaling_of_keys(values: GgufValues, shape: ModelShape) -> RopeScaling:
    keys = f"{shape.architecture}.rope.scaling."
    factor = shortest(values.number(f"{keys}factor", 1.0))
    # Like llama.cpp: a file without a type has linear scaling if it has a factor.
    kind = values.text(f"{keys}type", "none" if factor == 1.0 else "linear")
    if kind not in ("none", "linear", "yarn"):
        raise FileFormatError(f"{keys}type is {kind!r:.60}, but toynn supports only 'none', 'linear' and 'yarn'")
    if kind == "yarn":
        return RopeScaling.yarn(factor, values.whole(f"{keys}original_context_length", shape.ctx))
    return RopeScaling.none() if kind == "none" else RopeScaling.linear(factor)


def _scaling_of_factors(
    values: GgufValues, factors: npt.NDArray[np.float32], d_head: int, rope_base: float
) -> RopeScaling:
    """Return the llama3 scaling that gives the factors: the scaling in toynn's keys, or a known scaling if the file
    does not have these keys.
    """
    if f"{_KEY}kind" in values:
        scaling = RopeScaling(
            values.text(f"{_KEY}kind"),
            factor=values.number(f"{_KEY}factor"),
            low_freq=values.number(f"{_KEY}low_freq"),
            high_freq=values.number(f"{_KEY}high_freq"),
            orig_max_pos=values.whole(f"{_KEY}orig_max_pos"),
        )
        if not _gives(scaling, factors, d_head, rope_base):
            raise FileFormatError(f"the values of {ROPE_FREQS} contradict the keys {_KEY}*; export the model again")
        return scaling
    if (factors == 1).all():
        return RopeScaling.none()
    factor = float(str(factors.max()))  # the shortest decimal number that rounds to this float32
    if np.isfinite(factor) and factor > 1:
        for make in (RopeScaling.llama3_hf, RopeScaling.llama3):
            for original in _ORIGINALS:
                scaling = make(factor, _LOW, _HIGH, original)
                if _gives(scaling, factors, d_head, rope_base):
                    return scaling
    raise FileFormatError(
        f"toynn cannot recognize the scaling in {ROPE_FREQS}: the values are not those of llama3 scaling with "
        "low_freq_factor 1 and high_freq_factor 4; import the Hugging Face folder of the model instead"
    )


def _gives(scaling: RopeScaling, factors: npt.NDArray[np.float32], d_head: int, rope_base: float) -> bool:
    expected = scaling.freq_factors(d_head, rope_base)
    return expected is not None and bool(np.allclose(expected, factors, rtol=_CLOSE, atol=0))
