"""toynn: train small llama-family models on real ggml, with losses that are the same bytes every time."""

from toynn import _interpreter  # noqa: F401  before all else: it refuses a sub-interpreter

# isort: split
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from toynn.errors import (
    ConfigurationError,
    ConfigurationTypeError,
    FileFormatError,
    InternalError,
    RunFolderError,
    SessionError,
    TinyNNError,
    TinyNNMemoryError,
    TinyNNTypeError,
    TinyNNValueError,
)
from toynn.llm import labels
from toynn.llm.adamw import AdamW
from toynn.llm.batch import TrainingBatch
from toynn.llm.engine import LlamaDecoder, LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.llm.profiling import Profile, profile
from toynn.llm.recipes import FromScratch
from toynn.model.config import RopeScaling, SmolLM2Config
from toynn.text.sampling import Sampling, generate
from toynn.tinynn import Session, Tensor, build_info, ggml_version

if TYPE_CHECKING:
    from toynn.training import TrainArgs, TrainConfig, train

__version__ = _version("toynn")

_OF_TRAINING = ("TrainArgs", "TrainConfig", "train")  # they need the extra toynn[cli], so they are imported when used


def __getattr__(name: str) -> Any:
    if name not in _OF_TRAINING:
        raise AttributeError(f"module 'toynn' has no attribute {name!r}")
    from toynn import training  # where its extra is missing, it says which

    return getattr(training, name)


__all__ = [
    "AdamW",
    "ConfigurationError",
    "ConfigurationTypeError",
    "FileFormatError",
    "FromScratch",
    "InternalError",
    "LlamaDecoder",
    "LlamaSeqEngine",
    "Profile",
    "RecipeOptions",
    "RopeScaling",
    "RunFolderError",
    "Sampling",
    "Session",
    "SessionError",
    "SmolLM2Config",
    "Tensor",
    "TinyNNError",
    "TinyNNMemoryError",
    "TinyNNTypeError",
    "TinyNNValueError",
    "TrainArgs",
    "TrainConfig",
    "TrainingBatch",
    "__version__",
    "build_info",
    "generate",
    "ggml_version",
    "labels",
    "profile",
    "train",
]
