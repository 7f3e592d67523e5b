"""Train a projection lens for a few steps on one sentence, and report whether it learns.

A lens is a trainable matrix that projects the frozen embedding of another model (the donor, DONOR_D columns) to the
width of the trained model (D_MODEL). The rest of the model is trained from random weights. The sentence is 32 tokens
of the stories in this repository.

    python examples/smoke_projection_lens.py
    python examples/smoke_projection_lens.py --steps 20 --seed 7
    STEPS=20 SEED=7 python examples/smoke_projection_lens.py        # an option takes precedence over the environment

The exit code is 0 if the model learns (the final loss is below 0.95 of the initial loss), 1 if it does not learn, and
2 if an argument is wrong. With fewer than 5 steps the exit code is also 0, because so few steps cannot show whether the
model learns. With the older random stream, INIT_STREAM=xorshift64, and seed 0, all rows of the embedding start with the
same values. Then 5 steps reach only 0.955 of the initial loss, as in the curve that the Ruby project toy published,
and 6 steps are enough.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from toynn import AdamW, FromScratch, RecipeOptions, SmolLM2Config, TrainingBatch

TOKENS = Path(__file__).resolve().parent / "data" / "tokens.json"
LEARNING = 0.95  # the model learns if the final loss is below this share of the initial loss
STEPS_TO_TELL = 5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", help="random seed of the initial weights (environment variable SEED, default 0)")
    parser.add_argument("--steps", help="number of optimizer steps (environment variable STEPS, default 5)")
    parser.add_argument(
        "--d-model", help="width of the model, a multiple of 8 (environment variable D_MODEL, default 64)"
    )
    parser.add_argument("--donor-d", help="width of the frozen embedding (environment variable DONOR_D, default 128)")
    parser.add_argument(
        "--init-stream",
        help="random stream of the initial weights, lcg31 or xorshift64 (environment variable INIT_STREAM)",
    )
    return parser.parse_args()


def setting(flags: argparse.Namespace, name: str, default: str) -> str:
    """Return the value of an option, else of the environment variable with this name in capitals, else the default."""
    flag: str | None = getattr(flags, name)
    return flag if flag is not None else os.environ.get(name.upper(), default)


def whole_number(flags: argparse.Namespace, name: str, default: int, least: int | None = None) -> int:
    text = setting(flags, name, str(default))
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, got {text!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be {least} or more, got {number}")
    return number


def train(recipe: FromScratch, cfg: SmolLM2Config, seq_ids: list[int], steps: int) -> list[float]:
    """Train for some steps, print the loss before each step, and return the losses."""
    names = recipe.fs_cache.param_names()
    print(f"parameters: {len(names)}")
    for name in names:
        print(f"  {name}")
    for name in ("lens.proj.weight", "token_embd.weight"):
        print(f"{name} is a parameter: {'yes' if name in names else 'no'}")

    batch = TrainingBatch(cfg.vocab, context=len(seq_ids))
    adamw = AdamW()  # the defaults are the constants of the Ruby project toy
    losses = []
    for step in range(1, steps + 1):
        batch.fill(seq_ids, adamw.hp(step))
        loss = recipe.step(batch.seq_ids, batch.positions, batch.m_labels, batch.m_hp, step == 1)
        losses.append(loss)
        print(f"step {step}: loss={loss!r}")
    return losses


def main() -> int:
    flags = arguments()
    seq_ids: list[int] = json.loads(TOKENS.read_text(encoding="utf-8"))["smoke_window"]["ids"]
    try:
        steps = whole_number(flags, "steps", 5, least=1)
        d_model = whole_number(flags, "d_model", 64, least=1)
        donor_d = whole_number(flags, "donor_d", 128, least=1)  # with 0, the model would have no lens
        cfg = SmolLM2Config.mha(627, d_model, 4, 128, 2, 32, 10000.0, 1e-5, donor_d_in=donor_d)
        opts = RecipeOptions(
            t_seq=len(seq_ids),
            untied=True,
            seed=whole_number(flags, "seed", 0),
            init_stream=setting(flags, "init_stream", "lcg31"),
        )
        recipe = FromScratch()
        recipe.realize(cfg, opts)
    except (ValueError, MemoryError) as error:
        print(f"smoke_projection_lens: {error}", file=sys.stderr)
        return 2

    print(cfg)
    print(opts)
    with recipe:
        losses = train(recipe, cfg, seq_ids, steps)

    initial, final = losses[0], losses[-1]
    ratio = final / initial
    learning = ratio < LEARNING
    print(f"initial={initial!r} final={final!r} ratio={ratio!r}")
    if learning:
        print(f"verdict: learning (ratio below {LEARNING})")
    elif steps < STEPS_TO_TELL:
        print(f"verdict: not learning yet (ratio not below {LEARNING}; it takes {STEPS_TO_TELL} steps to decide)")
    else:
        print(f"verdict: not learning (ratio not below {LEARNING})")
    return 0 if learning or steps < STEPS_TO_TELL else 1


if __name__ == "__main__":
    sys.exit(main())
