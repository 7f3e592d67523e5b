"""The section [model] of the configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from toynn.arguments import instance_of, integer, positive
from toynn.documented_fields import documented
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.shape import ModelShape


@dataclass(frozen=True)
class ModelArgs(ModelShape):
    """The shape of a new model without its vocabulary size, which comes from the data. See `ModelShape` for the fields.

    vocab: a placeholder, which `shape` replaces. head_dim: 0 means d_model // n_heads; `shape` replaces it too.
    init_scale: factor of the standard deviation of the initial weights. None: the default, which
        `TrainConfig.explicit` sets. It is not part of the shape.
    embedding_std: standard deviation of the initial embedding, and of the initial output of an untied model. None: the
        default, which `TrainConfig.explicit` sets. It is not part of the shape.
    """

    vocab: int = field(default=1, init=False, repr=False, compare=False)
    d_model: int = 128
    n_heads: int = 4
    n_kv: int = 4
    d_ff: int = 384
    n_layers: int = 4
    ctx: int = 256
    rope_base: float = 10000.0
    rms_eps: float = 1e-5
    init_scale: float | None = documented(
        None,
        "the initial values of a matrix in the layers have the standard deviation init_scale / sqrt(number of "
        "columns). Default: 0.12",
    )
    embedding_std: float | None = documented(
        None,
        "standard deviation of the initial values of the embedding, and of the output matrix of an untied model. "
        "Default: 0.02",
    )

    def __post_init__(self) -> None:
        derived = integer("model.head_dim", self.head_dim, 0) == 0
        if self.init_scale is not None:
            object.__setattr__(self, "init_scale", positive("model.init_scale", self.init_scale))
        if self.embedding_std is not None:
            object.__setattr__(self, "embedding_std", positive("model.embedding_std", self.embedding_std))
        try:
            super().__post_init__()
        except TinyNNTypeError as error:
            raise TinyNNTypeError(f"model.{error}") from None
        except TinyNNValueError as error:
            raise TinyNNValueError(f"model.{error}") from None
        if derived:
            object.__setattr__(self, "head_dim", 0)

    def shape(self, vocab: int) -> ModelShape:
        """Return the shape of the model with this vocabulary size."""
        values = {one.name: getattr(self, one.name) for one in fields(ModelShape)}
        return ModelShape(**{**values, "vocab": vocab})

    @classmethod
    def of_shape(cls, shape: ModelShape) -> ModelArgs:
        """Return the arguments that describe an existing model. Raises TinyNNTypeError if shape is not a ModelShape."""
        instance_of("shape", shape, ModelShape)
        return cls(**{one.name: getattr(shape, one.name) for one in fields(shape) if one.name != "vocab"})

    def first_difference(self, other: ModelArgs) -> str | None:
        """Return the first key in which two shapes differ, or None if they are equal.

        init_scale and embedding_std are not compared. A head_dim of 0 is compared as d_model // n_heads.
        """
        instance_of("other", other, ModelArgs)
        return self.shape(vocab=1).differing_field(other.shape(vocab=1))
