"""Several sequences in one decoder, and a cache in f16: no sequence changes the bits of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from oracle.params import random_weights
from oracle.variants import VARIANTS, Variant
from toynn import LlamaDecoder, Sampling, SessionError, TinyNNMemoryError, TinyNNTypeError, TinyNNValueError, generate
from toynn.interop import GgufBase, export_gguf
from toynn.llm.fused import decoder as decoder_module
from toynn.llm.layouts import to_fused
from toynn.model.config import SmolLM2Config
from toynn.model.shape import ModelShape
from toynn.model.trained_model import TrainedModel
from toynn.model.weights import weight_shapes
from toynn.text.batch_generation import generate_each

VARIANT_NAMES = [name for name in VARIANTS if name != "batch of 3"]
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [1, 2, 3], [11, 3]]


def decoder(variant: Variant, n_threads: int = 2, **options: Any) -> LlamaDecoder:
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    fused = to_fused({name: values.astype(np.float32) for name, values in weights.items()}, variant.cfg)
    return LlamaDecoder(
        variant.cfg, fused, untied=variant.untied, qkv_bias=variant.qkv_bias, n_threads=n_threads, oversubscribe=True,
        **options,
    )  # fmt: skip


def read_alone(d: LlamaDecoder, texts: Sequence[Sequence[int]], start: int) -> list[list[bytes]]:
    """Return, for each text, the logits after its first `start` tokens and after each of its later tokens."""
    found = []
    for text in texts:
        d.rewind()
        found.append([d.feed(text[:start]).tobytes(), *(d.feed([token]).tobytes() for token in text[start:])])
    return found


# ---- the decoder ----


@pytest.mark.quick
@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_the_logits_of_a_sequence_are_those_that_it_has_alone(name: str) -> None:
    variant = VARIANTS[name]
    texts = np.random.default_rng(1).integers(0, variant.cfg.vocab, (5, 12)).tolist()
    with decoder(variant) as d:
        want = read_alone(d, texts, 4)
        d.open_sequences(5, 12)
        got = [[d.feed(text[:4], i).tobytes()] for i, text in enumerate(texts)]
        for at in range(4, 12):
            # in each round, another sequence reads its token in a call of its own
            places = [i for i in range(5) if i != at % 5]
            for place, logits in zip(places, d.feed_each([texts[i][at] for i in places], places), strict=True):
                got[place].append(logits.tobytes())
            got[at % 5].append(d.feed([texts[at % 5][at]], at % 5).tobytes())
        assert got == want
        assert [d.n_past_of(i) for i in range(5)] == [12] * 5
        d.open_sequences()
        assert read_alone(d, texts[:1], 4) == want[:1], "one sequence must work as before"


@contextmanager
def decoder_of_type(folder: Path, dtype: str, **options: Any) -> Iterator[LlamaDecoder]:
    shape = ModelShape.of(SmolLM2Config(61, 256, 4, 2, 256, 1, 32, 10000.0, 1e-5))
    draw = np.random.default_rng(3)
    weights = {
        name: draw.standard_normal(size, dtype=np.float32) * np.float32(0.1) if len(size) > 1
        else np.ones(size, np.float32)
        for name, size in weight_shapes(shape).items()
    }  # fmt: skip
    export_gguf(TrainedModel(shape, weights, None), folder / "model.gguf", dtype)
    with GgufBase(folder / "model.gguf") as base, LlamaDecoder.on_base(base, n_threads=1, **options) as d:
        yield d


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "dtype", ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K"]
)
def test_stored_weights_give_each_prompt_its_own_tokens_and_logits(tmp_path: Path, dtype: str) -> None:
    with decoder_of_type(tmp_path, dtype) as d:
        texts = np.random.default_rng(1).integers(0, 61, (4, 6)).tolist()
        want = read_alone(d, texts, 3)
        d.open_sequences(4, 6)
        got = [[d.feed(text[:3], i).tobytes()] for i, text in enumerate(texts)]
        for at in range(3, 6):
            for i, logits in enumerate(d.feed_each([text[at] for text in texts], range(4))):
                got[i].append(logits.tobytes())
        assert got == want


def test_wrong_sequences_are_refused_and_change_nothing() -> None:
    with decoder(VARIANTS["gqa"], n_ctx=8) as d:
        for n, n_ctx, mentions in ((0, 4, "n must be"), (2, 9, "n_ctx must be"), (2**40, 8, "n must be")):
            with pytest.raises(TinyNNValueError, match=mentions):
                d.open_sequences(n, n_ctx)
        d.open_sequences(3, 4)
        first = d.feed([1, 2, 3], 1)
        for ids, places, mentions in (
            ([1], [3], "sequence must be"),
            ([1, 2], [1, 0], r"sequences must be different numbers in rising order, got \[1, 0\]"),
            ([1, 2], [1], "sequences must have 2 numbers, one for each token, got 1"),
            ([1, 99], [0, 1], r"ids\[1\] is 99"),
        ):
            with pytest.raises(TinyNNValueError, match=mentions):
                d.feed_each(ids, places)
        d.feed_each([4], [1])
        with pytest.raises(TinyNNValueError, match="the sequence 1 is full, because it already has n_ctx = 4 tokens"):
            d.feed_each([4, 4], [0, 1])
        with pytest.raises(TinyNNValueError, match="n_past must be at most 4"):
            d.rewind(5, 1)
        d.rewind(2, 1)
        assert d.feed([3], 1).tobytes() == first.tobytes()
        assert [d.n_past_of(i) for i in range(3)] == [0, 3, 0]
    with pytest.raises(SessionError):
        d.open_sequences(2)


def test_no_token_is_read_if_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, nbytes: int, what: str) -> None:
        raise TinyNNMemoryError(f"{name}: {what} need {nbytes} bytes, but only 0 are available")

    with decoder(VARIANTS["gqa"]) as d:
        want = d.feed([1, 2])
        d.open_sequences(2, 8)
        monkeypatch.setattr(decoder_module, "want_memory", refuse)
        with pytest.raises(TinyNNMemoryError, match="ids: the keys and values of the tokens need"):
            d.feed([1, 2], 1)
        assert d.n_past_of(1) == 0
        monkeypatch.undo()
        assert d.feed([1, 2], 1).tobytes() == want.tobytes()


# ---- generation ----


@pytest.mark.quick
@pytest.mark.parametrize("at_once", [1, 2, 3, 16])
@pytest.mark.parametrize("sampling", [Sampling.greedy(), Sampling(1.5, 0, 1.0, 0.0, 3)], ids=["greedy", "sampled"])
def test_each_prompt_gets_the_tokens_that_it_gets_alone(sampling: Sampling, at_once: int) -> None:
    """The texts end for different reasons: at a stop token, at max_tokens, and when the context is full."""
    reasons: set[str | None] = set()
    with decoder(VARIANTS["gqa"], n_ctx=14) as d:
        for max_tokens in (0, 1, 6, 9, 30):
            for stop in ((), (7, 8, 9)):
                want = []
                for prompt in PROMPTS:
                    d.rewind()
                    stream = generate(d, prompt, sampling, max_tokens, stop, never=[2])
                    want.append((list(stream), stream.finish_reason))
                found = generate_each(d, PROMPTS, sampling, max_tokens, stop, never=[2], at_once=at_once)
                assert [(one.tokens, one.finish_reason) for one in found] == want
                reasons.update(one.finish_reason for one in found)
        assert d.n_sequences == 1
        assert d.n_ctx == 14
    assert reasons == {"stop_token", "max_tokens", "context_full"}


def test_wrong_prompts_of_a_batch_are_refused_by_number() -> None:
    with decoder(VARIANTS["gqa"], n_ctx=8) as d:
        assert generate_each(d, [], Sampling(), 5) == []
        before = d.turns
        wrong: list[tuple[list[Any], type[Exception], str]] = [
            (
                [[1], []],
                TinyNNValueError,
                r"prompts\[1\] must be a one-dimensional sequence of at least 1 and at most n_ctx = 8",
            ),
            ([[1], [1] * 9], TinyNNValueError, r"prompts\[1\]"),
            ([[1], [1, 400]], TinyNNValueError, r"prompts\[1\]\[1\] is 400"),
            ([[1], "ab"], TinyNNTypeError, r"prompts\[1\]"),
        ]
        for prompts, error, mentions in wrong:
            with pytest.raises(error, match=mentions):
                generate_each(d, prompts, Sampling(), 5)
        assert d.turns == before, "the decoder must keep its tokens"


# ---- a cache in f16 ----


def cached(d: LlamaDecoder) -> npt.NDArray[np.float32]:
    from toynn.tinynn import tnn_download

    return tnn_download(d._session, d._caches[0])


def test_a_cache_in_f16_holds_the_rounded_keys_and_values() -> None:
    with decoder(VARIANTS["gqa"]) as exact, decoder(VARIANTS["gqa"], cache="f16") as half:
        exact.feed([1, 2, 3, 4, 5])
        half.feed([1, 2, 3, 4, 5])
        want = cached(exact).astype(np.float16).astype(np.float32)
        assert want.any()
        assert cached(half).tobytes() == want.tobytes(), "layer 0 computes the same keys and values in both decoders"


@pytest.mark.quick
@pytest.mark.parametrize("name", VARIANT_NAMES)
def test_a_cache_in_f16_gives_the_same_bits_for_any_division_and_threads(name: str) -> None:
    variant = VARIANTS[name]
    ids = np.random.default_rng(1).integers(0, variant.cfg.vocab, 14)
    found = set()
    for n_threads, cuts in ((1, [14]), (2, [1] * 14), (3, [5, 1, 1, 7]), (4, [13, 1])):
        with decoder(variant, n_threads, cache="f16") as d:
            at = 0
            for n in cuts:
                logits = d.feed(ids[at : at + n])
                at += n
            found.add(logits.tobytes())
    with decoder(variant) as d:
        exact = d.feed(ids)
    assert len(found) == 1
    np.testing.assert_allclose(np.frombuffer(found.pop(), np.float32), exact, rtol=0.02, atol=0.02)
    assert logits.tobytes() != exact.tobytes(), "the keys and values must be rounded"


def test_sequences_with_a_cache_in_f16_have_the_bits_of_each_alone() -> None:
    with decoder(VARIANTS["gqa"], n_ctx=14, cache="f16") as d:
        want = []
        for prompt in PROMPTS:
            d.rewind()
            want.append(list(generate(d, prompt, Sampling.greedy(), 8)))
        assert [one.tokens for one in generate_each(d, PROMPTS, Sampling.greedy(), 8)] == want


def test_an_unknown_type_of_cache_is_refused() -> None:
    with pytest.raises(TinyNNValueError, match=r"cache must be one of 'f32', 'f16', got 'q8_0'"):
        decoder(VARIANTS["gqa"], cache="q8_0")
