"""Every public function, class, method and property of toynn, and values that a caller should not pass to it."""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import math
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

import toynn
from engines import realized
from toynn import (
    AdamW,
    Evaluation,
    FromScratch,
    LlamaDecoder,
    LlamaSeqEngine,
    LoRA,
    RecipeOptions,
    RopeScaling,
    Sampling,
    SmolLM2Config,
    TextModel,
    TinyNNError,
    ToyLR,
    TrainConfig,
    TrainingBatch,
    WarmStart,
)
from toynn import tinynn as nn
from toynn.data import WindowBatcher
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.storage.checkpoint import Checkpoint, RunFolder
from toynn.training import ModelArgs, ScheduleArgs

# Modules with public names. Other modules are called only by these modules, with arguments that are already checked.
MODULES = (
    "toynn",
    "toynn.api.text_model",
    "toynn.api.text_stream",
    "toynn.data",
    "toynn.interop",
    "toynn.llm.adamw",
    "toynn.llm.archs",
    "toynn.llm.blocks",
    "toynn.llm.engine",
    "toynn.llm.labels",
    "toynn.llm.layouts",
    "toynn.llm.options",
    "toynn.llm.primitives",
    "toynn.llm.profiling",
    "toynn.llm.recipes",
    "toynn.model.config",
    "toynn.model.init_streams",
    "toynn.model.shape",
    "toynn.model.trained_model",
    "toynn.storage.checkpoint",
    "toynn.text.sampling",
    "toynn.tinynn",
    "toynn.training",
    "toynn.training.schedule",
)


def public_names() -> dict[str, Any]:
    """Return the functions and classes of MODULES, by module and name. Each function or class is returned once."""
    found: dict[int, tuple[str, Any]] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]:
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if hasattr(module, "__all__") or value.__module__ == module_name:
                found.setdefault(id(value), (f"{module_name}.{name}", value))
    return dict(found.values())


# ---- hostile values ----


class Raising:
    """An object whose methods raise an exception."""

    def _raise(self, *_: object, **__: object) -> Any:
        raise ZeroDivisionError("hostile")

    __len__ = __iter__ = __getitem__ = __contains__ = __index__ = __float__ = __bool__ = __repr__ = __str__ = _raise
    __array__ = __fspath__ = __call__ = __eq__ = keys = items = encode = _raise
    __hash__ = object.__hash__


class Long:
    """A sequence and mapping of 2^62 numbers."""

    def __len__(self) -> int:
        return 2**62

    def __iter__(self) -> Iterator[int]:
        return repeat(1)

    def __getitem__(self, _: object) -> int:
        return 1

    def __contains__(self, _: object) -> bool:
        return True

    def keys(self) -> Long:
        return self


def hostile_values() -> dict[str, Any]:
    """Return new hostile values by description."""
    return {
        "None": None,
        "True": True,
        "-1": -1,
        "0": 0,
        "2^31": 2**31,
        "2^70": 2**70,
        "10^5000": 10**5000,
        "nan": math.nan,
        "inf": math.inf,
        "1j": 1j,
        "object": object(),
        "class": int,
        "empty": "",
        "surrogate": "\ud800",
        "NUL": "a\0b",
        "long name": "x" * 5000,
        "bytes": b"a\0b",
        "path": Path("nothing"),
        "list": [],
        "list of None": [None],
        "dict": {},
        "dict of None": {None: None},
        "names": {"token_embd.weight": None},
        "set": {1},
        "range": range(2**40),
        "int64": np.broadcast_to(np.int64(1), 2**40),
        "float32": np.broadcast_to(np.float32(1), 2**40),
        "objects": np.broadcast_to(np.array(None, object), 2**40),
        "matrix": np.full((2, 2), np.nan),
        "scalar": np.array(3),
        "NaT": np.datetime64("NaT"),
        "masked": np.ma.masked,
        "raising": Raising(),
        "long": Long(),
        "uninitialised tensor": nn.Tensor.__new__(nn.Tensor),
        "uninitialised session": nn.Session.__new__(nn.Session),
        "uninitialised cfg": SmolLM2Config.__new__(SmolLM2Config),
        "uninitialised options": RecipeOptions.__new__(RecipeOptions),
        "uninitialised decoder": LlamaDecoder.__new__(LlamaDecoder),
    }


# ---- valid values for all other arguments, so that a call reaches the check of the replaced argument ----


def mapped_file() -> nn.MappedFile:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(4096))
        file.flush()
        return nn.MappedFile(file, "zeros")


