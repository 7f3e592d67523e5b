"""L4: recipes, which a training script uses."""

from toynn.llm.recipes.from_scratch import FromScratch

__all__ = ["FromScratch"]
