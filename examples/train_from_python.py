"""Train a model from Python, observe the training with a callback, and generate text.

    python examples/train_from_python.py

The script prepares the stories of examples/data/corpus.txt, trains a small model on them until its validation loss is
low enough, and prints a continuation and the loss on a text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import toynn
from toynn.training import Evaluated, Event, Stepped, StopTraining

CORPUS = Path(__file__).resolve().parent / "data" / "corpus.txt"


def watch(event: Event) -> None:
    """Print every 20th step and each evaluation; stop at a validation loss below 2.5."""
    if isinstance(event, Stepped) and event.step % 20 == 0:
        print(f"step {event.step}: loss {event.loss:.3f}, {event.tokens_per_second:.0f} tokens/s")
    if isinstance(event, Evaluated):
        print(f"step {event.step}: validation loss {event.loss:.3f}, {event.bits_per_byte:.3f} bits/byte")
        if event.loss < 2.5:
            raise StopTraining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=CORPUS, help="text file to learn from")
    parser.add_argument("--out", type=Path, default=Path("stories"), help="folder for the data and the model")
    parser.add_argument("--steps", type=int, default=200, help="number of optimizer steps")
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    data = toynn.prepare(arguments.text, arguments.out / "data", vocab_size=512)
    print(f"{data.tokens['train']} tokens for training, {data.tokens['validation']} for validation")

    result = toynn.train(
        data,
        arguments.out / "run",
        steps=arguments.steps,
        batch=16,
        model={"d_model": 96, "n_heads": 3, "n_kv": 3, "d_ff": 256, "n_layers": 3, "ctx": 128},
        progress=False,
        callbacks=[watch],
    )
    print(f"{result.reason} after {result.step} steps: {result.checkpoint}")

    with result.load() as model:
        print(model)
        prompt = "Once there was"
        print(prompt, end="")
        for piece in model.stream(prompt, max_tokens=60, seed=1):
            print(piece, end="", flush=True)
        print()
        print(model.evaluate("Once there was a cat. It saw a hen."))


if __name__ == "__main__":
    main()
