"""Fine-tune a frozen base model with LoRA, and report whether the adapters learn.

The base is a small model that the script trains first and writes as a GGUF file in Q8_0. The recipe LoRA maps this file
and trains an adapter on each query head to predict one token at every position, as in a smoke test of the Ruby project
toy. No byte of the base may change.

    python examples/smoke_recipe_lora.py
    python examples/smoke_recipe_lora.py --steps 10 --rank 4 --seed 7

The script needs the extra toynn[interop] for the GGUF file.

The exit code is 0 if the loss falls at every step and the base is unchanged, 1 if not, and 2 if an argument is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from small_base import CONTEXT, train_base, window
from toynn import AdamW, LlamaSeqEngine, LoRA, RecipeOptions, TrainingBatch
from toynn.interop import GgufBase, export_gguf

TARGET = 99  # the token that every position must predict
BASE_STEPS = 200


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="number of LoRA steps (default: 10)")
    parser.add_argument("--rank", type=int, default=8, help="rank of the adapters, at most 16 (default: 8)")
    parser.add_argument("--seed", type=int, default=42, help="random seed of base and adapters (default: 42)")
    return parser.parse_args()


def frozen_bytes(engine: LlamaSeqEngine) -> str:
    """Return the sha256 of all weights that are not trained."""
    digest, trained = hashlib.sha256(), set(engine.param_names())
    for name in engine.weights:
        if name not in trained:
            digest.update(engine.download_weight(name).tobytes())
    return digest.hexdigest()


def main() -> int:
    options = arguments()
    try:
        if options.steps < 1:
            raise ValueError(f"steps must be at least 1, got {options.steps}")
        opts = RecipeOptions(t_seq=CONTEXT, seed=options.seed, init_scale=0.01)
        model, base_loss = train_base(BASE_STEPS, options.seed)
        print(f"base: {BASE_STEPS} steps, loss={base_loss!r}")
        recipe = LoRA()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "base.gguf"
            export_gguf(model, path, "q8_0")
            with GgufBase(path) as base:  # the recipe keeps the file mapped after the block
                recipe.realize(base, base.shape, options.rank, opts)
    except (ValueError, MemoryError) as error:
        print(f"smoke_recipe_lora: {error}", file=sys.stderr)
        return 2

    batch, adamw = TrainingBatch(model.shape.vocab, CONTEXT), AdamW.for_lora(lr=0.01)
    batch.fill_fixed_target(window(0), TARGET)
    with recipe:
        engine = recipe.lora_cache
        print(f"parameters: {len(engine.param_names())} of {len(engine.weights)} weights")
        before, losses = frozen_bytes(engine), []
        for step in range(options.steps):
            loss = recipe.step(batch.seq_ids, batch.positions, batch.labels, adamw.hp_for_step(step), step == 0)
            losses.append(loss)
            print(f"step {step + 1}: loss={loss!r}")
        unchanged = frozen_bytes(engine) == before

    learning = all(after < before for before, after in pairwise(losses))
    print(f"base unchanged: {'yes' if unchanged else 'no'}")
    print(f"verdict: {'learning' if learning else 'not learning'}")
    return 0 if learning and unchanged else 1


if __name__ == "__main__":
    sys.exit(main())
