"""The incremental decoder gives the same text as decoding the whole sequence, with every decoder of the library."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models

from toynn.text.incremental_decoder import IncrementalDecoder, token_texts
from toynn.text.tokenizer_json import text_of

LLAMA2 = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
DECODERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "byte level": decoders.ByteLevel,
    "llama 2": lambda: decoders.Sequence(LLAMA2),
    "metaspace": decoders.Metaspace,
    "metaspace without prefix": lambda: decoders.Metaspace(prepend_scheme="never"),
    "word piece": decoders.WordPiece,
    "word piece without cleanup": lambda: decoders.WordPiece(cleanup=False),
    "bpe": lambda: decoders.BPEDecoder(suffix="</w>"),
    "ctc": decoders.CTC,
    "byte fallback": decoders.ByteFallback,
    "strip at the start": lambda: decoders.Sequence([decoders.Fuse(), decoders.Strip("a", 3, 0)]),
    "strip at the end": lambda: decoders.Sequence([decoders.Fuse(), decoders.Strip("a", 0, 1)]),
    "a pattern of two tokens": lambda: decoders.Sequence([decoders.Fuse(), decoders.Replace(Regex("a +b"), "AB")]),
}
WORDS = [
    "a", "b", "\u2581", "\u2581the", "\u2581a", "##ing", "do", "no", "##t", "n't", "'", "'m", ".", ",", "he</w>",
    "llo</w>",
    "|", "<pad>", "\u0120", "\u0120x", "\u010a", "\u00e9", "\u00c3", "\u00a9", "\u00e2", "\u0124", "\u00ac", "</s>",
    " ",
    "a ", " b",
    *[f"<0x{byte:02X}>" for byte in (0x41, 0x20, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xFF)],
]  # fmt: skip


def tokenizer(decoder: Any) -> Tokenizer:
    model = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(WORDS)}, merges=[]))
    model.add_special_tokens(["</s>"])
    if decoder is not None:
        model.decoder = decoder
    return model


@pytest.mark.quick
@pytest.mark.parametrize("name", DECODERS)
def test_pieces_join_to_the_text_of_the_whole_sequence(name: str) -> None:
    model = tokenizer(DECODERS[name]())
    rng = random.Random(0)
    for length in [*range(12)] * 12 + [300]:
        ids = [rng.randrange(len(WORDS)) for _ in range(length)]
        prompt = rng.randrange(length + 1) if length < 100 else 10
        decoder = IncrementalDecoder(model, ids[:prompt])
        pieces = [decoder.add(token) for token in ids[prompt:]]
        pieces.append(decoder.finish())
        whole, begin = text_of(model, ids), text_of(model, ids[:prompt])
        if whole.startswith(begin):  # the tokens after the prompt do not change its text
            assert "".join(pieces) == whole[len(begin) :], (ids, prompt, pieces)
        assert "".join(token_texts(model, ids)) == whole


def test_the_first_space_after_a_prompt_is_kept() -> None:
    model = tokenizer(decoders.Sequence(LLAMA2))
    the, a, b = (WORDS.index(word) for word in ("\u2581the", "\u2581a", "b"))
    decoder = IncrementalDecoder(model, [the])
    assert [decoder.add(token) for token in (a, b, the)] == [" a", "b", " the"]
    assert IncrementalDecoder(model).add(the) == "the"


def test_text_comes_without_delay_with_the_usual_decoders() -> None:
    for kind in ("byte level", "llama 2", "metaspace"):
        model = tokenizer(DECODERS[kind]())
        decoder = IncrementalDecoder(model, [0])
        assert [decoder.add(1) for _ in range(1000)] == ["b"] * 1000


def test_the_work_for_a_token_does_not_grow_with_the_text() -> None:
    decoder = IncrementalDecoder(tokenizer(decoders.ByteLevel()), [0] * 5000)
    for _ in range(5000):
        decoder.add(1)
        assert len(decoder._ids) <= 257
