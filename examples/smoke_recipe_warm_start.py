"""Train a new model on the frozen embedding of another model, the donor, and report whether it learns.

The donor is a small model that the script trains first and writes as a GGUF file. The recipe WarmStart copies the
donor's embedding into a new model of another width, behind a projection lens. The learning rate rises for 5 steps and
then falls as half a cosine; each step reads the next window of the stories.

    python examples/smoke_recipe_warm_start.py
    python examples/smoke_recipe_warm_start.py --init scratch        # a random embedding instead of the donor's
    python examples/smoke_recipe_warm_start.py --steps 40 --seed 7

The script needs the extra toynn[interop] for the GGUF file.

Exit code: 0 if the last loss is below 0.95 of the first loss and the embedding is unchanged, 1 if not, 2 if an argument
is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from small_base import CONTEXT, train_base, window
from toynn import AdamW, RecipeOptions, SmolLM2Config, TrainingBatch, WarmStart
from toynn.interop import export_gguf
from toynn.llm.learning_rates import ToyLR

DONOR_STEPS = 200
LEARNING = 0.95  # the model learns if the last loss is below this share of the first loss


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--init",
        choices=("warm", "scratch"),
        default="warm",
        help="initial embedding; warm: the donor's, scratch: random (default: warm)",
    )
    parser.add_argument("--steps", type=int, default=20, help="number of training steps (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of donor and model (default: 0)")
    return parser.parse_args()


def train(recipe: WarmStart, vocab: int, steps: int) -> list[float]:
    """Train for some steps, print the loss before each step, and return the losses."""
    batch, losses = TrainingBatch(vocab, CONTEXT), []
    for step in range(steps):
        adamw = AdamW.for_from_scratch(lr=ToyLR.cosine(step, steps, 0.005, 1e-5, 5))
        batch.fill(window(step), adamw.hp(step + 1))
        losses.append(recipe.step(batch.seq_ids, batch.positions, batch.labels, batch.hp, step == 0))
        print(f"step {step + 1}: loss={losses[-1]!r}")
    return losses


def main() -> int:
    options = arguments()
    recipe = WarmStart()
    try:
        if options.steps < 1:
            raise ValueError(f"steps must be at least 1, got {options.steps}")
        opts = RecipeOptions(t_seq=CONTEXT, untied=True, seed=options.seed)
        donor, donor_loss = train_base(DONOR_STEPS, options.seed)
        print(f"donor: {DONOR_STEPS} steps, loss={donor_loss!r}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "donor.gguf"
            export_gguf(donor, path)
            width = WarmStart.donor_embed_width(path)
            cfg = SmolLM2Config.mha(627, 48, 4, 128, 2, CONTEXT, 10000.0, 1e-5, donor_d_in=width)
            recipe.realize_scratch(cfg, opts)
            if options.init == "warm":
                recipe.realize_warm(path, cfg)
        recipe.build()
    except (ValueError, MemoryError) as error:
        print(f"smoke_recipe_warm_start: {error}", file=sys.stderr)
        return 2

    with recipe:
        before = recipe.ws_cache.download_weight("token_embd.weight")
        print(f"embedding: {options.init}, {before.shape[0]} rows of {before.shape[1]} numbers")
        losses = train(recipe, cfg.vocab, options.steps)
        unchanged = recipe.ws_cache.download_weight("token_embd.weight").tobytes() == before.tobytes()

    ratio = losses[-1] / losses[0]
    print(f"embedding unchanged: {'yes' if unchanged else 'no'}")
    print(f"verdict: {'learning' if ratio < LEARNING else 'not learning'} (ratio={ratio!r})")
    return 0 if ratio < LEARNING and unchanged else 1


if __name__ == "__main__":
    sys.exit(main())
