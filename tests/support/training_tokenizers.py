"""Tokenizers that tests train on a few texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tokenizers


def byte_level_tokenizer(texts: Iterable[str], folder: Path) -> Path:
    """Train a byte-level tokenizer with the special tokens of ChatML. Return its folder, as transformers reads it."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
