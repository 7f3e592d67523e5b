"""L4: recipes. A training script uses one of them."""

from toynn.llm.recipes.from_scratch import FromScratch
from toynn.llm.recipes.lora import LoRA
from toynn.llm.recipes.warm_start import WarmStart

__all__ = ["FromScratch", "LoRA", "WarmStart"]
