"""The named weights of a model: declared in order on a session, drawn from one stream, moved by name."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, same_weights, text
from toynn.errors import TinyNNValueError
from toynn.model.init_streams import Lcg31Stream, XorShift64Stream
from toynn.tinynn import (
    TNN_F32,
    Session,
    Tensor,
    download_row_major,
    tnn_input_1d_f32_persistent,
    tnn_input_2d_f32_persistent,
    tnn_input_2d_persistent,
    tnn_set_param,
    tnn_tensor_set_name,
    tnn_upload_from_float_array,
)
from toynn.tinynn.memory import float_array


@dataclass(frozen=True)
class Weight:
    """One weight: its tensor, its row-major shape and how it starts.

    shape: (rows, cols), or (n,) for a norm's gamma or a bias.
    std: spread of its random start; 0 means that it draws nothing and starts at `fill`.
    m, v: the optimizer's moments, of the same shape; None for a frozen weight.
    """

    name: str
    tensor: Tensor
    shape: tuple[int, ...]
    std: float
    fill: float
    m: Tensor | None
    v: Tensor | None

    @property
    def trainable(self) -> bool:
        return self.m is not None


class WeightTable:
    """Declares weights, each followed by its moments X.m and X.v, and remembers them by name in that order.

    weight_dtype is that of the matrices; gammas, biases and moments are always F32. Only F32 can be trained (ggml's CPU
    backward knows no other), so with another weight_dtype nothing is a parameter and no moments are declared; nor are
    they where nothing is to be trained at all.
    """

    def __init__(self, session: Session, weight_dtype: int, trains: bool = True) -> None:
        self._s = session
        self._weight_dtype = weight_dtype
        self._trains = trains and weight_dtype == TNN_F32
        self._tensors: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
        self._draws: list[tuple[str, int, int]] = []  # weight, first row, rows
        self.weights: dict[str, Weight] = {}

    def matrix(self, name: str, rows: int, cols: int, std: float, trainable: bool = True) -> Tensor:
        """A (rows, cols) weight, ne=[cols, rows], drawn with spread std in one go."""
        self._draws.append((name, 0, rows))
        return self._matrix(name, rows, cols, std, trainable)

    def matrix_drawn_by_rows(self, name: str, rows: int, cols: int, std: float) -> Tensor:
        """The same, but drawn only as `draw_rows` says."""
        return self._matrix(name, rows, cols, std, True)

    def draw_rows(self, name: str, first: int, rows: int) -> None:
        """The next draw from the stream is for these rows of the matrix called name."""
        self._draws.append((name, first, rows))

    def _matrix(self, name: str, rows: int, cols: int, std: float, trainable: bool) -> Tensor:
        tensor = tnn_input_2d_persistent(self._s, self._weight_dtype, cols, rows)
        return self._add(name, tensor, (rows, cols), std, 0.0, trainable)

    def vector(self, name: str, n: int, fill: float) -> Tensor:
        """An (n,) weight, ne=[n], that starts at fill."""
        return self._add(name, tnn_input_1d_f32_persistent(self._s, n), (n,), 0.0, fill, True)

    def _add(
        self, name: str, tensor: Tensor, shape: tuple[int, ...], std: float, fill: float, trainable: bool
    ) -> Tensor:
        self._record(name, tensor, shape)
        m = v = None
        if trainable and self._trains:
            tnn_set_param(self._s, tensor)
            m, v = self._moment(f"{name}.m", shape), self._moment(f"{name}.v", shape)
        self.weights[name] = Weight(name, tensor, shape, std, fill, m, v)
        return tensor

    def _moment(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if len(shape) == 1:
            moment = tnn_input_1d_f32_persistent(self._s, shape[0])
        else:
            moment = tnn_input_2d_f32_persistent(self._s, shape[1], shape[0])
        self._record(name, moment, shape)
        return moment

    def _record(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
        tnn_tensor_set_name(self._s, tensor, name)
        self._tensors[name] = (tensor, shape)

    def draw(self, stream: Lcg31Stream | XorShift64Stream) -> None:
        """Uploads every weight's start, drawn in declaration order (or that of `draw_rows`) from one stream."""
        drawn: dict[str, list[tuple[int, FloatArray]]] = {}
        left: Counter[str] = Counter()
        for name, _, rows in self._draws:
            left[name] += rows
        for name, first, rows in self._draws:
            weight = self.weights[name]
            values = stream.gaussian(rows * weight.shape[1], weight.std)
            drawn.setdefault(name, []).append((first, values))
            left[name] -= rows
            if left[name] == 0:  # complete: on its way, so that no more than a few are held twice
                parts = [values for _, values in sorted(drawn.pop(name), key=lambda part: part[0])]
                tnn_upload_from_float_array(
                    self._s, weight.tensor, parts[0] if len(parts) == 1 else np.concatenate(parts)
                )
        for weight in self.weights.values():
            if weight.std == 0:
                fill = np.full(math.prod(weight.shape), weight.fill, dtype=np.float32)
                tnn_upload_from_float_array(self._s, weight.tensor, fill)

    def tensor(self, name: str) -> tuple[Tensor, tuple[int, ...]]:
        """The weight or moment called name, with its row-major shape. Raises TinyNNValueError where there is none."""
        if text("name", name) not in self._tensors:
            raise TinyNNValueError(f"name: the model has no weight called {name!r}")
        return self._tensors[name]

    def download(self, name: str) -> FloatArray:
        """The weight or moment called name, as float32 of its row-major shape."""
        tensor, shape = self.tensor(name)
        return download_row_major(self._s, tensor, math.prod(shape[:-1]), shape[-1]).reshape(shape)

    def upload_all(self, weights: Mapping[str, npt.ArrayLike]) -> None:
        """Sets every weight. Raises TinyNNValueError, before anything changes, for one that is missing or unknown."""
        same_weights(weights, self.weights)
        for name in self.weights:
            self.upload(name, weights[name])

    def upload(self, name: str, values: npt.ArrayLike) -> None:
        """Sets the weight or moment called name from an array of its row-major shape."""
        tensor, shape = self.tensor(name)
        array = float_array("values", values)
        if array.shape != shape:
            raise TinyNNValueError(f"values for {name} must have shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise TinyNNValueError(f"values for {name} must be finite")
        tnn_upload_from_float_array(self._s, tensor, array)