class Samples:
    """Makes valid objects of a class, and valid values for a parameter with a given name."""

    def __init__(self) -> None:
        self._numbers = count()
        self.cfg = cfg = SmolLM2Config(11, 8, 2, 1, 12, 1, 8, 1e4, 1e-5)
        with realized(cfg) as engine:
            self.weights = {name: engine.download_weight(name) for name in engine.weights}
        words = tokenizers.models.WordLevel({f"w{i}": i for i in range(11)}, unk_token="w0")
        tokenizer = tokenizers.Tokenizer(words)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        self.shape = ModelShape.of(cfg)
        model = TrainedModel(self.shape, self.weights, tokenizer.to_str().encode(), eos_id=1, bos_id=2)
        self.checkpoint = Checkpoint(Path("somewhere"), 0, model, None, {})
        self.makers: dict[type, Callable[[], Any]] = {
            AdamW: AdamW,
            Evaluation: lambda: Evaluation(1, 1, 1.0),
            FromScratch: self._recipe,
            LlamaDecoder: lambda: LlamaDecoder(cfg, self.weights, n_threads=1),
            LlamaSeqEngine: self._engine,
            LoRA: self._lora,
            ModelArgs: ModelArgs,
            ModelShape: lambda: self.shape,
            RecipeOptions: lambda: RecipeOptions(t_seq=4),
            RopeScaling: lambda: RopeScaling.llama3(8.0, 1.0, 4.0, 16),
            RunFolder: lambda: RunFolder(Path(f"run-{next(self._numbers)}")),
            Sampling: Sampling,
            ScheduleArgs: ScheduleArgs,
            SmolLM2Config: lambda: cfg,
            TextModel: lambda: TextModel(self.checkpoint, n_threads=1),
            ToyLR: ToyLR,
            TrainConfig: TrainConfig,
            TrainingBatch: self._batch,
            WarmStart: self._warm_start,
            nn.MappedFile: mapped_file,
            WindowBatcher: lambda: WindowBatcher(np.arange(99), 4, 0),
            nn.Session: lambda: self._tensor().session,
        }

    def _engine(self) -> LlamaSeqEngine:
        engine = realized(self.cfg)
        engine.build_training_step()
        return engine

    def _recipe(self) -> FromScratch:
        recipe = FromScratch()
        recipe.realize(self.cfg, RecipeOptions(t_seq=4, n_threads=1))
        return recipe

    def _lora(self) -> LoRA:
        recipe = LoRA()
        recipe.realize(self.checkpoint.model, self.cfg, 2, RecipeOptions(t_seq=4, n_threads=1))
        return recipe

    def _warm_start(self) -> WarmStart:
        recipe = WarmStart()
        cfg = replace(self.cfg, donor_d_in=6)
        recipe.realize_scratch(cfg, RecipeOptions(t_seq=4, n_threads=1, untied=True))
        recipe.build()
        return recipe

    def _batch(self) -> TrainingBatch:
        batch = TrainingBatch(11, 4)
        batch.fill([1, 2, 3, 4])
        return batch

    def _tensor(self) -> nn.Tensor:
        session = nn.Session(n_threads=1)
        tensor = nn.tnn_input_2d_f32_persistent(session, 4, 4)
        nn.tnn_finalize_weights(session)
        return tensor

    def good_values(self) -> dict[str, Any]:
        """Return a valid value for each parameter name that has the same meaning in all functions.

        Sessions and tensors are new.
        """
        tensor = self._tensor()
        return {
            **dict.fromkeys(("a", "b", "t", "x", "w", "h", "k", "v", "q", "gamma"), tensor),
            **dict.fromkeys(("seq_ids", "ids", "targets"), (1, 2, 3, 4)),
            **dict.fromkeys(("batch", "t_batch", "n_layers", "step", "n"), 1),
            **dict.fromkeys(("context", "t_seq", "ne0", "ne1"), 4),
            **dict.fromkeys(("hp", "m_hp"), AdamW().hp(1)),
            **dict.fromkeys(("untied", "qkv_bias", "is_first"), False),
            "cfg": self.cfg,
            "decoder": LlamaDecoder(self.cfg, self.weights, n_threads=1),
            **dict.fromkeys(("gguf", "gguf_handle"), self.checkpoint.model),
            "init_scale": 1.0,
            "lr": 1e-3,
            "max_tokens": 2,
            "model": self.checkpoint.model,
            "opts": RecipeOptions(t_seq=4, n_threads=1),
            "options": RecipeOptions(t_seq=4, n_threads=1),
            "positions": range(4),
            "prompt": [1, 2],
            "rank": 2,
            "s": tensor.session,
            "sampling": Sampling(),
            "schedule": ScheduleArgs(),
            "seed": 0,
            "shape": self.shape,
            "source": self.checkpoint,
            "std": 1.0,
            "steps": 100,
            "text": "w3 w4",
            "vocab": 11,
            "weight_dtype": 0,
            "weights": self.weights,
        }


# ---- calls ----

SECONDS = 5.0  # time limit of a call in seconds, on a machine that also runs other programs
PATHS = {
    "path",
    "paths",
    "folder",
    "out",
    "data",
    "init",
    "run",
    "template",
    "tokenizer",
}  # a function with one of these parameters may raise OSError


