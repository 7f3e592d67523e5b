"""L2: a piece of a model that owns its weights and builds its part of the graph."""

from toynn.llm.blocks.fused_block import Context, Continuation, FusedBlock, Sequences
from toynn.llm.blocks.transformer_block import BlockTaps, TransformerBlock

__all__ = ["BlockTaps", "Context", "Continuation", "FusedBlock", "Sequences", "TransformerBlock"]
