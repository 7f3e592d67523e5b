"""Train small models of the llama family with ggml, with losses that have the same bytes in each run.

For text, three functions are enough: `prepare` turns text files into training data, `train` trains a model on it, and
`load` opens a model that continues and scores text. The other names are the engine on which these functions are built.

Public names are imported when they are first used, so that `import toynn` loads neither numpy nor ggml.
"""

from toynn import _interpreter  # noqa: F401  first of all imports: it refuses a sub-interpreter

# Type checkers assume that this name is True. Importing it from typing would double the import time.
TYPE_CHECKING = False

# The module of each public name. If a name is the last part of the module's path, the name stands for the module.
_MODULES = {
    "AdamW": "toynn.llm.adamw",
    "ChatReply": "toynn.api.reply_stream",
    "ConfigurationError": "toynn.errors",
    "Evaluation": "toynn.api.evaluation",
    "FileFormatError": "toynn.errors",
    "FromScratch": "toynn.llm.recipes",
    "GeneratedText": "toynn.api.text_stream",
    "InternalError": "toynn.errors",
    "LlamaDecoder": "toynn.llm.engine",
    "LlamaSeqEngine": "toynn.llm.engine",
    "LoRA": "toynn.llm.recipes",
    "MappedFileError": "toynn.errors",
    "Muon": "toynn.llm.muon",
    "Plan": "toynn.planning.plan",
    "PreparedData": "toynn.api.prepare_data",
    "Profile": "toynn.llm.profiling",
    "RecipeOptions": "toynn.llm.options",
    "ReplyStream": "toynn.api.reply_stream",
    "RopeScaling": "toynn.model.config",
    "RunFolderError": "toynn.errors",
    "Sampling": "toynn.text.sampling",
    "Session": "toynn.tinynn",
    "SessionError": "toynn.errors",
    "SmolLM2Config": "toynn.model.config",
    "Tensor": "toynn.tinynn",
    "TextModel": "toynn.api.text_model",
    "TextStream": "toynn.api.text_stream",
    "TinyNNError": "toynn.errors",
    "TinyNNMemoryError": "toynn.errors",
    "TinyNNTypeError": "toynn.errors",
    "TinyNNValueError": "toynn.errors",
    "TokenStream": "toynn.text.sampling",
    "ToyLR": "toynn.llm.learning_rates",
    "TrainArgs": "toynn.training",
    "TrainConfig": "toynn.training",
    "TrainingBatch": "toynn.llm.batch",
    "TrainingResult": "toynn.api.train_model",
    "WarmStart": "toynn.llm.recipes",
    "build_info": "toynn.tinynn",
    "eval_ce": "toynn.api.token_evaluation",
    "generate": "toynn.text.sampling",
    "ggml_version": "toynn.tinynn",
    "labels": "toynn.llm.labels",
    "lmc": "toynn.api.token_evaluation",
    "load": "toynn.api.load_model",
    "lr_find": "toynn.api.find_learning_rate",
    "plan": "toynn.api.plan_training",
    "prepare": "toynn.api.prepare_data",
    "prepare_ids": "toynn.api.prepare_data",
    "profile": "toynn.llm.profiling",
    "train": "toynn.api.train_model",
}
_PACKAGES = (
    "api", "cli", "data", "interop", "llm", "model", "parallel", "planning", "serve", "storage", "text", "tinynn",
    "training",
)  # fmt: skip

if TYPE_CHECKING:
    from toynn.api.evaluation import Evaluation as Evaluation
    from toynn.api.find_learning_rate import lr_find as lr_find
    from toynn.api.load_model import load as load
    from toynn.api.plan_training import plan as plan
    from toynn.api.prepare_data import PreparedData as PreparedData
    from toynn.api.prepare_data import prepare as prepare
    from toynn.api.prepare_data import prepare_ids as prepare_ids
    from toynn.api.reply_stream import ChatReply as ChatReply
    from toynn.api.reply_stream import ReplyStream as ReplyStream
    from toynn.api.text_model import TextModel as TextModel
    from toynn.api.text_stream import GeneratedText as GeneratedText
    from toynn.api.text_stream import TextStream as TextStream
    from toynn.api.token_evaluation import eval_ce as eval_ce
    from toynn.api.token_evaluation import lmc as lmc
    from toynn.api.train_model import TrainingResult as TrainingResult
    from toynn.api.train_model import train as train
    from toynn.errors import ConfigurationError as ConfigurationError
    from toynn.errors import FileFormatError as FileFormatError
    from toynn.errors import InternalError as InternalError
    from toynn.errors import MappedFileError as MappedFileError
    from toynn.errors import RunFolderError as RunFolderError
    from toynn.errors import SessionError as SessionError
    from toynn.errors import TinyNNError as TinyNNError
    from toynn.errors import TinyNNMemoryError as TinyNNMemoryError
    from toynn.errors import TinyNNTypeError as TinyNNTypeError
    from toynn.errors import TinyNNValueError as TinyNNValueError
    from toynn.llm import labels as labels
    from toynn.llm.adamw import AdamW as AdamW
    from toynn.llm.batch import TrainingBatch as TrainingBatch
    from toynn.llm.engine import LlamaDecoder as LlamaDecoder
    from toynn.llm.engine import LlamaSeqEngine as LlamaSeqEngine
    from toynn.llm.learning_rates import ToyLR as ToyLR
    from toynn.llm.muon import Muon as Muon
    from toynn.llm.options import RecipeOptions as RecipeOptions
    from toynn.llm.profiling import Profile as Profile
    from toynn.llm.profiling import profile as profile
    from toynn.llm.recipes import FromScratch as FromScratch
    from toynn.llm.recipes import LoRA as LoRA
    from toynn.llm.recipes import WarmStart as WarmStart
    from toynn.model.config import RopeScaling as RopeScaling
    from toynn.model.config import SmolLM2Config as SmolLM2Config
    from toynn.planning.plan import Plan as Plan
    from toynn.text.sampling import Sampling as Sampling
    from toynn.text.sampling import TokenStream as TokenStream
    from toynn.text.sampling import generate as generate
    from toynn.tinynn import Session as Session
    from toynn.tinynn import Tensor as Tensor
    from toynn.tinynn import build_info as build_info
    from toynn.tinynn import ggml_version as ggml_version
    from toynn.training import TrainArgs as TrainArgs
    from toynn.training import TrainConfig as TrainConfig

    __version__: str
else:

    def __getattr__(name: str) -> object:
        """Import a public name, the version or a subpackage, and keep it as an attribute."""
        from importlib import import_module

        if name == "__version__":
            from importlib.metadata import version

            value: object = version("toynn")
        elif name in _PACKAGES:
            value = import_module(f"toynn.{name}")
        elif name in _MODULES:
            module = import_module(_MODULES[name])
            value = module if module.__name__.endswith(f".{name}") else getattr(module, name)
        else:
            raise AttributeError(f"module 'toynn' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES})


__all__ = list(_MODULES)
__all__ += ["__version__"]
