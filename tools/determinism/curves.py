"""The golden curves: training runs whose losses must have the same bytes in every build. A command computes them.

`python tools/determinism/curves.py` computes all curves and prints a JSON object. The fixture recorder and the tests
start this script as a separate process, with the number of threads in an environment variable.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paths
import recipe_curves
from recipe_curves import RECIPE_CURVES, RecipeCurve
from toynn import AdamW, FromScratch, LlamaSeqEngine, Muon, RecipeOptions, RopeScaling, SmolLM2Config, TrainingBatch
from toynn.llm.preference import Preference
from toynn.model.shape import ModelShape

VOCAB = 627
_TOKENS = json.loads(paths.TOKENS.read_text(encoding="utf-8"))
SMOKE_IDS: list[int] = _TOKENS["smoke_window"]["ids"]
STREAM: list[int] = _TOKENS["stream"]

# This optimizer uses the usual bias correction. The other curves use the constants of the Ruby project toy, which are
# the defaults of AdamW.
CORRECTED = AdamW(lr=0.003, weight_decay=0.1, bias_correct=True)


@dataclass(frozen=True)
class Curve:
    """A training run: a model, its options, an optimizer, and `steps` steps on the beginning of the token stream.

    muon: used if the optimizer in opts is "muon".
    samples: the number of tokens of each sample, if several samples share a sequence; () if each sequence is a sample.
        The last token of a sample has no target.
    preference: the loss of pairs of sequences, instead of the loss of the next token.
    """

    name: str
    cfg: SmolLM2Config
    opts: RecipeOptions
    steps: int = 5
    adamw: AdamW = field(default_factory=AdamW)
    muon: Muon = field(default_factory=lambda: Muon(weight_decay=0.01))
    ids: tuple[int, ...] = ()
    samples: tuple[int, ...] = ()
    preference: Preference | None = None

    def seq_ids(self) -> list[int]:
        """Return the ids (t_seq * t_batch,): the curve's own ids, or the beginning of the token stream."""
        return list(self.ids) or STREAM[: self.opts.t_seq * self.opts.t_batch]


def _smoke(name: str, init_stream: str) -> Curve:
    cfg = SmolLM2Config.mha(VOCAB, 64, 4, 128, 2, 32, 10000.0, 1e-5, donor_d_in=128)
    return Curve(name, cfg, RecipeOptions(t_seq=32, untied=True, init_stream=init_stream), ids=tuple(SMOKE_IDS))


def _gqa(**options: object) -> SmolLM2Config:
    """Return a model with 6 query heads, 2 KV heads and head_dim 12: 72 attention columns for a d_model of 48."""
    return SmolLM2Config(VOCAB, 48, 6, 2, 96, 3, 64, 10000.0, 1e-5, head_dim=12, **options)  # type: ignore[arg-type]


