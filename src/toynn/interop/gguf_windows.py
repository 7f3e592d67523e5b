"""The keys of GGUF files about windows: the size of a window, which layers have a window, and what differs in these
layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toynn.errors import TinyNNValueError
from toynn.interop.gguf_header import GgufValues, shortest
from toynn.model.shape import ModelShape

if TYPE_CHECKING:
    from gguf import GGUFWriter

# The keys that read_windows reads, without the name of the architecture.
READ = ("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa")
_PATTERN, _LOCAL_BASE = 6, 10000.0  # llama.cpp's defaults
_LAYERS_OF_27B = 62  # llama.cpp uses another scale of the scores for models with this number of layers


def read_windows(values: GgufValues, arch: str, scalar: int) -> dict[str, Any]:
    """Return the fields of `ModelShape` for local layers, from the keys of a file.

    scalar: the result of `score_scalar`.

    Raises FileFormatError if a key is missing or has another type.
    """
    return {
        "sliding_window": values.whole(f"{arch}.attention.sliding_window"),
        "global_interval": values.whole(f"{arch}.attention.sliding_window_pattern", _PATTERN),
        "local_rope_base": shortest(values.number(f"{arch}.rope.freq_base_swa", _LOCAL_BASE)),
        "query_pre_attn_scalar": scalar,
    }


def write_windows(writer: GGUFWriter, shape: ModelShape) -> None:
    """Write the keys for the local layers of a model.

    Raises TinyNNValueError for a scale of the scores or an interval that llama.cpp does not support.
    """
    sizes = {name: getattr(shape, name) for name in ("d_model", "n_heads", "head_dim", "n_layers")}
    if (only := score_scalar(**sizes)) != shape.query_pre_attn_scalar:
        raise TinyNNValueError(
            f"query_pre_attn_scalar = {shape.query_pre_attn_scalar} cannot be exported to GGUF: for this shape, "
            f"llama.cpp always uses {only}; export a Hugging Face folder instead"
        )
    if shape.global_interval == 1:
        raise TinyNNValueError(
            "global_interval = 1 cannot be exported to GGUF: llama.cpp aborts if a model has no local layers; "
            "export a Hugging Face folder instead"
        )
    writer.add_sliding_window(shape.sliding_window)
    writer.add_sliding_window_pattern(shape.global_interval)
    writer.add_rope_freq_base_swa(shape.local_rope_base)


def score_scalar(*, d_model: int, n_heads: int, head_dim: int, n_layers: int) -> int:
    """Return the query_pre_attn_scalar with which llama.cpp computes a model of these sizes."""
    return d_model // n_heads if n_layers == _LAYERS_OF_27B else head_dim
