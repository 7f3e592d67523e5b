"""The model variants of all comparisons: small, with different values for all sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from toynn.model.config import RopeScaling, SmolLM2Config
from toynn.model.shape import ModelShape


@dataclass(frozen=True)
class Variant:
    cfg: SmolLM2Config
    t_seq: int
    t_batch: int = 1
    untied: bool = False
    qkv_bias: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Return all fields except cfg, as keyword arguments of RecipeOptions and of `engines.realize`."""
        return {"t_seq": self.t_seq, "t_batch": self.t_batch, "untied": self.untied, "qkv_bias": self.qkv_bias}

    def ids(self, seed: int = 0) -> npt.NDArray[np.int32]:
        """Return ids (T*B,). Some repeat, so that gradients of the embedding are summed."""
        return np.random.default_rng(seed).integers(0, self.cfg.vocab, self.t_seq * self.t_batch).astype(np.int32)

    def positions(self) -> npt.NDArray[np.int32]:
        return np.tile(np.arange(self.t_seq, dtype=np.int32), self.t_batch)

    def labels(self, seed: int = 0) -> npt.NDArray[np.float32]:
        """Return one-hot labels (T*B, vocab).

        The label of a position is the next id. The label of the last position of a sequence is the id at this position.
        """
        ids = self.ids(seed).reshape(self.t_batch, self.t_seq)
        labels = np.zeros((self.t_batch * self.t_seq, self.cfg.vocab), dtype=np.float32)
        for b in range(self.t_batch):
            for t in range(self.t_seq):
                labels[b * self.t_seq + t, ids[b, min(t + 1, self.t_seq - 1)]] = 1.0
        return labels


# With d = 10 and base 100 there are wavelengths below orig/high = 4, above orig/low = 16, and between these limits.
LLAMA3 = RopeScaling.llama3(factor=8.0, low_freq=1.0, high_freq=4.0, orig_max_pos=64)

# RoPE rotates five pairs. The first pair keeps its speed, the last pair rotates four times slower, and the speeds of
# the other pairs change less.
YARN = RopeScaling.yarn(factor=4.0, orig_max_pos=64, attn_factor=0.9, beta_fast=8.0, beta_slow=0.5)

VARIANTS = {
    "tied": Variant(SmolLM2Config(23, 12, 3, 3, 20, 2, 16, 10000.0, 1e-5), 7),
    "untied": Variant(SmolLM2Config(23, 12, 3, 3, 20, 2, 16, 10000.0, 1e-5), 7, untied=True),
    "projection lens": Variant(SmolLM2Config(23, 12, 3, 3, 20, 2, 16, 10000.0, 1e-5, donor_d_in=15), 7, untied=True),
    "gqa": Variant(SmolLM2Config(23, 24, 6, 2, 20, 2, 16, 10000.0, 1e-5), 7),
    "gqa, head_dim of its own": Variant(SmolLM2Config(23, 14, 4, 2, 20, 2, 16, 10000.0, 1e-5, head_dim=6), 7),
    "qkv_bias": Variant(SmolLM2Config(23, 16, 4, 2, 20, 2, 16, 10000.0, 1e-5), 7, qkv_bias=True),
    "batch of 3": Variant(SmolLM2Config(23, 12, 3, 3, 20, 2, 16, 10000.0, 1e-5), 5, t_batch=3),
    "llama3 rope": Variant(
        SmolLM2Config(23, 20, 2, 1, 18, 2, 64, 100.0, 1e-5, head_dim=10, rope_scaling=LLAMA3), 9, untied=True
    ),
    "linear rope": Variant(
        SmolLM2Config(23, 20, 2, 1, 18, 2, 64, 100.0, 1e-5, head_dim=10, rope_scaling=RopeScaling.linear(4.0)), 9
    ),
    "yarn rope": Variant(
        SmolLM2Config(23, 20, 2, 1, 18, 2, 64, 100.0, 1e-5, head_dim=10, rope_scaling=YARN), 9, t_batch=2
    ),
    "qk_norm": Variant(
        ModelShape(23, 14, 4, 2, 20, 2, 16, 10000.0, 1e-2, head_dim=10, architecture="qwen3", qk_norm=True), 7, 2
    ),
    # With rms_eps = 1e-5 this small model amplifies rounding errors ten times as much as the other variants.
    "a layer without rope": Variant(
        ModelShape(
            23,
            20,
            2,
            1,
            18,
            3,
            64,
            100.0,
            1e-3,
            head_dim=10,
            architecture="smollm3",
            no_rope_interval=2,
            rope_scaling=YARN,
        ),
        7,
        2,
    ),
    # Of five layers, the second and the fourth are global; in the other layers a token sees three tokens.
    "gemma3": Variant(
        ModelShape(
            vocab=23,
            d_model=20,
            n_heads=4,
            n_kv=2,
            d_ff=18,
            n_layers=5,
            ctx=64,
            rope_base=1000.0,
            rms_eps=1e-3,
            head_dim=6,
            rope_scaling=RopeScaling.linear(4.0),
            architecture="gemma3",
            qk_norm=True,
            sliding_window=3,
            global_interval=2,
            local_rope_base=100.0,
            query_pre_attn_scalar=9,
        ),
        9,
        2,
    ),
    "everything at once": Variant(
        SmolLM2Config(29, 14, 4, 2, 20, 3, 64, 100.0, 1e-4, head_dim=10, donor_d_in=17, rope_scaling=LLAMA3),
        6,
        t_batch=2,
        untied=True,
        qkv_bias=True,
    ),
}

each_variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