CURVES = [
    _smoke("smoke_lcg31", "lcg31"),
    _smoke("smoke_xorshift64", "xorshift64"),
    Curve("gqa_head_dim", _gqa(), RecipeOptions(t_seq=32, untied=True, seed=1)),
    Curve("batch_2", SmolLM2Config.tiny(), RecipeOptions(t_seq=24, t_batch=2, untied=True, seed=2), adamw=CORRECTED),
    Curve(
        "qkv_bias", _gqa(), RecipeOptions(t_seq=32, untied=True, qkv_bias=True, seed=3, init_scale=0.5), adamw=CORRECTED
    ),
    Curve(
        "llama3_rope",
        _gqa(rope_scaling=RopeScaling.llama3(8.0, 1.0, 4.0, 32)),
        RecipeOptions(t_seq=48, untied=True, seed=4),
    ),
    Curve("tied_head", SmolLM2Config.tiny(), RecipeOptions(t_seq=32, seed=5), adamw=CORRECTED),
    Curve(
        "all_at_once",
        _gqa(donor_d_in=40, rope_scaling=RopeScaling.llama3(4.0, 1.0, 4.0, 16)),
        RecipeOptions(t_seq=16, t_batch=3, untied=True, qkv_bias=True, seed=-6, init_scale=2.0),
        adamw=CORRECTED,
    ),
    Curve("mixed_f16", _gqa(), RecipeOptions(t_seq=32, untied=True, qkv_bias=True, seed=8, weight_dtype=1)),
    Curve("mixed_bf16", _gqa(), RecipeOptions(t_seq=16, t_batch=2, seed=9, weight_dtype=30), adamw=CORRECTED),
    Curve("tiny_50", SmolLM2Config.tiny(), RecipeOptions(t_seq=32, untied=True, seed=7), steps=50),
]
CURVES += [
    replace(curve, name=f"fused_{curve.name}", opts=replace(curve.opts, layout="fused"))
    for curve in CURVES
    # both layouts have the same initial weights, so one curve is enough to test the random stream; only per_head
    # rounds weights
    if curve.name != "smoke_xorshift64" and curve.opts.weight_dtype == 0
]
CURVES += [
    # with head_dim 20, two threads share the gradient of a head's weight, and the last vector of a head is not full
    Curve(
        "fused_qk_norm",
        ModelShape(VOCAB, 48, 6, 2, 96, 3, 64, 10000.0, 1e-5, head_dim=20, architecture="qwen3", qk_norm=True),
        RecipeOptions(t_seq=24, t_batch=2, seed=10, layout="fused"),
        adamw=CORRECTED,
    ),
    Curve(
        "fused_no_rope",
        ModelShape(VOCAB, 48, 6, 2, 96, 3, 64, 10000.0, 1e-5, head_dim=12, architecture="smollm3", no_rope_interval=2),
        RecipeOptions(t_seq=32, seed=11, layout="fused"),
        adamw=CORRECTED,
    ),
    # the sequences are longer than a block of queries, and the last vector of gates is not full
    Curve(
        "fused_gemma3",
        ModelShape(
            VOCAB,
            48,
            6,
            2,
            93,
            4,
            128,
            10000.0,
            1e-5,
            head_dim=12,
            architecture="gemma3",
            qk_norm=True,
            sliding_window=20,
            global_interval=3,
            local_rope_base=1000.0,
            query_pre_attn_scalar=16,
            rope_scaling=RopeScaling.linear(4.0),
        ),
        RecipeOptions(t_seq=100, t_batch=2, seed=12, layout="fused"),
        adamw=CORRECTED,
    ),
    Curve(
        "fused_muon",
        _gqa(),
        RecipeOptions(t_seq=24, t_batch=2, untied=True, qkv_bias=True, seed=12, layout="fused", optimizer="muon"),
        adamw=CORRECTED,
    ),
    # the length is odd, so each sum of a weight's gradient ends with an incomplete pair of bfloat16 products
    Curve(
        "fused_bf16",
        _gqa(donor_d_in=40),
        RecipeOptions(t_seq=25, t_batch=3, untied=True, qkv_bias=True, seed=13, layout="fused", precision="bf16"),
        adamw=CORRECTED,
    ),
]

CURVES.append(
    # a sample is longer than a block of queries, and windows of local layers reach beyond samples
    replace(
        next(curve for curve in CURVES if curve.name == "fused_gemma3"),
        name="fused_packed",
        opts=RecipeOptions(t_seq=120, t_batch=2, seed=13, layout="fused"),
        samples=(13, 103, 4, 50, 1, 41, 28),
    )
)
CURVES.append(
    Curve(
        "fused_preference",
        _gqa(),
        RecipeOptions(t_seq=24, t_batch=6, untied=True, seed=13, layout="fused"),
        adamw=CORRECTED,
        preference=Preference(beta=0.25, label_smoothing=0.125),
    )
)


def curve_names() -> list[str]:
    """Return the names of all curves, in the order of the fixtures."""
    return [curve.name for curve in CURVES] + [curve.name for curve in RECIPE_CURVES]


def losses(curve: Curve) -> Iterator[float]:
    """Yield the loss before each step."""
    with FromScratch() as recipe:
        yield from run(recipe, curve)


def run(recipe: FromScratch, curve: Curve) -> Iterator[float]:
    """Realize the recipe and yield the loss before each step of the curve."""
    recipe.realize(curve.cfg, curve.opts)
    if curve.samples:
        yield from _run_packed(recipe.fs_cache, curve)
        return
    if curve.preference is not None:
        yield from _preference_losses(recipe.fs_cache, curve, curve.preference)
        return
    batch = TrainingBatch(curve.cfg.vocab, curve.opts.t_seq, curve.opts.t_batch)
    for step in range(curve.steps):
        batch.fill(curve.seq_ids(), curve.adamw.hp(step + 1))
        labels = batch.targets if curve.opts.layout == "fused" else batch.m_labels
        if curve.opts.optimizer == "adamw":
            yield recipe.step(batch.seq_ids, batch.positions, labels, batch.m_hp, step == 0)
            continue
        yield recipe.fs_cache.train_step(
            batch.seq_ids, labels, batch.m_hp, muon_hp=curve.muon.hp(), reset_moments=step == 0
        )[0]


