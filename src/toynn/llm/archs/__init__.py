"""L3: whole models, from token ids to logits."""

from toynn.llm.archs.llama_arch import LlamaArch

__all__ = ["LlamaArch"]
