"""The shapes that a plan chooses from, and the settings with which all of them are trained.

The scaling law (`toynn.planning.law`) was fitted on runs with these settings, and with the defaults of
`toynn.training.defaults` for all other keys. If a setting changes, the runs of `make scaling-law` must be repeated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from toynn.arguments import integer

CONTEXT, BATCH = 256, 4  # tokens of a window, windows of a step
TOKENS_OF_STEP = CONTEXT * BATCH
WARMUP = 20  # steps
DECAY = 0.2  # share of all steps during which the learning rate falls to 0
FEWEST_STEPS = PROBE_STEPS = 125  # steps of the shortest runs, and of the probe, which shows how difficult a text is
EVALUATED = 128  # number of windows that the probe, and each run of the scaling law, evaluates
_HEAD, _WIDE_HEAD = 32, 64  # size of an attention head in models narrower than _WIDE, and in other models
_WIDE = 320
_D_FF_STEP = 32  # d_ff is a multiple of this number


class Size(NamedTuple):
    """A width and a number of layers, from which all other sizes of a model follow."""

    d_model: int
    n_layers: int

    @property
    def d_ff(self) -> int:
        """The width inside the feed-forward part: 8/3 of d_model, rounded to a multiple of 32, at least 32."""
        return _D_FF_STEP * max(1, round(8 * self.d_model / 3 / _D_FF_STEP))

    @property
    def n_heads(self) -> int:
        """The largest number of heads that have an even size of at least _HEAD (_WIDE_HEAD in a wide model), or 1."""
        usual = _WIDE_HEAD if self.d_model >= _WIDE else _HEAD
        return next((n for n in range(self.d_model // usual, 1, -1) if self.d_model % (2 * n) == 0), 1)

    @property
    def layer_parameters(self) -> int:
        """The number of weights in the matrices of the layers, without the embedding and the norms."""
        return self.n_layers * (4 * self.d_model**2 + 3 * self.d_model * self.d_ff)

    @property
    def name(self) -> str:
        """A short name, for example "96x4"."""
        return f"{self.d_model}x{self.n_layers}"


SIZES = tuple(
    Size(*pair)
    for pair in (
        (32, 2), (64, 3), (96, 4), (128, 5), (192, 6), (256, 6), (320, 7), (384, 8), (512, 8), (640, 10), (768, 12),
    )
)  # fmt: skip
PROBE = SIZES[0]


def warmup_of(steps: int) -> int:
    """Return the number of warm-up steps of a run of `steps` steps.

    Raises TinyNNValueError or TinyNNTypeError if `steps` is not a number of steps.
    """
    return min(WARMUP, integer("steps", steps, 1) // 5)


def decay_of(steps: int) -> int:
    """Return the number of steps at the end of a run in which the learning rate falls. Raises as `warmup_of` does."""
    return round(DECAY * integer("steps", steps, 1))


def settings_of(size: Size, steps: int) -> dict[str, Any]:
    """Return the settings of a run as keys of a configuration, for `toynn.train`.

    The result contains neither keys that have their default value, nor settings of evaluations and checkpoints, which
    do not change the trained weights.
    """
    return {
        "model.d_model": size.d_model,
        "model.n_layers": size.n_layers,
        "model.n_heads": size.n_heads,
        "model.n_kv": size.n_heads,
        "model.d_ff": size.d_ff,
        "model.ctx": CONTEXT,
        "train.steps": steps,
        "train.batch": BATCH,
        "schedule.kind": "wsd",
        "schedule.warmup": warmup_of(steps),
        "schedule.decay": decay_of(steps),
        "schedule.min_ratio": 0.0,
    }
