"""The types in which an export to GGUF stores the weights. llama.cpp's program `llama-quantize` has the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from toynn import tinynn as nn
from toynn.arguments import not_finite
from toynn.errors import TinyNNValueError
from toynn.model.weights import Weight

F32, F16, Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0
_Q4_0, _Q4_K, _Q6_K = GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K
_CHUNK = 1 << 18  # number of values that one thread converts at once


@dataclass(frozen=True)
class GgufType:
    """A type of an export.

    file_type: the value of `general.file_type`.
    short: the type of matrices whose rows are not whole blocks.
    output: the type of the output matrix, and of an embedding that is also the output matrix; None: `kind`.
    embedding: the type of an embedding that is not the output matrix; None: `kind`.
    """

    kind: GGMLQuantizationType
    file_type: LlamaFileType
    short: GGMLQuantizationType = F16
    output: GGMLQuantizationType | None = None
    embedding: GGMLQuantizationType | None = None


def _type(name: str, file_type: LlamaFileType, short: str = "F16", **others: GGMLQuantizationType) -> GgufType:
    return GgufType(GGMLQuantizationType[name], file_type, GGMLQuantizationType[short], **others)


# The types that ggml can convert to without an importance matrix, and that llama.cpp computes with.
GGUF_DTYPES = {
    "f32": _type("F32", LlamaFileType.ALL_F32),
    "f16": _type("F16", LlamaFileType.MOSTLY_F16),
    "bf16": _type("BF16", LlamaFileType.MOSTLY_BF16),
    "q8_0": _type("Q8_0", LlamaFileType.MOSTLY_Q8_0),
    "q4_0": _type("Q4_0", LlamaFileType.MOSTLY_Q4_0, output=_Q6_K),
    "q4_1": _type("Q4_1", LlamaFileType.MOSTLY_Q4_1, output=_Q6_K),
    "q5_0": _type("Q5_0", LlamaFileType.MOSTLY_Q5_0, output=_Q6_K),
    "q5_1": _type("Q5_1", LlamaFileType.MOSTLY_Q5_1, output=_Q6_K),
    "q2_K": _type("Q2_K", LlamaFileType.MOSTLY_Q2_K, "Q4_0", output=_Q6_K),
    "q3_K": _type("Q3_K", LlamaFileType.MOSTLY_Q3_K_S, "Q4_0", output=_Q6_K),
    "q4_K": _type("Q4_K", LlamaFileType.MOSTLY_Q4_K_S, "Q5_0", output=_Q6_K),
    "q5_K": _type("Q5_K", LlamaFileType.MOSTLY_Q5_K_S, "Q5_1", output=_Q6_K),
    "q6_K": _type("Q6_K", LlamaFileType.MOSTLY_Q6_K, "Q8_0", output=_Q6_K),
    "iq4_nl": _type("IQ4_NL", LlamaFileType.MOSTLY_IQ4_NL, output=_Q6_K),
    "iq4_xs": _type("IQ4_XS", LlamaFileType.MOSTLY_IQ4_XS, "IQ4_NL", output=_Q6_K),
    "tq1_0": _type("TQ1_0", LlamaFileType.MOSTLY_TQ1_0, "Q4_0", output=_Q6_K, embedding=_Q4_K),
    "tq2_0": _type("TQ2_0", LlamaFileType.MOSTLY_TQ2_0, "Q4_0", output=_Q6_K, embedding=_Q4_K),
    "mxfp4": _type("MXFP4", LlamaFileType.MOSTLY_MXFP4_MOE, output=Q8_0),
}
_SHORT = {one.kind: one.short for one in GGUF_DTYPES.values()}


def stored_type(weight: Weight, dtype: GgufType) -> tuple[GGMLQuantizationType, int]:
    """Return the type in which an export stores a weight, and the block size that does not divide the rows of the
    weight (0: there is none).

    Norms and biases are F32. A matrix whose rows are not whole blocks has a type with smaller blocks, or F16.
    """
    if len(weight.size) == 1:
        return F32, 0
    cols = weight.size[-1]
    kind = dtype.kind
    if weight.row.key == "output" or (weight.row.key == "embedding" and not weight.shape.untied):
        if dtype.output is not None:
            kind = dtype.output if cols % _block(dtype.output) == 0 else Q8_0
    elif weight.row.key == "embedding" and dtype.embedding is not None:
        kind = dtype.embedding
    if cols % (missed := _block(kind)) == 0:
        return kind, 0
    short = _SHORT[kind]
    return short if cols % _block(short) == 0 else F16, missed


def _block(kind: GGMLQuantizationType) -> int:
    return GGML_QUANT_SIZES[kind][0]


def stored_values(
    name: str, values: npt.NDArray[np.float32], kind: GGMLQuantizationType
) -> npt.NDArray[np.float32] | npt.NDArray[np.uint8]:
    """Return the values of a weight in a type: float32 for F32, otherwise the bytes of each row. ggml converts them.

    Raises TinyNNValueError, which names the weight, for NaN and infinite values, and for values that are too large.
    """
    if (wrong := not_finite(values)) is not None:
        raise TinyNNValueError(f"{name} must hold only finite numbers to be exported, got {wrong}")
    if kind == F32:
        return values
    rows = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    with ThreadPoolExecutor(nn.tnn_available_cores()) as threads:  # the calls of ggml run in parallel
        try:
            parts = list(threads.map(lambda part: nn.tnn_quantize(kind, part), _parts(rows)))
        except TinyNNValueError:
            largest = float(np.abs(values).max())
            raise TinyNNValueError(
                f"{name} contains values up to {largest:g}, which do not fit {kind.name}; use dtype f32"
            ) from None
    return np.concatenate(parts).reshape(len(rows), -1)


def _parts(rows: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
    step = max(1, _CHUNK // rows.shape[1])
    for first in range(0, len(rows), step):
        yield rows[first : first + step]
