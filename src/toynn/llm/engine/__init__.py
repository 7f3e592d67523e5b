"""Engines: each holds a model on a session, with its graphs and their inputs."""

from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine
from toynn.llm.fused.decoder import LlamaDecoder

__all__ = ["LlamaDecoder", "LlamaSeqEngine"]
