"""The table of weights. Each weight of a model is one row here, and everything else about weights is derived from the
rows.

A new architecture adds rows, with flags of `ModelShape` that say which models have them. A model of the fused layout
has one weight for each row; the per_head layout cuts the rows with heads into one weight for each head.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from toynn.errors import TinyNNValueError
from toynn.model.config import SmolLM2Config
from toynn.model.shape import ModelShape
from toynn.model.spread import Spread

MAX_LAYERS = 4096  # declaring the weights of more layers would take minutes
OPTIMIZERS, NO_OPTIMIZER = ("adamw", "muon"), "none"  # none: the session computes gradients, but no updates
UNAVERAGED = ".w"  # if the weight X of a checkpoint is an average, X.w is the weight itself
MOMENTS = (".m", ".v")  # AdamW's moments of the weight X are X.m and X.v; Muon's momentum is X.m


@dataclass(frozen=True)
class Row:
    """One row of the table.

    key: the name in the model code. A weight and its bias have the same key.
    name: llama.cpp's name, without "blk.N." for the weights of a layer.
    size: (rows, cols), or (n,) for a norm or a bias.
    hf: Hugging Face's name, without "model.layers.N."; "" if there is none.
    std: a function of the shape and the spread that returns the standard deviation of the initial values. None: all
        values start at `fill`.
    heads: a function that returns the number of heads that share the rows. None: the rows do not belong to heads.
    rotated: whether RoPE rotates the rows of each head, so that their order differs between file formats.
    takes_turns: the heads of neighbouring rows with the same value are declared and drawn in turn: head 0 of each row,
        then head 1 of each row, and so on.
    hf_with_post_norms: Hugging Face's name in models with `ModelShape.post_norms`. "": the same as `hf`.
    flag: the field of `ModelShape` that must not be 0 or False in a model that has the weight. "": all models have it.
    frozen_by: the field of `ModelShape` that freezes the weight unless it is 0 or False. "": it is always trained.
    """

    key: str
    name: str
    size: Callable[[SmolLM2Config], tuple[int, ...]]
    hf: str = ""
    std: Callable[[SmolLM2Config, Spread], float] | None = None
    fill: float = 0.0
    heads: Callable[[SmolLM2Config], int] | None = None
    rotated: bool = False
    takes_turns: str = ""
    hf_with_post_norms: str = ""
    flag: str = ""
    frozen_by: str = ""

    def is_in(self, shape: ModelShape) -> bool:
        """Return whether a model of this shape has the weight."""
        return not self.flag or bool(getattr(shape, self.flag))


def _std_of_embedding(_: SmolLM2Config, spread: Spread) -> float:
    return spread.embedding_std


def _std_of_model(c: SmolLM2Config, spread: Spread) -> float:
    return spread.init_scale / math.sqrt(c.d_model)


def _q_heads(c: SmolLM2Config) -> int:
    return c.n_heads


def _kv_heads(c: SmolLM2Config) -> int:
    return c.n_kv


# The order of the rows is the order in which weights are declared and their initial values are drawn.
GLOBAL_ROWS = (
    Row("embedding", "token_embd.weight", lambda c: (c.vocab, c.donor_d_in or c.d_model), "model.embed_tokens.weight",
        _std_of_embedding, frozen_by="donor_d_in"),
    Row("lens", "lens.proj.weight", lambda c: (c.d_model, c.donor_d_in),
        std=lambda c, _: 1.0 / math.sqrt(c.donor_d_in), flag="donor_d_in"),
    Row("output_norm", "output_norm.weight", lambda c: (c.d_model,), "model.norm.weight", fill=1.0),
    Row("output", "output.weight", lambda c: (c.vocab, c.d_model), "lm_head.weight", _std_of_embedding,
        flag="untied"),
)  # fmt: skip
LAYER_ROWS = (
    Row("attn_norm", "attn_norm.weight", lambda c: (c.d_model,), "input_layernorm.weight", fill=1.0),
    Row("ffn_norm", "ffn_norm.weight", lambda c: (c.d_model,), "post_attention_layernorm.weight", fill=1.0,
        hf_with_post_norms="pre_feedforward_layernorm.weight"),
    Row("q", "attn_q.weight", lambda c: (c.n_heads * c.head_dim, c.d_model), "self_attn.q_proj.weight",
        _std_of_model, heads=_q_heads, rotated=True),
    Row("k", "attn_k.weight", lambda c: (c.n_kv * c.head_dim, c.d_model), "self_attn.k_proj.weight",
        _std_of_model, heads=_kv_heads, rotated=True, takes_turns="kv weights"),
    Row("v", "attn_v.weight", lambda c: (c.n_kv * c.head_dim, c.d_model), "self_attn.v_proj.weight",
        _std_of_model, heads=_kv_heads, takes_turns="kv weights"),
    Row("o", "attn_output.weight", lambda c: (c.d_model, c.n_heads * c.head_dim), "self_attn.o_proj.weight",
        _std_of_model),
    Row("gate", "ffn_gate.weight", lambda c: (c.d_ff, c.d_model), "mlp.gate_proj.weight", _std_of_model),
    Row("up", "ffn_up.weight", lambda c: (c.d_ff, c.d_model), "mlp.up_proj.weight", _std_of_model),
    Row("down", "ffn_down.weight", lambda c: (c.d_model, c.d_ff), "mlp.down_proj.weight",
        lambda c, spread: spread.init_scale / math.sqrt(c.d_ff)),
    Row("q", "attn_q.bias", lambda c: (c.n_heads * c.head_dim,), "self_attn.q_proj.bias",
        heads=_q_heads, rotated=True, flag="qkv_bias"),
    Row("k", "attn_k.bias", lambda c: (c.n_kv * c.head_dim,), "self_attn.k_proj.bias",
        heads=_kv_heads, rotated=True, takes_turns="kv biases", flag="qkv_bias"),
    Row("v", "attn_v.bias", lambda c: (c.n_kv * c.head_dim,), "self_attn.v_proj.bias",
        heads=_kv_heads, takes_turns="kv biases", flag="qkv_bias"),
    Row("q_norm", "attn_q_norm.weight", lambda c: (c.head_dim,), "self_attn.q_norm.weight", fill=1.0, flag="qk_norm"),
    Row("k_norm", "attn_k_norm.weight", lambda c: (c.head_dim,), "self_attn.k_norm.weight", fill=1.0, flag="qk_norm"),
    Row("attn_post_norm", "post_attention_norm.weight", lambda c: (c.d_model,), "post_attention_layernorm.weight",
        fill=1.0, flag="post_norms"),
    Row("ffn_post_norm", "post_ffw_norm.weight", lambda c: (c.d_model,), "post_feedforward_layernorm.weight",
        fill=1.0, flag="post_norms"),
)  # fmt: skip

# Weights that files of other programs may contain, but toynn's models do not have. Their values must be zero.
FOREIGN_ROWS = (Row("o", "attn_output.bias", lambda c: (c.d_model,), "self_attn.o_proj.bias"),)

FEWEST_PER_LAYER = sum(not row.flag for row in LAYER_ROWS)


@dataclass(frozen=True)
class Weight:
    """A weight of one model.

    size: (rows, cols), or (n,).
    layer: None for a weight outside the layers.
    head: None for a whole weight.
    whole: the name of the weight in the fused layout that contains this weight. For a whole weight it equals `name`.
    adapter: "lora_a" or "lora_b" for a matrix of a low-rank adapter, else "". For such a matrix, `row` is the row of
        the adapted weight.
    """

    row: Row
    shape: ModelShape
    name: str
    size: tuple[int, ...]
    layer: int | None
    head: int | None
    whole: str
    adapter: str = ""

    @property
    def trainable(self) -> bool:
        return not (self.row.frozen_by and getattr(self.shape, self.row.frozen_by))

    @property
    def decays(self) -> bool:
        """True if AdamW's weight decay applies to this weight: it applies to matrices, not to norms and biases."""
        return len(self.size) > 1

    def moments(self, optimizer: str) -> tuple[str, ...]:
        """Return the suffixes of the moments that an optimizer keeps for this weight: ".m", ".v", both or neither.

        optimizer: "adamw", "muon" or "none". Muon keeps one moment for each matrix of a layer. All other weights have
        the two moments of AdamW.
        """
        by_muon = optimizer == "muon" and self.layer is not None and len(self.size) == 2
        return () if optimizer == NO_OPTIMIZER else MOMENTS[:1] if by_muon else MOMENTS

    @property
    def rotated_heads(self) -> int:
        """The number of heads whose rows RoPE rotates; 0 if it rotates none."""
        return self.row.heads(self.shape) if self.row.rotated and self.row.heads is not None else 0

    @property
    def hf_name(self) -> str:
        """The weight's name in Hugging Face's format. Raises TinyNNValueError if there is none."""
        if not self.row.hf:
            raise TinyNNValueError(
                f"the weight {self.name} has no name in the Hugging Face format, so it cannot be exported"
            )
        name = self.row.hf_with_post_norms if self.row.hf_with_post_norms and self.shape.post_norms else self.row.hf
        return name if self.layer is None else f"model.layers.{self.layer}.{name}"


