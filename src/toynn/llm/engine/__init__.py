"""Engines: a model on a session, with its graphs and their inputs."""

from toynn.llm.engine.llama_decoder import LlamaDecoder
from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine

__all__ = ["LlamaDecoder", "LlamaSeqEngine"]
