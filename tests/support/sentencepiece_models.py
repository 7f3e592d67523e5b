"""Small SentencePiece models, trained by the real sentencepiece, and their lists as in a GGUF file."""

from __future__ import annotations

import dataclasses
import functools
import io
import random
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as schema

from interop_models import TEXTS, TRAINED_ON, make
from toynn.interop.sentencepiece_bpe import SentencePieceBpe, write_sentencepiece
from toynn.model.trained_model import TrainedModel

# Random texts are made of these parts: scripts, emoji, code, spaces, and texts with several possible pieces.
PARTS = [
    " ", "   ", "\n", "\r\n", "\t", "\t\t", "\u00a0", "\u3000", "\u2581", "a", "the ", " cat", "It's", "CAFE", "ababa",
    "banana ", "aaaa", "____", "====", "def f(x):\n    return x", "{'a': [1, 2.5e-3]}", "0123456789", "\u00e9",
    "e\u0301", "Stra\u00dfe", "\u041f\u0440\u0438\u0432\u0435\u0442 ", "\u4f60\u597d", "\u65e5\u672c\u8a9e",
    "\ud55c\uad6d\uc5b4", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0645\u0631\u062d\u0628\u0627",
    "\u05e9\u05dc\u05d5\u05dd", "\u0e2a\u0e27\u0e31", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u2764\ufe0f", "\ufb01", "\u00bd", "<0x41>", "<s", "[PAD9]", "<|x|>", "\x7f",
]  # fmt: skip
SPECIAL = ["<s>", "</s>", "<unk>"]


@functools.cache
def trained(**options: Any) -> bytes:
    """Return a tokenizer.model like that of Llama: BPE with byte fallback, which splits numbers into digits and keeps
    all spaces.
    """
    written = io.BytesIO()
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    settings: dict[str, Any] = {
        "model_type": "bpe", "vocab_size": 700, "byte_fallback": True, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "split_digits": True, "allow_whitespace_only_pieces": True,
        "character_coverage": 0.9999, "minloglevel": 2, "num_threads": 1, **options,
    }  # fmt: skip
    texts = [line for text in [*TRAINED_ON, *TEXTS[:24]] * 20 for line in text.replace("\0", "").split("\n") if line]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=written, **settings)
    return written.getvalue()


def parsed(content: bytes) -> Any:
    """Parse a tokenizer.model with the protobuf schema of sentencepiece."""
    model = schema.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(content)
    return model


def lists_of(content: bytes, **changes: Any) -> SentencePieceBpe:
    """Return the lists that the converter of llama.cpp writes into a GGUF file: texts, scores and types."""
    pieces = parsed(content).pieces
    lists = SentencePieceBpe([piece.piece for piece in pieces], [piece.score for piece in pieces],
                             [piece.type for piece in pieces], before=[1])  # fmt: skip
    return dataclasses.replace(lists, **changes)


def model_of(lists: SentencePieceBpe, **changes: Any) -> TrainedModel:
    """Return a model with random weights and this tokenizer."""
    options = {"vocab": len(lists.tokens), "n_layers": 1, **changes}
    model = make("tied", tokens=write_sentencepiece(lists), **options)
    return dataclasses.replace(model, bos_id=1, eos_id=2)


def random_texts(n: int, special: bool = True, seed: int = 0) -> list[str]:
    """Return texts of random parts. special: some of the parts are texts of special tokens."""
    pick = random.Random(seed)
    parts = [*PARTS, *SPECIAL * special]
    return ["".join(pick.choices(parts, k=pick.randrange(1, 25))) for _ in range(n)]