def faults(rounds: int = 0, seed: int = 0) -> Iterator[str]:
    """Call every public callable with hostile arguments. Yield a line for each undocumented failure.

    Each argument in turn is replaced by each hostile value. After that, each callable is called `rounds` times, and
    every argument is a random valid or hostile value.
    """
    samples, hostile, draw = Samples(), hostile_values(), random.Random(seed)
    for name, make in _callables(samples):
        function = make()
        parameters = _parameters(function)
        good = samples.good_values() | {one.name: one.default for one in parameters if one.default is not one.empty}
        for what, value in hostile.items():
            yield from _fault(f"{name}(* = {what})", function, {one.name: value for one in parameters})
            for replaced in parameters:
                values = {one.name: good.get(one.name, value) for one in parameters} | {replaced.name: value}
                yield from _fault(f"{name}({replaced.name} = {what})", function, values)
        for _ in range(rounds if parameters else 0):
            chosen = {one.name: draw.choice([("good", good.get(one.name)), *hostile.items()]) for one in parameters}
            shown = ", ".join(f"{key} = {what}" for key, (what, _) in chosen.items())
            yield from _fault(f"{name}({shown})", function, {key: value for key, (_, value) in chosen.items()})


def faults_of_settings() -> Iterator[str]:
    """Call `toynn.train` with hostile settings as keyword arguments. Yield descriptions as `faults` does."""
    for key in ("lr", "model", "unknown"):
        for what, value in hostile_values().items():
            settings = {key: value, "progress": False}
            yield from _fault(f"train({key} = {what})", partial(toynn.train, data="data", out="out"), settings)
            inside = {"train": {"steps": value}, "optimizer": {key: value}, "progress": False}
            yield from _fault(f"train(sections, {what})", partial(toynn.train, data="data", out="out"), inside)


def faults_of_uninitialised_objects() -> Iterator[str]:
    """Use all methods and properties of objects whose __init__ did not run.

    Yield descriptions as `faults` does.
    """
    for name, kind in public_names().items():
        # these methods do not need __init__
        if not inspect.isclass(kind) or issubclass(kind, BaseException | str | tuple):
            continue
        for attribute in [one for one in dir(kind) if not one.startswith("_")] + list(OPERATIONS):
            if not hasattr(kind, attribute) and attribute in OPERATIONS:
                continue
            instance = object.__new__(kind)

            def use(instance: Any = instance, attribute: str = attribute) -> None:
                found = getattr(instance, attribute)
                if callable(found):
                    found(*[None for one in _parameters(found) if one.kind is not one.KEYWORD_ONLY])

            yield from _fault(f"uninitialised {name}.{attribute}", use, {})


OPERATIONS = ("__repr__", "__len__", "__fspath__", "__enter__", "__exit__")


def _callables(samples: Samples) -> Iterator[tuple[str, Callable[[], Callable[..., Any]]]]:
    """Yield the name of every public function, class and method, and a function that returns the named object."""
    for name, value in public_names().items():
        if inspect.isclass(value) and issubclass(value, BaseException):
            continue
        yield name, partial(_itself, value)
        maker = samples.makers.get(value) if inspect.isclass(value) else None
        if maker is None:
            continue
        for method in [one for one in dir(value) if not one.startswith("_")]:
            if callable(getattr(value, method)):
                yield f"{name}.{method}", partial(_method_of_new, maker, method)


def _itself(value: Callable[..., Any]) -> Callable[..., Any]:
    return value


def _method_of_new(maker: Callable[[], Any], method: str) -> Any:
    return getattr(maker(), method)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a callable, without self, *args and **kwargs."""
    given = inspect.signature(function).parameters.values()
    return [one for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def _fault(what: str, function: Callable[..., Any], values: dict[str, Any]) -> Iterator[str]:
    """Make one call. Yield a line if the call raises an undocumented exception or takes too long."""
    # exit=True ends the process after a time, because KeyboardInterrupt would not stop numpy
    faulthandler.dump_traceback_later(12 * SECONDS, exit=True)
    start = time.monotonic()
    try:
        result = function(**values)
        if isinstance(result, Iterator):
            list(islice(result, 3))
    except TinyNNError as error:
        if "PosixPath(" in str(error):
            yield f"{what} shows a path as Python does: {error!s:.90}"
    except BaseException as error:
        if not (isinstance(error, OSError) and PATHS & inspect.signature(function).parameters.keys()):
            at = traceback.extract_tb(error.__traceback__)[-1]
            yield f"{what}: {type(error).__name__} in {Path(at.filename).name}:{at.lineno}: {error!s:.90}"
    seconds = time.monotonic() - start
    if seconds > SECONDS:
        yield f"{what} took {seconds:.1f} s"
