"""Recipes (level L4 of the Ruby project toy). A training script uses one recipe."""

from toynn.llm.recipes.from_scratch import FromScratch
from toynn.llm.recipes.lora import LoRA
from toynn.llm.recipes.warm_start import WarmStart

__all__ = ["FromScratch", "LoRA", "WarmStart"]
