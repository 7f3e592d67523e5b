"""TrainedModel: a model as values alone, as it is saved, sent elsewhere and taken back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import boolean, integer, same_weights
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.model.config import SmolLM2Config


def weight_shapes(cfg: SmolLM2Config, untied: bool, qkv_bias: bool) -> dict[str, tuple[int, ...]]:
    """Every weight of the fused layout by name, row-major (rows, cols), in the order in which an engine declares them.

    Raises TinyNNValueError for a projection lens without untied: a donor's embedding cannot be the head.
    """
    heads = {"q": cfg.n_heads, "k": cfg.n_kv, "v": cfg.n_kv}
    shapes: dict[str, tuple[int, ...]] = {}
    if cfg.donor_d_in > 0:
        if not untied:
            raise TinyNNValueError(
                f"donor_d_in = {cfg.donor_d_in} needs untied=True: a donor's embedding cannot be the head"
            )
        shapes["token_embd.weight"] = (cfg.vocab, cfg.donor_d_in)
        shapes["lens.proj.weight"] = (cfg.d_model, cfg.donor_d_in)
    else:
        shapes["token_embd.weight"] = (cfg.vocab, cfg.d_model)
    shapes["output_norm.weight"] = (cfg.d_model,)
    if untied:
        shapes["output.weight"] = (cfg.vocab, cfg.d_model)
    for i in range(cfg.n_layers):
        blk = f"blk.{i}"
        shapes[f"{blk}.attn_norm.weight"] = (cfg.d_model,)
        shapes[f"{blk}.ffn_norm.weight"] = (cfg.d_model,)
        for x, n in heads.items():
            shapes[f"{blk}.attn_{x}.weight"] = (n * cfg.head_dim, cfg.d_model)
        shapes[f"{blk}.attn_output.weight"] = (cfg.d_model, cfg.n_heads * cfg.head_dim)
        shapes[f"{blk}.ffn_gate.weight"] = (cfg.d_ff, cfg.d_model)
        shapes[f"{blk}.ffn_up.weight"] = (cfg.d_ff, cfg.d_model)
        shapes[f"{blk}.ffn_down.weight"] = (cfg.d_model, cfg.d_ff)
        if qkv_bias:
            for x, n in heads.items():
                shapes[f"{blk}.attn_{x}.bias"] = (n * cfg.head_dim,)
    return shapes


@dataclass(frozen=True)
class TrainedModel:
    """A model's shape, weights and tokenizer; no session, no moments.

    cfg, untied, qkv_bias: as for `LlamaDecoder`.
    weights: every weight of the fused layout by name, float32, of the shapes that `weight_shapes` tells.
    tokenizer: the content of a tokenizer.json, or None.
    eos_id: the token that ends a text. bos_id: the one that a text may start after. None: there is none.

    Raises TinyNNTypeError or TinyNNValueError that names the field or the weight: one missing, one too many, another
    shape or dtype, a number that is not finite.
    """

    cfg: SmolLM2Config
    untied: bool
    qkv_bias: bool
    weights: dict[str, npt.NDArray[np.float32]]
    tokenizer: bytes | None
    eos_id: int | None = None
    bos_id: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cfg, SmolLM2Config):
            raise TinyNNTypeError(f"cfg must be a SmolLM2Config, got {type(self.cfg).__name__}")
        if not isinstance(self.weights, dict):
            raise TinyNNTypeError(f"weights must be a dict, got {type(self.weights).__name__}")
        if not isinstance(self.tokenizer, bytes | None):
            raise TinyNNTypeError(
                f"tokenizer must be the bytes of a tokenizer.json, or None, got {type(self.tokenizer).__name__}"
            )
        for name in ("eos_id", "bos_id"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, integer(name, value, 0, self.cfg.vocab - 1))
        if self.cfg.n_layers > len(self.weights):  # before the names of so many layers are made
            raise TinyNNValueError(f"weights: {len(self.weights)} are too few for n_layers = {self.cfg.n_layers}")
        shapes = weight_shapes(self.cfg, boolean("untied", self.untied), boolean("qkv_bias", self.qkv_bias))
        same_weights(self.weights, shapes)
        for name, shape in shapes.items():
            _fits(name, self.weights[name], shape)
        object.__setattr__(self, "weights", {name: self.weights[name] for name in shapes})


def _fits(name: str, values: object, shape: tuple[int, ...]) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        kind = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise TinyNNTypeError(f"{name} must be an array of float32, got {kind}")
    if values.shape != shape:
        raise TinyNNValueError(f"{name} must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise TinyNNValueError(f"{name} holds {values[at]} at {list(at)}")
