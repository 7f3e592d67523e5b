"""Define the measured models, the cost of a training step, and the ids. This module imports neither toynn nor torch."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass

ROPE_BASE = 10000.0
RMS_EPS = 1e-5
LR, BETA1, BETA2, ADAM_EPS = 1e-4, 0.9, 0.95, 1e-8  # AdamW with the usual bias correction and without weight decay
PEAK_SIZE = 1024  # the matmul peak of the machine is measured with the product of two [n, n] matrices of this size
_N_BATCHES = 16


@dataclass(frozen=True)
class Shape:
    """A model, the tokens of one step (t_batch sequences of t_seq tokens), and how long to measure it."""

    name: str
    vocab: int
    d_model: int
    n_heads: int
    n_kv: int
    d_ff: int
    n_layers: int
    t_seq: int
    t_batch: int
    untied: bool
    rounds: int  # number of runs of each program
    steps: int  # timed steps per run
    rope_base: float = ROPE_BASE
    adapter_rank: int = 0  # the rank of a LoRA adapter on all projections of a frozen base; 0: all weights are trained
    base_type: str = "f32"  # the type of the matrices of the base

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def tokens(self) -> int:
        return self.t_seq * self.t_batch

    @property
    def matmul_params(self) -> int:
        """Return the number of weights in matrix products: the projections and the head, without the embedding."""
        d_attn, d_kv = self.n_heads * self.head_dim, self.n_kv * self.head_dim
        block = self.d_model * (2 * d_attn + 2 * d_kv) + 3 * self.d_model * self.d_ff
        return self.n_layers * block + self.vocab * self.d_model

    @property
    def params(self) -> int:
        """Return the number of all weights."""
        return self.matmul_params + self.untied * self.vocab * self.d_model + (2 * self.n_layers + 1) * self.d_model

    @property
    def step_flop(self) -> int:
        """Return the number of floating-point operations of one step.

        A step needs 6 operations for each weight and token (2 forward, 4 backward). For each pair of a query and a
        visible key, it needs 12 operations for each dimension of a head, in every head and layer.
        """
        pairs = self.t_batch * self.t_seq * (self.t_seq + 1) // 2
        return 6 * self.matmul_params * self.tokens + 12 * self.n_layers * self.n_heads * self.head_dim * pairs

    @property
    def expected_bytes(self) -> int:
        """Estimate the memory of one program: weights, gradients, two moments, activations, and the framework."""
        activations = 4 * self.tokens * (4 * self.vocab + 24 * self.n_layers * (self.d_model + self.d_ff))
        return 16 * self.params + activations + 600 * 2**20

    def batches(self) -> list[tuple[list[int], list[int]]]:
        """Return ids and targets (t_batch * t_seq,), the same in every process.

        The target of the last token of a sequence is the token itself.
        """
        draw, made = random.Random(0), []
        for _ in range(_N_BATCHES):
            ids = [draw.randrange(self.vocab) for _ in range(self.tokens)]
            targets = [*ids[1:], ids[-1]]
            for end in range(self.t_seq - 1, self.tokens, self.t_seq):
                targets[end] = ids[end]
            made.append((ids, targets))
        return made


_ALL = (
    Shape(
        "tiny", vocab=627, d_model=64, n_heads=4, n_kv=4, d_ff=128, n_layers=2,
        t_seq=32, t_batch=1, untied=False, rounds=10, steps=100,
    ),
    Shape(
        "small", vocab=4096, d_model=288, n_heads=6, n_kv=6, d_ff=768, n_layers=6,
        t_seq=256, t_batch=4, untied=False, rounds=10, steps=4,
    ),
    Shape(  # SmolLM2Config.smollm2_135m(), with an untied head
        "smol", vocab=49152, d_model=576, n_heads=9, n_kv=3, d_ff=1536, n_layers=30,
        t_seq=64, t_batch=1, untied=True, rounds=6, steps=2, rope_base=100000.0,
    ),
    Shape(
        "long", vocab=4096, d_model=288, n_heads=6, n_kv=6, d_ff=768, n_layers=6,
        t_seq=1024, t_batch=1, untied=False, rounds=10, steps=4,
    ),
)  # fmt: skip
SHAPES = {shape.name: shape for shape in _ALL}

_SMOL = Shape(  # SmolLM2Config.smollm2_135m()
    "smol-256", vocab=49152, d_model=576, n_heads=9, n_kv=3, d_ff=1536, n_layers=30, t_seq=256, t_batch=1,
    untied=False, rounds=4, steps=3, rope_base=100000.0, adapter_rank=8, base_type="q4_1",
)  # fmt: skip
_ON_BASES = (
    _SMOL,
    dataclasses.replace(_SMOL, name="smol-1024", t_seq=1024, rounds=3, steps=1),
    Shape(
        "1.1b", vocab=32000, d_model=2048, n_heads=32, n_kv=4, d_ff=5632, n_layers=22, t_seq=512, t_batch=1,
        untied=True, rounds=2, steps=1, adapter_rank=8, base_type="q4_K",
    ),
)  # fmt: skip
ADAPTER_SHAPES = {shape.name: shape for shape in _ON_BASES}

_LONG = SHAPES["long"]
_LONG_CONTEXTS = (
    dataclasses.replace(_LONG, name="small-1024", rounds=6, steps=3),
    dataclasses.replace(_LONG, name="small-4096", t_seq=4096, rounds=5, steps=1),
    dataclasses.replace(_LONG, name="small-16384", t_seq=16384, rounds=3, steps=1),
)
LONG_SHAPES = {shape.name: shape for shape in _LONG_CONTEXTS}
