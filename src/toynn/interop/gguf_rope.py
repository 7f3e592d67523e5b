"""RoPE scaling in GGUF files.

llama.cpp reads the frequency factors from the tensor `rope_freqs.weight`. toynn computes the factors from the four
numbers of llama3 scaling. So an export also writes these numbers, under keys that llama.cpp ignores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

from toynn.errors import FileFormatError, TinyNNValueError
from toynn.interop.gguf_header import GgufValues
from toynn.model.config import RopeScaling

ROPE_FREQS = "rope_freqs.weight"
_KEY = "toynn.rope_scaling."
_CLOSE = 1e-5  # relative tolerance, because another program may have computed the factors in float32

# Llama 3.1 and later use low_freq_factor 1, high_freq_factor 4 and original_max_position_embeddings 8192. Small models
# may have smaller original contexts, so these are tried too.
_LOW, _HIGH = 1.0, 4.0
_ORIGINALS = [8192, *(1 << n for n in range(4, 18) if n != 13)]


def write_scaling(writer: GGUFWriter, scaling: RopeScaling) -> None:
    """Write the scaling: the numbers from which the factors are computed, under toynn's keys.

    Raises TinyNNValueError for a scaling that llama.cpp does not support.
    """
    if scaling.kind in ("linear", "yarn"):
        raise TinyNNValueError(f"rope_scaling.kind = {scaling.kind!r} cannot be exported")
    for name in ("freq_scale", "attn_factor"):
        if (value := getattr(scaling, name)) != 1.0:
            raise TinyNNValueError(f"rope_scaling.{name} = {value!r} cannot be exported: it must be 1")
    if scaling.kind == "none":
        return
    writer.add_string(f"{_KEY}kind", scaling.kind)
    for name in ("factor", "low_freq", "high_freq"):
        writer.add_float64(f"{_KEY}{name}", getattr(scaling, name))
    writer.add_uint32(f"{_KEY}orig_max_pos", scaling.orig_max_pos)


def read_scaling(
    values: GgufValues, factors: npt.NDArray[np.float32] | None, d_head: int, rope_base: float
) -> RopeScaling:
    """Return the scaling that gives the factors of the file: that of toynn's keys, or else a llama3 scaling that
    matches.

    Raises FileFormatError if no scaling gives these factors.
    """
    if factors is None:
        if f"{_KEY}kind" in values:
            raise FileFormatError(f"the key {_KEY}kind is present, but the tensor {ROPE_FREQS} is missing")
        return RopeScaling.none()
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


def _gives(scaling: RopeScaling, factors: npt.NDArray[np.float32], d_head: int, rope_base: float) -> bool:
    expected = scaling.freq_factors(d_head, rope_base)
    return expected is not None and bool(np.allclose(expected, factors, rtol=_CLOSE, atol=0))
