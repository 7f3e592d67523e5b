"""Check stored numbers for NaN and infinity, if possible without converting them to f32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn import tinynn as nn
from toynn.arguments import FloatArray
from toynn.errors import FileFormatError

_F32, _F16, _BF16 = nn.TNN_F32, nn.TNN_F16, nn.TNN_BF16
# The positions of the f16 numbers in a block, by the name of the type. All other numbers of these blocks are integers.
# The product of an integer and an infinite f16 number is infinite or NaN. The product of an integer of a block and a
# finite f16 number is far below the largest f32. So the values of a block are finite if these f16 numbers are finite,
# and only then.
_SCALES = {
    "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,),
    "q2_K": (80, 82), "q3_K": (108,), "q4_K": (0, 2), "q5_K": (0, 2), "q6_K": (208,),
}  # fmt: skip
# The bits of the exponent. All of them are set only in NaN and in infinity.
_F16_EXPONENT, _BF16_EXPONENT = np.uint16(0x7C00), np.uint16(0x7F80)


def surely_finite(kind: int, stored: npt.NDArray[np.uint8]) -> bool:
    """Return whether the bytes of whole blocks of a type hold only finite numbers.

    False also means: this function cannot check the type, so the numbers must be converted.
    """
    if kind == _F32:
        return bool(np.isfinite(stored.view("<f4")).all())
    if kind in (_F16, _BF16):
        return _finite(stored.view("<u2"), _F16_EXPONENT if kind == _F16 else _BF16_EXPONENT)
    places = _SCALES.get(nn.tnn_type_name(kind) or "")
    if places is None:
        return False
    blocks = stored.view("<u2").reshape(-1, nn.tnn_type_block_nbytes(kind) // 2)  # a block has an even size
    return all(_finite(blocks[:, at // 2], _F16_EXPONENT) for at in places)


def _finite(numbers: npt.NDArray[np.uint16], exponent: np.uint16) -> bool:
    return bool(((numbers & exponent) != exponent).all())


def refuse_not_finite(name: str, values: FloatArray, first: int) -> None:
    """Raise FileFormatError, which names the tensor, if one of its rows contains NaN or an infinite number.

    first: the number of the first row of `values` in the tensor.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    at = np.unravel_index(finite.argmin(), finite.shape)
    place = [int(at[0]) + first, *map(int, at[1:])]
    raise FileFormatError(f"{name} must hold only finite numbers, got {values[at]} at {place}")
