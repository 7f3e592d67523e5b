"""Rotary position embedding (RoPE) in a graph: its positions, and the factors of RoPE scaling."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toynn.arguments import instance_of
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.model.config import RopeScaling
from toynn.model.shape import ModelShape
from toynn.tinynn import Session, Tensor, tnn_input_1d_f32_persistent, tnn_tensor_set_name, upload_row_major


@dataclass(frozen=True)
class Rope(Initialised):
    """The parameters of the rotation of n tokens.

    positions: i32 (n,). d_head: size of a head. base, scaling: as in `SmolLM2Config`.
    freq_factors: f32 (d_head/2,), or None for a scaling without factors (`RopeScaling.has_freq_factors`).
    interleaved: element 2i of a head is paired with element 2i + 1, as in the GGUF files of llama.cpp. Otherwise
        element i is paired with element i + d_head/2.
    rotates: False if the layer has no RoPE, so that queries and keys stay unchanged.

    Raises TinyNNTypeError if scaling is not a RopeScaling, or TinyNNValueError if its freq_factors are missing.
    """

    positions: Tensor
    d_head: int
    base: float
    scaling: RopeScaling
    freq_factors: Tensor | None
    interleaved: bool = False
    rotates: bool = True

    def __post_init__(self) -> None:
        instance_of("scaling", self.scaling, RopeScaling)
        if self.freq_factors is None and self.scaling.has_freq_factors:
            raise TinyNNValueError(
                f"freq_factors must be a tensor with the values of `RopeScaling.freq_factors` for {self.scaling.kind} "
                "scaling, got None"
            )

    def still(self) -> Rope:
        """Return the parameters of a layer without RoPE."""
        return replace(self, rotates=False)


def rope_of_layer(rope: Rope, shape: ModelShape, layer: int) -> Rope:
    """Return the parameters of a layer, counted from 0. rope: the parameters of a global layer with RoPE."""
    if shape.is_local(layer):
        return replace(rope, base=shape.local_rope_base, scaling=RopeScaling.none(), freq_factors=None)
    return rope if shape.has_rope(layer) else rope.still()


class RopeOfModel:
    """The part of `Rope` that is the same in all graphs of a model. Make it before `tnn_finalize_weights`."""

    def __init__(self, session: Session, shape: ModelShape, interleaved: bool = False) -> None:
        """Declare the frequency factors, if the shape has any. interleaved: as in `Rope`."""
        self._session, self._shape, self._interleaved = session, shape, interleaved
        self._factors = shape.rope_scaling.freq_factors(shape.head_dim, shape.rope_base)
        self._tensor: Tensor | None = None
        if self._factors is not None:
            self._tensor = tnn_input_1d_f32_persistent(session, shape.head_dim // 2)
            tnn_tensor_set_name(self._tensor, "rope_freq_factors")

    @property
    def tensor(self) -> Tensor | None:
        """The frequency factors, f32 (d_head/2,), on the session; None for a scaling without factors."""
        return self._tensor

    def upload(self) -> None:
        """Upload the values of the tensor. Call it after `tnn_finalize_weights`."""
        if self._tensor is not None and self._factors is not None:
            upload_row_major(self._session, self._tensor, self._factors)

    def at(self, positions: Tensor) -> Rope:
        """Return the parameters of the rotation for tokens at these positions, i32 (n,)."""
        shape = self._shape
        return Rope(
            positions, shape.head_dim, shape.rope_base, shape.rope_scaling, self._tensor, self._interleaved
        )  # fmt: skip
