"""L2: blocks own their weights, declare them and build their piece of the graph."""

from toynn.llm.blocks.transformer_block import BlockTaps, TransformerBlock

__all__ = ["BlockTaps", "TransformerBlock"]
