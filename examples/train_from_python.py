"""Train a model from Python, watch it with a callback, and let it write.

    toynn prepare examples/data/corpus.txt --out data --vocab-size 512
    python examples/train_from_python.py data run

What `toynn train` does, as functions: a configuration of dataclasses, a callback that is told everything and ends the
training when the loss is low enough, and the trained model as text in, text out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from toynn import Sampling, TrainArgs, TrainConfig, train
from toynn.text.text_model import TextModel
from toynn.training import Evaluated, Event, ModelArgs, OptimizerArgs, StepArgs, Stepped, StopTraining


def watch(event: Event) -> None:
    """Tells of every 20th step and of evaluations; ends at a validation loss below 2.5."""
    if isinstance(event, Stepped) and event.step % 20 == 0:
        print(f"step {event.step}: loss {event.loss:.3f}, {event.tokens_per_second:.0f} tokens/s")
    if isinstance(event, Evaluated):
        print(f"step {event.step}: validation loss {event.loss:.3f}, {event.bits_per_byte:.3f} bits a byte")
        if event.loss < 2.5:
            raise StopTraining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    words = parser.parse_args()

    config = TrainConfig(
        model=ModelArgs(d_model=96, n_heads=3, n_kv=3, d_ff=256, n_layers=3, ctx=128),
        train=StepArgs(steps=words.steps, batch=16),
        optimizer=OptimizerArgs(lr=4e-3),
    )
    ended = train(TrainArgs(words.data, words.run, config), callbacks=[watch])
    print(f"{ended.reason} after {ended.step} steps: {ended.checkpoint}")

    with TextModel(words.run) as model:
        print(prompt := "Once there was", end="")
        for piece in model.continue_text(prompt, Sampling(seed=1), max_tokens=60):
            print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
