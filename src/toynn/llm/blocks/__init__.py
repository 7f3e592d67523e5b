"""The transformer block (level L2 of the Ruby project toy), built with the code of the per_head layout."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.arguments import instance_of
from toynn.initialised import Initialised
from toynn.llm.parameters import WeightsByKey
from toynn.llm.per_head.graph import PerHeadGraph
from toynn.llm.per_head.model import block
from toynn.llm.rope import Rope
from toynn.model.shape import ModelShape
from toynn.tinynn import Session, Tensor

__all__ = ["BlockTaps", "TransformerBlock"]


@dataclass(frozen=True)
class BlockTaps(Initialised):
    """The activations of a block, each ne=[d_model, T*B]. `residual` is the block's result."""

    attn_norm: Tensor
    ffn: Tensor
    residual: Tensor


class TransformerBlock(Initialised):
    """One layer of a model: attention and a gated feed-forward network, each on a residual path.

    params: the layer's weights, `Parameters.tree.layers[i]` of the per_head layout.
    """

    def __init__(self, params: WeightsByKey, shape: ModelShape) -> None:
        instance_of("params", params, WeightsByKey)
        instance_of("shape", shape, ModelShape)
        self._params, self._shape = params, shape

    def build(self, s: Session, x: Tensor, r: Rope, mask: Tensor | None) -> BlockTaps:
        """Build the layer's graph for its input x, ne=[d_model, T*B]. r, mask: as for `toynn.llm.primitives.gqa`."""
        instance_of("r", r, Rope)
        g = PerHeadGraph(s)
        block(g, self._params, self._shape, x, r, mask)
        return BlockTaps(**g.taps)
