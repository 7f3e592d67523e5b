"""RoPE scaling in GGUF: llama.cpp takes the factors themselves, `rope_freqs.weight`; toynn computes them from llama3's
four numbers. So these go along under keys of our own, which llama.cpp passes over."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf import GGUFWriter

from toynn.errors import TinyNNValueError
from toynn.interop.gguf_header import GgufValues
from toynn.model.config import RopeScaling

ROPE_FREQS = "rope_freqs.weight"
_KEY = "toynn.rope_scaling."
_CLOSE = 1e-5  # relative: another program's float32 arithmetic

# Llama 3.1 and later: low_freq_factor 1, high_freq_factor 4, original_max_position_embeddings 8192. Other originals are
# tried because small models are made with small ones.
_LOW, _HIGH = 1.0, 4.0
_ORIGINALS = [8192, *(1 << n for n in range(4, 18) if n != 13)]


def write_scaling(writer: GGUFWriter, scaling: RopeScaling) -> None:
    """Notes the numbers that the factors came from. Raises TinyNNValueError for scaling that llama.cpp has not so."""
    for name in ("freq_scale", "attn_factor"):
        if (value := getattr(scaling, name)) != 1.0:
            raise TinyNNValueError(f"rope_scaling: {name} = {value!r} cannot be exported, only 1")
    if scaling.kind == "none":
        return
    writer.add_string(f"{_KEY}kind", scaling.kind)
    for name in ("factor", "low_freq", "high_freq"):
        writer.add_float64(f"{_KEY}{name}", getattr(scaling, name))
    writer.add_uint32(f"{_KEY}orig_max_pos", scaling.orig_max_pos)


def read_scaling(
    values: GgufValues, factors: npt.NDArray[np.float32] | None, d_head: int, rope_base: float
) -> RopeScaling:
    """The scaling whose factors the file has: from our own keys, or else looked for among llama3's.

    Raises TinyNNValueError where there is none such.
    """
    if factors is None:
        if f"{_KEY}kind" in values:
            raise TinyNNValueError(f"it has {_KEY}kind but no tensor {ROPE_FREQS}")
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
            raise TinyNNValueError(f"its {ROPE_FREQS} are not those of its {_KEY}*")
        return scaling
    if (factors == 1).all():
        return RopeScaling.none()
    factor = float(str(factors.max()))  # the shortest number that is this float32
    if np.isfinite(factor) and factor > 1:
        for make in (RopeScaling.llama3_hf, RopeScaling.llama3):
            for original in _ORIGINALS:
                scaling = make(factor, _LOW, _HIGH, original)
                if _gives(scaling, factors, d_head, rope_base):
                    return scaling
    raise TinyNNValueError(
        f"its {ROPE_FREQS} are not llama3's scaling with low 1 and high 4, all that toynn can tell from factors; "
        "import the model's Hugging Face folder instead"
    )


def _gives(scaling: RopeScaling, factors: npt.NDArray[np.float32], d_head: int, rope_base: float) -> bool:
    expected = scaling.freq_factors(d_head, rope_base)
    return expected is not None and bool(np.allclose(expected, factors, rtol=_CLOSE, atol=0))
