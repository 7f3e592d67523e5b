"""L1: pure graph functions. They own nothing; each builds one piece of mathematics and returns its result."""

from toynn.llm.primitives.gqa import GqaWeights, gqa
from toynn.llm.primitives.rms_norm import rms_norm
from toynn.llm.primitives.rope import Rope, rope
from toynn.llm.primitives.swiglu import swiglu

__all__ = ["GqaWeights", "Rope", "gqa", "rms_norm", "rope", "swiglu"]