def weights_of(shape: ModelShape) -> list[Weight]:
    """Return the weights of the fused layout in the order of declaration.

    Raises TinyNNValueError for more layers than MAX_LAYERS.
    """
    return [_whole(row, shape, layer) for layer, rows in _rows_by_layer(shape) for row in rows]


def weights_by_head_of(shape: ModelShape) -> list[Weight]:
    """Return the weights of the per_head layout in the order in which they are declared and initial values are drawn.

    Raises TinyNNValueError for more layers than MAX_LAYERS.
    """
    weights = []
    for layer, rows in _rows_by_layer(shape):
        for _, neighbours in groupby(rows, key=lambda row: row.takes_turns or row.name):
            in_turn = [_heads(row, shape, layer) for row in neighbours]
            weights += [weight for turn in zip(*in_turn, strict=True) for weight in turn]
    return weights


def foreign_weights_of(shape: ModelShape) -> list[Weight]:
    """Return weights that toynn's models do not have. A file of another program can contain them if all their values
    are zero.
    """
    if shape.architecture != "llama":
        return []
    own = {row.name for row in LAYER_ROWS if row.is_in(shape)}
    return [_whole(row, shape, i) for i in range(shape.n_layers) for row in FOREIGN_ROWS if row.name not in own]


def _rows_by_layer(shape: ModelShape) -> Iterator[tuple[int | None, list[Row]]]:
    if shape.n_layers > MAX_LAYERS:
        raise TinyNNValueError(f"n_layers must be at most {MAX_LAYERS}, got {shape.n_layers}")
    yield None, [row for row in GLOBAL_ROWS if row.is_in(shape)]
    in_layer = [row for row in LAYER_ROWS if row.is_in(shape)]
    for layer in range(shape.n_layers):
        yield layer, in_layer


