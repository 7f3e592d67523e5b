"""Engines: a model on a session, with its graphs and their inputs."""

from toynn.llm.engine.llama_seq_engine import LlamaSeqEngine

__all__ = ["LlamaSeqEngine"]
