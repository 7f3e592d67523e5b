"""The models that are measured, what a step of them costs, and the ids they are fed. Imports neither side."""

from __future__ import annotations

import random
from dataclasses import dataclass

ROPE_BASE = 10000.0
RMS_EPS = 1e-5
LR, BETA1, BETA2, ADAM_EPS = 1e-4, 0.9, 0.95, 1e-8  # AdamW with the usual bias correction and no weight decay
PEAK_SIZE = 1024  # the machine's matmul peak is measured on [n, n] x [n, n]
_N_BATCHES = 16


@dataclass(frozen=True)
class Shape:
    """A model, the tokens of one step (t_batch sequences of t_seq), and how long to measure it."""

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
    rounds: int  # how often each contender has its turn, ...
    steps: int  # ... and the steps timed in one
    rope_base: float = ROPE_BASE

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads

    @property
    def tokens(self) -> int:
        return self.t_seq * self.t_batch

    @property
    def matmul_params(self) -> int:
        """Weights that a token is multiplied with: the projections and the head, not the embedding's look-up."""
        d_attn, d_kv = self.n_heads * self.head_dim, self.n_kv * self.head_dim
        block = self.d_model * (2 * d_attn + 2 * d_kv) + 3 * self.d_model * self.d_ff
        return self.n_layers * block + self.vocab * self.d_model

    @property
    def params(self) -> int:
        """All weights."""
        return self.matmul_params + self.untied * self.vocab * self.d_model + (2 * self.n_layers + 1) * self.d_model

    @property
    def step_flop(self) -> int:
        """6 a weight and token (2 forward, 4 backward), and 12 a head dimension and pair of query and visible key."""
        pairs = self.t_batch * self.t_seq * (self.t_seq + 1) // 2
        return 6 * self.matmul_params * self.tokens + 12 * self.n_layers * self.n_heads * self.head_dim * pairs

    @property
    def expected_bytes(self) -> int:
        """About what one contender takes at most: weights, gradients, two moments, activations, the framework."""
        activations = 4 * self.tokens * (4 * self.vocab + 24 * self.n_layers * (self.d_model + self.d_ff))
        return int(1.2 * 16 * self.params) + activations + 600 * 2**20

    def batches(self) -> list[tuple[list[int], list[int]]]:
        """Ids and targets (t_batch * t_seq,), the same in every process; a sequence's last token targets itself."""
        draw, made = random.Random(0), []
        for _ in range(_N_BATCHES):
            ids = [draw.randrange(self.vocab) for _ in range(self.tokens)]
            targets = [*ids[1:], ids[-1]]
            for end in range(self.t_seq - 1, self.tokens, self.t_seq):
                targets[end] = ids[end]
            made.append((ids, targets))
        return made


_ALL = (
    Shape("tiny", 627, 64, 4, 4, 128, 2, t_seq=32, t_batch=1, untied=False, rounds=10, steps=100),
    Shape("small", 4096, 288, 6, 6, 768, 6, t_seq=256, t_batch=4, untied=False, rounds=10, steps=4),
    # SmolLM2Config.smollm2_135m(), with a head of its own
    Shape("smol", 49152, 576, 9, 3, 1536, 30, t_seq=64, t_batch=1, untied=True, rounds=6, steps=2, rope_base=100000.0),
    Shape("long", 4096, 288, 6, 6, 768, 6, t_seq=1024, t_batch=1, untied=False, rounds=10, steps=4),
)
SHAPES = {shape.name: shape for shape in _ALL}
