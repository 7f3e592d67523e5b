"""L4: recipes. A training script uses one of them."""

from toynn.llm.recipes.from_scratch import FromScratch

__all__ = ["FromScratch"]
