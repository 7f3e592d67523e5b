"""The base model of the fine-tuning examples: a small model that is trained on stories for a few seconds.

The tokens are those of `data/tokens.json`, which examples/tokenize_stories.py made from data/stories.txt.
"""

from __future__ import annotations

import json
from pathlib import Path

from toynn import AdamW, FromScratch, RecipeOptions, SmolLM2Config, TrainingBatch
from toynn.llm.layouts import to_fused
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel

STREAM: list[int] = json.loads((Path(__file__).parent / "data" / "tokens.json").read_text(encoding="utf-8"))["stream"]
CONTEXT = 32
CONFIG = SmolLM2Config.gqa(627, 64, 4, 2, 128, 2, CONTEXT, 10000.0, 1e-5)


def window(step: int) -> list[int]:
    """Return the ids of a training step, counted from 0. The steps read the stream in order, and begin again at its
    end.
    """
    start = step * CONTEXT % (len(STREAM) - CONTEXT)
    return STREAM[start : start + CONTEXT]


def train_base(steps: int, seed: int) -> tuple[TrainedModel, float]:
    """Train a model from random weights, and return it with the loss of the last step."""
    batch, adamw = TrainingBatch(CONFIG.vocab, CONTEXT), AdamW(lr=0.005, bias_correct=True)
    with FromScratch() as recipe:
        recipe.realize(CONFIG, RecipeOptions(t_seq=CONTEXT, seed=seed))
        for step in range(steps):
            batch.fill(window(step), adamw.hp_for_step(step))
            loss = recipe.step(batch.seq_ids, batch.positions, batch.labels, batch.hp, step == 0)
        engine = recipe.fs_cache
        weights = {name: engine.download_weight(name) for name in engine.weights}
    return TrainedModel(ModelShape.of(CONFIG), to_fused(weights, CONFIG), tokenizer=None), loss
