"""Choose arguments for calls of the session API by the annotations of the parameters: mostly valid, sometimes hostile.

Every choice comes from one random.Random, which a fuzz round or hypothesis provides.
"""

from __future__ import annotations

import functools
import inspect
import math
import random
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz_operators import LARGEST
from toynn import Session, TinyNNError
from toynn import tinynn as nn

# fmt: off
INTEGERS = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 33, 2**16, 2**31 - 1, 2**31, 2**62, 2**63, 2**99]
SMALL = [1, 2, 3, 4, 6, 8, 12, 16]
FLOATS = [0.0, -0.0, 1.0, 0.5, -1.0, 1e-5, 1e-45, 3e38, 1e39, -1e300, math.inf, -math.inf, math.nan, 10000.0]
OTHER_OBJECTS: list[Any] = [None, True, "x", b"y", 1.5, [], {}, object(), np.float32(2), np.int64(3)]
# fmt: on


ARRAYS = {"npt.ArrayLike"}  # annotations of the parameters that accept an array


@functools.cache
def mapped_files() -> list[nn.MappedFile]:
    """Return three mapped files: small f32 numbers, arbitrary bytes (some are NaN as numbers), and a closed file."""
    files = [nn.MappedFile(file, "a file of the fuzzer") for file in open_files()[:3]]
    files[-1].close()
    return files


@functools.cache
def open_files() -> list[Any]:
    """Return three open files with content, an empty open file, and a closed file."""
    contents = [np.linspace(-1, 1, 1024, dtype=np.float32).tobytes(), bytes(range(256)) * 16, b"1234", b"", b"closed"]
    files: list[Any] = [tempfile.TemporaryFile() for _ in contents]  # noqa: SIM115 (open until the process ends)
    for file, content in zip(files, contents, strict=True):
        file.write(content)
        file.flush()
    files[-1].close()
    return files


class Arguments:
    """A session, a second session whose tensors do not belong to the first, and the tensors created so far."""

    def __init__(self, pick: random.Random, session: Session) -> None:
        self.random = pick
        self.session = session
        self.other = Session(n_threads=1)
        self.foreign = nn.tnn_input_1d_f32_persistent(self.other, 4)
        self.tensors: list[nn.Tensor] = []
        self.step: nn.TrainStep | None = None

    def arguments(self, function: Callable[..., Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and keyword arguments for one call."""
        arguments: list[Any] = []
        options: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.annotation == "Session":
                arguments.append(self.a_session())
            elif parameter.default is not parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
                if self.random.random() < 0.5:
                    break
                arguments.append(self.argument(str(parameter.annotation), name))
            elif parameter.kind is parameter.KEYWORD_ONLY:
                if self.random.random() < 0.5:
                    options[name] = self.argument(str(parameter.annotation), name)
            else:
                arguments.append(self.argument(str(parameter.annotation), name))
        return arguments, options

    def a_session(self) -> Any:
        return self.session if self.random.random() < 0.99 else self.random.choice([self.other, None])

    def argument(self, annotation: str, name: str) -> Any:
        pick = self.random
        if pick.random() < 0.04:
            return pick.choice(OTHER_OBJECTS)
        if annotation.startswith("Sequence[Tensor]"):
            return [self.tensor() for _ in range(pick.choice([0, 1, 1, 2, 2, 3, 5]))]
        if annotation.startswith("Tensor"):
            return None if "None" in annotation and pick.random() < 0.5 else self.tensor()
        simple = self.number(annotation)
        if simple is not None:
            return simple
        if annotation.startswith("str"):
            return pick.choice(["w", "", "x" * 63, "x" * 64, "a\0b", "é", "\ud800"])
        if annotation.startswith("TrainStep"):
            if self.step is not None and pick.random() < 0.7:
                return self.step
            return nn.TrainStep(self.tensor(), self.tensor(), self.tensor(), self.tensor())
        return self.array(name) if annotation in ARRAYS else self.stored(annotation, name)

    def stored(self, annotation: str, name: str) -> Any:
        """Return an argument that is a file, or stored numbers and their shape."""
        pick = self.random
        if annotation == "BinaryIO":
            return pick.choice(open_files())
        if annotation == "MappedFile":
            return pick.choice(mapped_files())
        if annotation == "tuple[int, ...]":
            return pick.choice([(4,), (4,), (2, 2), (32,), (), (-1, -4), (2**62, 4)])
        if annotation == "npt.NDArray[np.uint8]":
            return np.full(pick.choice([8, 8, 8, 18, 0]), pick.choice([0, 60, 127]), pick.choice(["u1", "u1", "i1"]))
        if annotation.startswith("FloatArray"):
            return np.ones(pick.choice([(1,), (32,), (2, 256), (0,), (2, 3)]), pick.choice(["f4", "f4", "f8"]))
        raise NotImplementedError(f"fuzz_arguments.py cannot make an argument for {name}: {annotation}")

    def number(self, annotation: str) -> Any:
        """Return an argument of type int, float, bool or RandomState, or None for a parameter of another type."""
        pick = self.random
        if annotation.startswith("RandomState"):
            return nn.RandomState(self.argument("int", ""), self.argument("int", ""))
        if annotation.startswith("int"):
            return pick.choice(SMALL if pick.random() < 0.8 else INTEGERS)
        if annotation == "float":
            return pick.choice(FLOATS if pick.random() < 0.4 else [1e-5, 0.5, 1.0, 10000.0])
        return pick.random() < 0.5 if annotation == "bool" else None

    def tensor(self) -> Any:
        pick = self.random
        if not self.tensors or pick.random() < 0.03:
            return pick.choice([self.foreign, None, 7, nn.Tensor(self.session, pick.choice([1, 2**40, 2**62 + 5]))])
        return pick.choice(self.tensors)

    def array(self, name: str) -> Any:
        pick = self.random
        if self.tensors and pick.random() < 0.8:
            of = pick.choice(self.tensors)
            try:
                shape = (math.prod(of.ne[1:]), of.ne[0])
            except TinyNNError:
                shape = (2, 3)
            shape = shape if math.prod(shape) <= LARGEST else (2, 3)
        else:
            shape = (pick.choice(SMALL), pick.choice(SMALL))
        numbers = np.random.default_rng(pick.randrange(2**32))
        if name in ("ids", "targets") or pick.random() < 0.3:
            values: Any = numbers.integers(-1, 4, shape[0] * shape[1])
        else:
            values = numbers.standard_normal(shape)
            if pick.random() < 0.1:
                values[0, 0] = pick.choice([math.nan, math.inf, 1e39, 1e-42])
        form = pick.randrange(8)
        if form == 0:
            return np.asfortranarray(values)
        if form == 1:
            return values[::2]
        if form == 2:
            return values.astype(">f8")
        if form == 3:
            return values.tolist()
        return values
