"""Fine-tune all layers of a base model, and report whether it learns.

The base is a small model that the script trains first. Then the weights of its layers are trained to predict one token
at every position, as in a smoke test of the Ruby project toy. Embedding, output norm and output matrix stay frozen,
unless --embeddings is given.

    python examples/smoke_full_finetune.py
    python examples/smoke_full_finetune.py --steps 20 --embeddings

Exit code: 0 if the loss falls below 0.7 of the first loss and the frozen weights are unchanged, 1 if not, 2 if an
argument is wrong.
"""

from __future__ import annotations

import argparse
import sys

from small_base import CONTEXT, train_base, window
from toynn import AdamW, LlamaSeqEngine, TrainingBatch

TARGET = 99  # the token that every position must predict
BASE_STEPS = 200
LEARNING = 0.7  # the model learns if the last loss is below this share of the first loss


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="number of fine-tuning steps (default: 8)")
    parser.add_argument("--seed", type=int, default=42, help="random seed of the base (default: 42)")
    parser.add_argument("--embeddings", action="store_true", help="train the weights outside the layers too")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    engine = LlamaSeqEngine()
    try:
        if options.steps < 1:
            raise ValueError(f"steps must be at least 1, got {options.steps}")
        base, base_loss = train_base(BASE_STEPS, options.seed)
        print(f"base: {BASE_STEPS} steps, loss={base_loss!r}")
        engine.enable_full_finetune()
        if options.embeddings:
            engine.enable_full_finetune_embeddings()
        engine.realize_for_full_finetune(base, base.shape, CONTEXT, base.shape.untied, base.shape.qkv_bias)
        engine.build_training_step()
    except (ValueError, MemoryError) as error:
        print(f"smoke_full_finetune: {error}", file=sys.stderr)
        return 2

    batch, adamw = TrainingBatch(base.shape.vocab, CONTEXT), AdamW.for_lora(lr=0.005)
    batch.fill_fixed_target(window(0), TARGET)
    with engine:
        trained = engine.param_names()
        frozen = {name: engine.download_weight(name).tobytes() for name in engine.weights if name not in trained}
        print(f"parameters: {len(trained)} weights; frozen: {', '.join(frozen) or 'none'}")
        losses = []
        for step in range(options.steps):
            hp = adamw.hp_for_step(step)
            loss, _ = engine.train_step(batch.seq_ids, batch.labels, hp, reset_moments=step == 0)
            losses.append(loss)
            print(f"step {step + 1}: loss={loss!r}")
        unchanged = all(engine.download_weight(name).tobytes() == before for name, before in frozen.items())

    ratio = losses[-1] / losses[0]
    print(f"frozen weights unchanged: {'yes' if unchanged else 'no'}")
    print(f"verdict: {'learning' if ratio < LEARNING else 'not learning'} (ratio={ratio!r})")
    return 0 if ratio < LEARNING and unchanged else 1


if __name__ == "__main__":
    sys.exit(main())