def _run_packed(engine: LlamaSeqEngine, curve: Curve) -> Iterator[float]:
    engine.build_training_step(packed=True)
    t_seq, ends = curve.opts.t_seq, np.cumsum(curve.samples)
    starts = np.repeat(ends - curve.samples, curve.samples) % t_seq
    batch = TrainingBatch(curve.cfg.vocab, t_seq, curve.opts.t_batch)
    batch.fill(curve.seq_ids())
    targets = batch.targets.copy()
    targets[ends - 1] = -100
    for step in range(curve.steps):
        hp = curve.adamw.hp(step + 1)
        yield engine.train_step(batch.seq_ids, targets, hp, starts=starts, reset_moments=step == 0)[0]


def _preference_losses(engine: LlamaSeqEngine, curve: Curve, preference: Preference) -> Iterator[float]:
    """Yield the loss before each step on pairs, whose sequences have prompts and padding of different lengths."""
    t, n = curve.opts.t_seq, curve.opts.t_batch
    ids = np.array(STREAM[: t * n + 1], dtype=np.int32)
    targets = ids[1:].reshape(n, t).copy()
    for i, row in enumerate(targets):
        row[: 2 * i + 1] = row[t - i :] = -1
    feed = (ids[:-1], targets.ravel())
    engine.mean_loss(*feed)
    reference = np.linspace(-1.0, 1.0, n) - engine.window_losses()
    engine.build_training_step(preference=preference)
    for step in range(curve.steps):
        hp = curve.adamw.hp(step + 1)
        yield engine.train_step(*feed, hp, reset_moments=step == 0, reference=reference)[0]


def weights_sha256(recipe: FromScratch) -> str:
    """Return the sha256 of the names and bytes of all parameters, in the engine's order."""
    return _weights_sha256(recipe.fs_cache)


def _weights_sha256(engine: LlamaSeqEngine) -> str:
    digest = hashlib.sha256()
    for name in engine.param_names():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(engine.download_weight(name), dtype="<f4").tobytes())
    return digest.hexdigest()


def record(curve: Curve) -> dict[str, object]:
    """Return the curve's entry in a fixture: each loss as decimal and hex, and the sha256 of the final weights."""
    with FromScratch() as recipe:
        return _entry(list(run(recipe, curve)), recipe.fs_cache)


def record_recipe(curve: RecipeCurve) -> dict[str, object]:
    """Return the curve's entry in a fixture, as `record` does."""
    with LlamaSeqEngine() as engine:
        return _entry(list(recipe_curves.run(engine, curve, STREAM)), engine)


def _entry(values: list[float], engine: LlamaSeqEngine) -> dict[str, object]:
    return {
        "decimal": [repr(value) for value in values],
        "hex": [value.hex() for value in values],
        "weights_sha256": _weights_sha256(engine),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the golden curves and print the fixture entry of each as JSON.")
    names, most_steps = curve_names(), max(curve.steps for curve in CURVES)
    parser.add_argument("--only", nargs="+", metavar="CURVE", choices=names, help="Curves to run (default: all).")
    parser.add_argument(
        "--max-steps", type=int, default=most_steps, help="Run at most this number of steps of each curve."
    )
    parser.add_argument(
        "--times", type=int, default=1, help="Number of repetitions; the result of the last repetition is printed."
    )
    options = parser.parse_args()
    recorded: dict[str, object] = {}
    for _ in range(options.times):
        for curve in CURVES:
            if options.only is None or curve.name in options.only:
                recorded[curve.name] = record(replace(curve, steps=min(curve.steps, options.max_steps)))
        for one in RECIPE_CURVES:
            if options.only is None or one.name in options.only:
                recorded[one.name] = record_recipe(replace(one, steps=min(one.steps, options.max_steps)))
    json.dump(recorded, sys.stdout)


if __name__ == "__main__":
    main()
