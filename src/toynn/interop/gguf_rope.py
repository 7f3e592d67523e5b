"""RoPE scaling in GGUF files.

Linear scaling and YaRN are described by keys. For llama3 scaling, llama.cpp reads the frequency factors from the tensor
`rope_freqs.weight`. toynn computes the factors from the four numbers of llama3 scaling. So an export also writes these
numbers, under keys that llama.cpp ignores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter, RopeScalingType

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.gguf_header import GgufValues, shortest
from toynn.model.config import RopeScaling
from toynn.model.shape import ModelShape

ROPE_FREQS = "rope_freqs.weight"
_KEY = "toynn.rope_scaling."
_TYPE, _FACTOR, _ORIGINAL = (f"llama.rope.scaling.{name}" for name in ("type", "factor", "original_context_length"))
_CLOSE = 1e-5  # relative tolerance, because another program may have computed the factors in float32

# Llama 3.1 and later use low_freq_factor 1, high_freq_factor 4 and original_max_position_embeddings 8192. Small models
# may have smaller original contexts, so these are tried too.
_LOW, _HIGH = 1.0, 4.0
_ORIGINALS = [8192, *(1 << n for n in range(4, 18) if n != 13)]


def write_scaling(writer: GGUFWriter, scaling: RopeScaling) -> None:
    """Write the scaling. For llama3 scaling, write the numbers from which its factors are computed under toynn's keys.

    Raises TinyNNValueError for a scaling that llama.cpp does not support.
    """
    only = {"attn_factor": 1.0}
    if scaling.kind not in ("linear", "yarn"):
        only["freq_scale"] = 1.0
    if scaling.kind == "yarn":
        only |= {"ext_factor": 1.0, "beta_fast": 32.0, "beta_slow": 1.0}
    for name, needed in only.items():
        if (value := getattr(scaling, name)) != needed:
            raise TinyNNValueError(f"rope_scaling.{name} = {value!r} cannot be exported: it must be {needed:g}")
    if scaling.kind == "none":
        return
    if scaling.kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(scaling.kind))
        writer.add_rope_scaling_factor(scaling.factor)
        if scaling.kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(scaling.orig_max_pos)
        return
    writer.add_string(f"{_KEY}kind", scaling.kind)
    for name in ("factor", "low_freq", "high_freq"):
        writer.add_float64(f"{_KEY}{name}", getattr(scaling, name))
    writer.add_uint32(f"{_KEY}orig_max_pos", scaling.orig_max_pos)


def stored_factors(shape: ModelShape) -> npt.NDArray[np.float32] | None:
    """Return the values of the tensor `rope_freqs.weight`. None: the model needs no such tensor."""
    scaling = shape.rope_scaling
    return None if scaling.kind == "yarn" else scaling.freq_factors(shape.head_dim, shape.rope_base)


def read_scaling(
    values: GgufValues, factors: npt.NDArray[np.float32] | None, d_head: int, rope_base: float
) -> RopeScaling:
    """Return the RoPE scaling of a file: the scaling that its keys describe, or a llama3 scaling that gives its
    factors.

    Raises FileFormatError if no scaling gives these factors.
    """
    by_keys = _scaling_of_keys(values)
    if factors is None:
        if f"{_KEY}kind" in values:
            raise FileFormatError(f"the key {_KEY}kind is present, but the tensor {ROPE_FREQS} is missing")
        return by_keys
    if by_keys.kind != "none":
        raise FileFormatError(f"the scaling {by_keys.kind!r} and the tensor {ROPE_FREQS} cannot be in the same file")
    return _scaling_of_factors(values, factors, d_head, rope_base)


def _scaling_of_factors(
    values: GgufValues, factors: npt.NDArray[np.float32], d_head: int, rope_base: float
) -> RopeScaling:
    """Return the scaling that gives the factors: the one in toynn's keys, or without them a known llama3 scaling."""
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
        f"the values of {ROPE_FREQS} are not those of llama3 scaling with low_freq_factor 1 and high_freq_factor 4, "
        "the only ones that toynn can recognize; import the Hugging Face folder of the model instead"
    )


def _scaling_of_keys(values: GgufValues) -> RopeScaling:
    """Return the scaling that llama.cpp's keys describe. A factor without a type is linear, as in llama.cpp."""
    kind = values.text(_TYPE, "linear")
    factor = shortest(values.number(_FACTOR, 1.0))
    if kind == "none" or (_TYPE not in values and factor == 1.0):
        return RopeScaling.none()
    if kind == "linear":
        return RopeScaling.linear(factor)
    if kind == "yarn":
        return RopeScaling.yarn(factor, values.whole(_ORIGINAL))
    raise FileFormatError(f"{_TYPE} is {kind!r:.60}, but toynn supports only 'none', 'linear' and 'yarn'")


def _gives(scaling: RopeScaling, factors: npt.NDArray[np.float32], d_head: int, rope_base: float) -> bool:
    expected = scaling.freq_factors(d_head, rope_base)
    return expected is not None and bool(np.allclose(expected, factors, rtol=_CLOSE, atol=0))