def _whole(row: Row, shape: ModelShape, layer: int | None) -> Weight:
    name = row.name if layer is None else f"blk.{layer}.{row.name}"
    return Weight(row, shape, name, row.size(shape), layer, None, name)


def _heads(row: Row, shape: ModelShape, layer: int | None) -> list[Weight]:
    whole = _whole(row, shape, layer)
    if row.heads is None:
        return [whole]
    n, (stem, end) = row.heads(shape), whole.name.rsplit(".", 1)
    size = (whole.size[0] // n, *whole.size[1:])
    return [replace(whole, name=f"{stem}.head_{head}.{end}", size=size, head=head) for head in range(n)]


# ---- low-rank adapters ----

ADAPTER_A, ADAPTER_B = "lora_a", "lora_b"


def adapter_of(weight: Weight, rank: int) -> tuple[Weight, Weight]:
    """Return the two matrices of the adapter of a weight (d_out, d_in): A (rank, d_in) and B (d_out, rank)."""
    stem, end = weight.name.rsplit(".", 1)
    return _adapter(weight, rank, f"{stem}.{{}}.{end}")


def _adapter(weight: Weight, rank: int, name: str) -> tuple[Weight, Weight]:
    """Return the matrices A and B of the adapter of a weight. name: their names, with {} for "lora_a" or "lora_b"."""
    d_out, d_in = weight.size

    def part(adapter: str, size: tuple[int, int]) -> Weight:
        full = name.format(adapter)
        return replace(weight, name=full, size=size, whole=full, adapter=adapter)

    return part(ADAPTER_A, (rank, d_in)), part(ADAPTER_B, (d_out, rank))


def adapter_weights_of(shape: ModelShape, keys: Collection[str], rank: int) -> list[Weight]:
    """Return the matrices of the adapters of the fused layout in the order of declaration, A before B for each weight.

    keys: the keys of the adapted matrices, for example {"q", "v"}. A matrix X has the adapter X.lora_a, (rank, d_in),
    and X.lora_b, (d_out, rank).

    Raises TinyNNValueError, which names the weight, if the rank is larger than a dimension of an adapted matrix, or if
    the model has no matrix with one of the keys.
    """
    adapted = [weight for weight in weights_of(shape) if len(weight.size) == 2 and weight.row.key in keys]
    if missing := set(keys) - {weight.row.key for weight in adapted}:
        key = min(missing)
        reason = "; the output matrix of this model is its embedding" if key == "output" else ""
        raise TinyNNValueError(f"targets must not contain {key!r}, because the model has no matrix {key!r}{reason}")
    result: list[Weight] = []
    for weight in adapted:
        if rank > min(weight.size):
            raise TinyNNValueError(
                f"rank must be at most {min(weight.size)} for {weight.name}, which has shape {weight.size}, got {rank}"
            )
        result += _adapter(weight, rank, f"{weight.name}.{{}}")
    return result


def with_q_adapters(weights: Iterable[Weight], rank: int) -> list[Weight]:
    """Return the weights, with the adapter matrices A and B after each weight of q."""
    result = []
    for weight in weights:
        result.append(weight)
        if weight.row.key == "q" and len(weight.size) == 2:
            result += adapter_of(weight, rank)
    return result


def _peft_name(row: Row) -> str:
    """Return the name of a matrix as the module of a Hugging Face model, for example "q_proj"."""
    return row.hf.split(".")[-2]


ADAPTABLE = {
    row.key: _peft_name(row)
    for row in (*LAYER_ROWS, *GLOBAL_ROWS)
    if row.std is not None and row.key not in ("embedding", "lens")
}
"""The keys of the matrices that can have an adapter, each with the name of its module in a Hugging Face model."""


# ---- groups of weights ----

GROUPS: dict[str, Callable[[Weight], bool]] = {
    "norms": lambda weight: "norm" in weight.row.key,
    "biases": lambda weight: len(weight.size) == 1 and "norm" not in weight.row.key,
    "attention": lambda weight: weight.row.key in ("q", "k", "v", "o"),
    "feed_forward": lambda weight: weight.row.key in ("gate", "up", "down"),
    "embedding": lambda weight: weight.row.key == "embedding",
    "output": lambda weight: weight.row.key == "output",
}
"""The names of groups of weights, and a function that returns whether a weight belongs to the group."""


# ---- values derived from the weights ----


def weight_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Return the size of each weight of the fused layout by name, (rows, cols) or (n,), in the order of declaration."""
    return {weight.name: weight.size for weight in weights_of(shape)}


def variants_in(names: Collection[str]) -> dict[str, Any]:
    """Return the flags that are fields of `ModelShape`, each True if a file contains a weight of this flag."""
    found: dict[str, bool] = {}
    for row in (*GLOBAL_ROWS, *LAYER_ROWS):
        if row.flag in ModelShape.__dataclass_fields__ and row.hf:
            name = row.name if row in GLOBAL_ROWS else f"blk.0.{row.name}"
            found[row.flag] = found.get(row.flag, False) or name in names
    return found


# ---- names of weights with heads, in either layout ----

_STEMS = "|".join(re.escape(row.name.rsplit(".", 1)[0]) for row in LAYER_ROWS if row.heads)
_NAME = re.compile(
    rf"^(?P<stem>blk\.\d+\.(?:{_STEMS}))(?:\.head_(?P<head>\d{{1,9}}))?\.(?P<end>(?:weight|bias)(?P<moment>\.[mv])?)$"
)
_ROWS = {row.name: row for row in LAYER_ROWS}


@dataclass(frozen=True)
class HeadName:
    """The parts of the name of a weight with heads, or of its moment. head: number of the head; None for all heads."""

    row: Row
    stem: str
    head: int | None
    end: str

    @property
    def whole(self) -> str:
        """The weight's name in the fused layout."""
        return f"{self.stem}.{self.end}"

    @property
    def without_head(self) -> HeadName:
        """The parts of the name of the whole weight, which contains all heads."""
        return replace(self, head=None)

    def heads(self, cfg: SmolLM2Config) -> tuple[int, tuple[int, ...]]:
        """Return the number of heads and the size of one head's part of the weight."""
        size = self.row.size(cfg)
        n = 1 if self.row.heads is None else self.row.heads(cfg)
        return n, (size[0] // n, *size[1:])

    def of_head(self, head: int) -> str:
        """Return the name of one head's part in the per_head layout."""
        return f"{self.stem}.head_{head}.{self.end}"


def head_name(name: str) -> HeadName | None:
    """Return the parts of a name, or None if it is not the name of a weight with heads."""
    match = _NAME.match(name)
    if match is None:
        return None
    end = match["end"]
    row = _ROWS[f"{match['stem'].split('.', 2)[2]}.{end.removesuffix(match['moment'] or '')}"]
    return HeadName(row, match["stem"], None if match["head"] is None else int(match["head"]), end)


EMBEDDING, LENS = (next(row.name for row in GLOBAL_ROWS if row.key == key) for key in ("embedding", "lens"))
HF_OUTPUT = next(row.hf for row in GLOBAL_ROWS if row.key == "output")
