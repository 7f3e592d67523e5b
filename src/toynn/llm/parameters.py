"""The weights of a model on a session: declared, drawn or uploaded, and read by name."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, not_finite, same_weights, text
from toynn.errors import TinyNNValueError
from toynn.llm.tuning import EVERYTHING, Tuning
from toynn.model.init_streams import GaussianStream
from toynn.model.shape import ModelShape
from toynn.model.spread import Spread
from toynn.model.weights import ADAPTER_A, Weight, weights_by_head_of
from toynn.tinynn import (
    TNN_BF16,
    TNN_F32,
    Session,
    Tensor,
    download_row_major,
    tnn_input_1d_f32_persistent,
    tnn_input_2d_f32_persistent,
    tnn_input_2d_persistent_typed,
    tnn_set_param,
    tnn_tensor_set_bf16_products,
    tnn_tensor_set_name,
    tnn_upload_from_float_array,
)
from toynn.tinynn.arrays import float_array


@dataclass(frozen=True)
class Affine:
    """A weight and its bias, as graph code uses them. name: the weight's name without its layer, like "attn_norm".

    dtype: the weight is rounded to this dtype where it is used. None: it is used as it is.
    lora_a, lora_b: the matrices A (rank, d_in) and B (d_out, rank) of the weight's adapter. None: there is no adapter.
    """

    name: str
    weight: Tensor
    bias: Tensor | None = None
    dtype: int | None = None
    lora_a: Tensor | None = None
    lora_b: Tensor | None = None


class WeightsByKey:
    """The weights of a layer or of the model by their keys in the table of weights, for example `layer.gate` and
    `layer.heads("q")`.

    layers: one object for each layer, if this object belongs to the model; empty if it belongs to a layer.
    """

    def __init__(self) -> None:
        self.layers: list[WeightsByKey] = []
        self._by_key: dict[str, list[Affine]] = {}

    def __getattr__(self, key: str) -> Affine:
        found = self.__dict__["_by_key"].get(key)
        if found is None:
            raise AttributeError(f"the model has no weight with the key {key!r}")
        return found[0]  # type: ignore[no-any-return]

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def heads(self, key: str) -> list[Affine]:
        """Return the weights of the heads, in the per_head layout."""
        return self._by_key[key]

    def add(self, weight: Weight, tensor: Tensor, dtype: int | None = None) -> None:
        """Add a weight, or add the bias or an adapter matrix of a weight that was added before."""
        of_key, head = self._by_key.setdefault(weight.row.key, []), weight.head or 0
        stem, _, end = weight.row.name.rpartition(".")
        if weight.adapter == ADAPTER_A:
            of_key[head] = replace(of_key[head], lora_a=tensor)
        elif weight.adapter:
            of_key[head] = replace(of_key[head], lora_b=tensor)
        elif end == "weight":
            of_key.append(Affine(stem, tensor, dtype=dtype))
        else:
            of_key[head] = replace(of_key[head], bias=tensor)


@dataclass(frozen=True)
class Parameter:
    """A weight on a session.

    m, v: AdamW's moments in the weight's shape. A weight that Muon updates has only m. Frozen weights, and all weights
        of a model without an optimizer, have no moments.
    bf16_moments: the moments are bfloat16.
    """

    weight: Weight
    tensor: Tensor
    m: Tensor | None
    v: Tensor | None
    trainable: bool
    bf16_moments: bool = False


class Parameters:
    """Declares weights, with the moments of each trained weight after it, and finds weights and moments by name.

    declared: a function that declares a frozen weight in its own type and with its values, or returns None for a weight
        that must be F32. Trained weights are always F32. Default: all weights are F32.
    tuning: which weights are trained, and which adapters the model has.
    optimizer: "adamw", "muon" or "none", as in `RecipeOptions`. It decides which moments a trained weight has.
    weight_dtype: TNN_F16 or TNN_BF16 rounds the matrices of the layers to this dtype where the graph uses them. The
        weights themselves stay F32.
    precision, moments: "f32" or "bf16", as in `RecipeOptions`.

    by_name: all weights in the order of declaration.
    tree: the same weights by layer and key.
    """

    def __init__(
        self,
        session: Session,
        shape: ModelShape,
        weights: Iterable[Weight],
        tuning: Tuning = EVERYTHING,
        weight_dtype: int = TNN_F32,
        declared: Callable[[Session, Weight], Tensor | None] | None = None,
        optimizer: str = "adamw",
        precision: str = "f32",
        moments: str = "f32",
    ) -> None:
        self._s = session
        self._moments = moments
        self._precision = precision
        self._optimizer = optimizer
        self._declared = declared
        self._filled: set[str] = set()  # names of the weights whose values were given at declaration
        self._shape = shape
        self._rounded_to = None if weight_dtype == TNN_F32 else weight_dtype
        self._sizes: dict[str, tuple[Tensor, tuple[int, ...]]] = {}  # keys: names of weights and moments
        self.by_name: dict[str, Parameter] = {}
        self.tree = WeightsByKey()
        self.tree.layers += [WeightsByKey() for _ in range(shape.n_layers)]
        for weight in tuning.with_adapters(shape, weights):
            self._declare(weight, tuning.trains(weight))

    def _declare(self, weight: Weight, trained: bool) -> None:
        stored = None if trained else self._stored(weight)
        tensor = self._named(weight.name, weight.size, self._f32(weight.size) if stored is None else stored)
        if self._precision == "bf16" and len(weight.size) == 2 and not weight.adapter:
            tnn_tensor_set_bf16_products(tensor)
        m = v = None
        bf16_moments = self._moments == "bf16" and len(weight.size) == 2
        if trained:
            tnn_set_param(tensor)
            moments = [
                self._named(weight.name + one, weight.size, self._moment(weight.size, bf16_moments))
                for one in weight.moments(self._optimizer)
            ]
            m, v = (*moments, None, None)[:2]
        self.by_name[weight.name] = Parameter(weight, tensor, m, v, trained, bf16_moments and m is not None)
        if weight.layer is None:
            self.tree.add(weight, tensor)
        else:
            rounded = len(weight.size) == 2 and not weight.adapter
            self.tree.layers[weight.layer].add(weight, tensor, self._rounded_to if rounded else None)

    def _stored(self, weight: Weight) -> Tensor | None:
        """Declare a frozen weight in its own type and with its values. Return None if it must be declared as F32."""
        if self._declared is None or weight.adapter:
            return None
        tensor = self._declared(self._s, weight)
        if tensor is not None:
            self._filled.add(weight.name)
        return tensor

    def _moment(self, size: tuple[int, ...], bf16: bool) -> Tensor:
        return tnn_input_2d_persistent_typed(self._s, size[0], size[1], TNN_BF16) if bf16 else self._f32(size)

    def _f32(self, size: tuple[int, ...]) -> Tensor:
        if len(size) == 1:
            return tnn_input_1d_f32_persistent(self._s, size[0])
        return tnn_input_2d_f32_persistent(self._s, size[0], size[1])

    def _named(self, name: str, size: tuple[int, ...], tensor: Tensor) -> Tensor:
        tnn_tensor_set_name(tensor, name)
        self._sizes[name] = (tensor, size)
        return tensor

    def draw(self, stream: GaussianStream, spread: Spread) -> None:
        """Upload the initial values.

        They are drawn from one stream, head by head, so that both layouts start from the same values.
        """
        drawn: defaultdict[str, list[FloatArray]] = defaultdict(list)
        missing = {name: math.prod(one.weight.size) for name, one in self.by_name.items()}
        for part in weights_by_head_of(self._shape):
            name = part.name if part.name in self.by_name else part.whole
            n = math.prod(part.size)
            if part.row.std is None:
                values = np.full(n, part.row.fill, dtype=np.float32)
            else:
                values = stream.gaussian(n, part.row.std(self._shape, spread))
            drawn[name].append(values)
            missing[name] -= n
            if missing[name] == 0:  # upload now, so that only a few weights are in memory twice
                parts = drawn.pop(name)
                whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
                tnn_upload_from_float_array(self._s, self.by_name[name].tensor, whole)

    def in_step_order(self) -> list[Parameter]:
        """Return the trained weights in the order of their optimizer steps: the weights of the layers come first."""
        trained = [one for one in self.by_name.values() if one.trainable]
        # The sort is stable: the order of declaration stays within each group.
        return sorted(trained, key=lambda one: one.weight.layer is None)

    def tensor(self, name: str) -> tuple[Tensor, tuple[int, ...]]:
        """Return the tensor of a weight or moment, and its size. Raises TinyNNValueError for an unknown name."""
        if text("name", name) not in self._sizes:
            raise TinyNNValueError(f"name must be the name of a weight or of its moment, got {name!r}")
        return self._sizes[name]

    def download(self, name: str) -> FloatArray:
        """Return the values of a weight or moment as float32 in its shape."""
        tensor, size = self.tensor(name)
        return download_row_major(self._s, tensor, math.prod(size[:-1]), size[-1]).reshape(size)

    def fill(self, values: Callable[[Weight], FloatArray]) -> None:
        """Set the weights that were declared without values. The matrices of adapters stay zero."""
        for name, one in self.by_name.items():
            if name not in self._filled and not one.weight.adapter:
                self.upload(name, values(one.weight))

    def upload_all(self, weights: Mapping[str, npt.ArrayLike]) -> None:
        """Set all weights. Raises TinyNNValueError, before anything changes, if a weight is missing or unknown."""
        same_weights(weights, self.by_name)
        for name in self.by_name:
            self.upload(name, weights[name])

    def upload(self, name: str, values: npt.ArrayLike) -> None:
        """Set a weight or moment to the values of an array of its size.

        Raises TinyNNValueError or TinyNNTypeError for any other value, or for an unknown name.
        """
        tensor, size = self.tensor(name)
        array = float_array("values", values, math.prod(size))
        if array.shape != size:
            raise TinyNNValueError(f"values for {name} must have shape {size}, got {array.shape}")
        if (wrong := not_finite(array)) is not None:
            raise TinyNNValueError(f"values for {name} must be finite numbers, got {wrong}")
        tnn_upload_from_float_array(self._s, tensor, array)
