"""LlamaDecoder and sampling: the cache does not change any bit, and each filter keeps the right tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engines import realized
from oracle.params import random_weights
from oracle.variants import VARIANTS, Variant
from toynn import (
    LlamaDecoder,
    LlamaSeqEngine,
    Sampling,
    SmolLM2Config,
    TinyNNTypeError,
    TinyNNValueError,
    generate,
)
from toynn.llm.layouts import to_fused
from toynn.text.sampling import choices

CACHED = {name: variant for name, variant in VARIANTS.items() if name != "batch of 3"}
each_variant = pytest.mark.parametrize("variant", CACHED.values(), ids=CACHED.keys())


def fused_weights(variant: Variant) -> dict[str, npt.NDArray[np.float32]]:
    weights = random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=5)
    return to_fused({name: values.astype(np.float32) for name, values in weights.items()}, variant.cfg)


def decoder(variant: Variant, n_threads: int = 1, n_ctx: int | None = None) -> LlamaDecoder:
    return LlamaDecoder(
        variant.cfg, fused_weights(variant), untied=variant.untied, qkv_bias=variant.qkv_bias, n_ctx=n_ctx,
        n_threads=n_threads, oversubscribe=True,
    )  # fmt: skip


@contextmanager
def full_forward(variant: Variant, t_seq: int) -> Iterator[LlamaSeqEngine]:
    """Yield an engine without a cache, for sequences of t_seq tokens, with the weights of the variant."""
    with realized(variant.cfg, t_seq=t_seq, untied=variant.untied, qkv_bias=variant.qkv_bias) as engine:
        for name, values in fused_weights(variant).items():
            engine.upload_weight(name, values)
        yield engine


# ---- the cache ----


@each_variant
@pytest.mark.parametrize("cuts", [[16], [1] * 16, [5, 1, 1, 7, 2], [3, 13]])
def test_cached_logits_equal_those_of_a_full_forward_bit_for_bit(variant: Variant, cuts: list[int]) -> None:
    ids = np.random.default_rng(1).integers(0, variant.cfg.vocab, 16)
    with full_forward(variant, 16) as engine:
        want = engine.forward(ids)
    with decoder(variant, n_threads=2) as d:
        at = 0
        for n in cuts:
            logits = d.feed(ids[at : at + n])
            at += n
            assert d.n_past == at
            assert logits.tobytes() == want[at - 1].tobytes()


@pytest.mark.quick
def test_a_long_greedy_text_is_the_same_with_the_cache_and_with_full_forwards() -> None:
    """The text of 300 tokens is longer than a block of queries, and the softmax ends at many vector positions."""
    variant = Variant(SmolLM2Config(61, 32, 4, 2, 48, 2, 320, 10000.0, 1e-5), 1, untied=True)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    with decoder(variant) as d:
        cached = list(generate(d, prompt, Sampling.greedy(), 300))
    assert len(cached) == 300
    assert len(set(cached)) > 5, "the text must have several different tokens"
    text = prompt + cached
    with full_forward(variant, len(text)) as engine:
        logits = engine.forward(text)  # causal: row i equals the last row of a forward over text[: i + 1]
    assert [int(row.argmax()) for row in logits[len(prompt) - 1 : -1]] == cached


def test_a_prompt_longer_than_a_chunk_gives_the_same_bits() -> None:
    variant = Variant(SmolLM2Config(31, 16, 2, 1, 24, 1, 700, 10000.0, 1e-5), 1)
    ids = np.random.default_rng(2).integers(0, 31, 650)
    with full_forward(variant, 650) as engine:
        want = engine.forward(ids)[-1]
    with decoder(variant) as d:
        assert d.feed(ids).tobytes() == want.tobytes()


@pytest.mark.quick
@each_variant
def test_scores_equal_the_losses_of_a_full_forward(variant: Variant) -> None:
    ids = np.random.default_rng(3).integers(0, variant.cfg.vocab, 12)
    with full_forward(variant, 12) as engine:
        logits = engine.forward(ids).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    with decoder(variant) as d:
        d.feed([1, 2, 3])
        losses = d.score(ids)
        assert d.n_past == 0
        np.testing.assert_allclose(losses, -log_softmax[np.arange(11), ids[1:]], rtol=1e-5, atol=1e-6)
        assert d.score(ids[:5]).tobytes() == losses[:4].tobytes()
        assert d.feed(ids[:4]).tobytes() == logits[3].astype(np.float32).tobytes(), "feeding must continue as before"


def test_rewinding_drops_the_later_tokens() -> None:
    variant = CACHED["gqa"]
    with decoder(variant) as d:
        first = d.feed([1, 2, 3, 4])
        d.feed([9, 9, 9])
        d.rewind(3)
        assert d.feed([4]).tobytes() == first.tobytes()
        d.rewind()
        assert d.feed([1, 2, 3, 4]).tobytes() == first.tobytes()
        with pytest.raises(TinyNNValueError, match=r"n_past must be at most 4 \(the number of tokens read\), got 5"):
            d.rewind(5)


def test_a_decoder_allocates_no_moments() -> None:
    variant = CACHED["untied"]
    with decoder(variant) as d:
        n = sum(values.size for values in fused_weights(variant).values())
        from toynn.tinynn import tnn_session_weights_nbytes

        assert tnn_session_weights_nbytes(d._session) < 4 * n + 32 * 1024


# ---- refused ids and weights ----


def test_wrong_ids_are_refused_and_change_nothing() -> None:
    variant = CACHED["tied"]
    with decoder(variant, n_ctx=8) as d:
        before = d.feed([1, 2, 3])
        for wrong, error, mentions in (
            ([23], TinyNNValueError, r"^ids\[0\] is 23"),
            ([1, -1], TinyNNValueError, r"^ids\[1\] is -1"),
            ([], TinyNNValueError, "at least one token"),
            ([[1, 2]], TinyNNValueError, "one-dimensional"),
            ([1] * 6, TinyNNValueError, "are already read, got 6"),
            ([1.5], TinyNNTypeError, "integer"),
        ):
            with pytest.raises(error, match=mentions):
                d.feed(wrong)
            assert d.n_past == 3
        d.rewind(2)
        assert d.feed([3]).tobytes() == before.tobytes()
        for wrong, mentions in (([1], "must hold 2 to n_ctx"), ([1] * 10, "must hold 2 to n_ctx")):
            with pytest.raises(TinyNNValueError, match=mentions):
                d.score(wrong)


def test_weights_that_do_not_fit_the_model_are_refused_by_name() -> None:
    variant = CACHED["tied"]
    weights = fused_weights(variant)
    lacking = {name: values for name, values in weights.items() if name != "blk.1.ffn_up.weight"}
    cases: list[tuple[Mapping[str, npt.ArrayLike], str]] = [
        (lacking, r"but 'blk\.1\.ffn_up\.weight' is missing"),
        ({**weights, "output.weight": weights["token_embd.weight"]}, r"but 'output\.weight' is unknown"),
        ({**weights, "output_norm.weight": np.ones(3)}, r"output_norm\.weight must have shape \(12,\)"),
    ]
    for wrong, mentions in cases:
        with pytest.raises(TinyNNValueError, match=mentions):
            LlamaDecoder(variant.cfg, wrong, untied=False)
    with pytest.raises(TinyNNValueError, match=r"n_ctx must be at most cfg\.ctx = 16"):
        LlamaDecoder(variant.cfg, weights, untied=False, n_ctx=17)


# ---- sampling ----

rows = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(logits=rows, temperature=st.floats(0.1, 3), top_k=st.integers(0, 45), top_p=st.floats(0.05, 1.0),
       min_p=st.floats(0, 1))  # fmt: skip
@example(logits=[0.0, 0.0], temperature=1.0, top_k=0, top_p=0.5, min_p=0.0)
def test_the_possible_tokens_are_those_that_all_filters_keep(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    sampling = Sampling(temperature, top_k, top_p, min_p)
    tokens, p = choices(logits, sampling)
    assert p.sum() == pytest.approx(1)
    assert (np.diff(p) <= 0).all()
    kept = np.asarray(logits)[tokens]
    assert kept[0] == max(logits)
    assert (np.diff(kept) <= 0).all(), "the most likely tokens must come first"
    assert top_k == 0 or tokens.size <= top_k
    # applies the filters by their definition, which is slow
    x = np.asarray(logits, dtype=np.float64)
    order = sorted(range(x.size), key=lambda i: (-x[i], i))
    order = order[:top_k] if top_k else order
    weight = {i: float(np.exp((x[i] - x[order[0]]) / sampling.temperature)) for i in order}
    total = sum(weight.values())
    nucleus, reached, near = [], 0.0, False
    for i in order:
        nucleus.append(i)
        reached += weight[i] / total
        # at the limit itself, rounding decides whether the token is kept
        near = near or abs(reached - sampling.top_p) < 1e-9
        if sampling.top_p < 1 and reached >= sampling.top_p * (1 + 1e-12):
            break
    least = sampling.min_p * weight[order[0]]
    sure = [i for i in nucleus if weight[i] > least * (1 + 1e-9)]
    assert set(sure) <= set(tokens.tolist()) or near
    assert tokens.size <= len(nucleus) + 1


def test_greedy_sampling_takes_the_first_of_equal_logits() -> None:
    tokens, p = choices([0.0, 2.0, 2.0, 1.0], Sampling.greedy())
    assert tokens.tolist() == [1]
    assert p.tolist() == [1.0]


def test_samples_follow_the_probabilities_and_depend_on_the_seed() -> None:
    """The frequencies of 2,000 samples must be within five standard deviations of the probabilities."""
    variant = CACHED["tied"]
    with decoder(variant) as d:
        logits = d.feed([1, 2, 3]).astype(np.float64)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        counts = np.zeros(23)
        n = 2000
        for seed in range(n):
            d.rewind()
            counts[next(generate(d, [1, 2, 3], Sampling(1.0, 0, 1.0, 0.0, seed), 1))] += 1
        assert (np.abs(counts - n * p) < 5 * np.sqrt(n * p * (1 - p)) + 1).all()
        texts = []
        for seed in (7, 7, 8):
            d.rewind()
            texts.append(list(generate(d, [1, 2, 3], Sampling(1.0, 0, 1.0, 0.0, seed), 10)))
        assert texts[0] == texts[1] != texts[2]


def test_generation_ends_before_a_stop_token_and_when_the_cache_is_full() -> None:
    variant = CACHED["gqa"]
    with decoder(variant, n_ctx=9) as d:
        whole = list(generate(d, [1, 2, 3], Sampling.greedy(), 100))
        assert len(whole) == 7, "the last token must not be fed"
        d.rewind()
        stop = whole[3]
        assert list(generate(d, [1, 2, 3], Sampling.greedy(), 100, {stop})) == whole[: whole.index(stop)]
        d.rewind()
        assert list(generate(d, [1, 2, 3], Sampling.greedy(), 0)) == []


def test_the_finish_reason_is_known_after_the_last_token() -> None:
    with decoder(CACHED["gqa"], n_ctx=9) as d:
        whole = generate(d, [1, 2, 3], Sampling.greedy(), 100)
        first = next(whole)
        assert whole.finish_reason is None
        tokens = [first, *whole]
        assert whole.finish_reason == "context_full"
        for max_tokens, stop, reason in (
            (0, (), "max_tokens"),
            (6, (), "max_tokens"),
            (7, (), "max_tokens"),
            (8, (), "context_full"),
            (8, {tokens[2]}, "stop_token"),
            (8, range(23), "stop_token"),
        ):
            d.rewind()
            made = generate(d, [1, 2, 3], Sampling.greedy(), max_tokens, stop)
            list(made)
            assert made.finish_reason == reason
            assert list(made) == []
            assert made.finish_reason == reason


@pytest.mark.parametrize(("n_ctx", "keep"), [(9, 0), (8, 0), (9, 2), (9, 4), (9, 30), (1, 0), (2, 1), (3, 1)])
def test_a_rolling_context_reads_its_last_half_again(n_ctx: int, keep: int) -> None:
    """Each token is the most likely token of a new decoder that reads the expected tokens of the rolling context."""
    prompt = [1, 2, 3][: min(n_ctx, 3)]
    half = max(n_ctx // 2, 1)
    kept = keep if keep < half else 0
    with decoder(CACHED["gqa"], n_ctx=n_ctx) as d, decoder(CACHED["gqa"], n_ctx=n_ctx) as fresh:
        made = generate(d, prompt, Sampling.greedy(), 40, rolling=True, keep=keep)
        context = list(prompt)
        for token in made:
            fresh.rewind()
            assert token == fresh.feed(context).argmax()
            if len(context) == n_ctx:
                context = context[:kept] + [*context, token][len(context) + 1 - (half - kept) :]
            else:
                context.append(token)
        assert made.finish_reason == "max_tokens"
        d.rewind()
        plain = list(generate(d, prompt, Sampling.greedy(), 40))
        d.rewind()
        rolled = list(generate(d, prompt, Sampling.greedy(), 40, rolling=True, keep=keep))
    assert rolled[: len(plain)] == plain, "until the context is full, rolling changes nothing"
    assert len(rolled) == 40


def test_a_rolling_context_ends_at_a_stop_token_too() -> None:
    with decoder(CACHED["gqa"], n_ctx=9) as d:
        tokens = list(generate(d, [1, 2, 3], Sampling(seed=3), 60, rolling=True))
        late = next(i for i in range(10, 60) if tokens.index(tokens[i]) == i)
        d.rewind()
        made = generate(d, [1, 2, 3], Sampling(seed=3), 60, {tokens[late]}, rolling=True)
        assert list(made) == tokens[:late]
        assert made.finish_reason == "stop_token"


def test_text_that_was_read_before_the_prompt_is_forgotten_first() -> None:
    with decoder(CACHED["gqa"], n_ctx=9) as d:
        d.feed([7, 7, 7, 7])
        tokens = list(generate(d, [1, 2], Sampling.greedy(), 6, rolling=True))
        assert len(tokens) == 6
        d.rewind()
        assert d.feed([*tokens][:4]).argmax() == tokens[4], "4 of 9 tokens are read again after the cache was full"


def test_forbidden_tokens_are_never_sampled() -> None:
    never = [i for i in range(23) if i not in (4, 9, 11)]
    with decoder(CACHED["tied"]) as d:
        for sampling in (Sampling.greedy(), Sampling(5.0, 0, 1.0, 0.0, 1), Sampling(5.0, 5, 0.9, 0.1, 2)):
            d.rewind()
            assert set(generate(d, [1, 2, 3], sampling, 12, never=never)) <= {4, 9, 11}
        for wrong, mentions in (
            ([23], "the argument 'never' must contain token ids from 0 to 22"),
            ([-1], "the argument 'never' must contain token ids from 0 to 22"),
            ([[1]], "the argument 'never' must be a flat array"),
            (range(23), "the argument 'never' contains all"),
            (np.broadcast_to(np.int64(1), 2**40), "never must hold at most 23"),
        ):
            with pytest.raises(TinyNNValueError, match=mentions):
                next(generate(d, [1], Sampling(), 3, never=wrong))


def test_a_token_with_the_logit_minus_infinity_cannot_be_sampled() -> None:
    for sampling in (Sampling.greedy(), Sampling(1.0, 0, 1.0, 0.0), Sampling(1.0, 3, 1.0, 0.0)):
        tokens, p = choices([-np.inf, 0.0, -np.inf, 1.0], sampling)
        assert set(tokens.tolist()) <= {1, 3}
        assert (p > 0).all()


def test_the_most_likely_tokens_of_many_equals_are_those_of_a_stable_sort() -> None:
    logits = np.random.default_rng(4).integers(0, 9, 500).astype(np.float32)
    order = np.argsort(-logits, kind="stable")
    for top_k in (1, 2, 50, 56, 499, 500, 501, 0):
        tokens, _ = choices(logits, Sampling(1.0, top_k, 1.0, 0.0))
        assert tokens.tolist() == order[: top_k or 500].tolist()
    assert choices(logits, Sampling.greedy())[0].tolist() == order[:1].tolist()


@pytest.mark.parametrize(
    ("stop", "mentions"),
    [
        (np.broadcast_to(np.int64(1), 2**40), "stop must contain at most"),
        (range(-1, 5), "a token of stop must be an integer from 0"),
        (range(5, -2, -1), "a token of stop must be an integer from 0"),
    ],
)
def test_stop_tokens_out_of_range_are_refused_at_once(stop: Any, mentions: str) -> None:
    with decoder(CACHED["tied"]) as d, pytest.raises(TinyNNValueError, match=mentions):
        next(generate(d, [1], Sampling(), 3, stop))


def test_a_range_of_stop_tokens_is_not_copied() -> None:
    with decoder(CACHED["tied"]) as d:
        assert list(generate(d, [1], Sampling(), 3, range(10**9))) == []
        d.rewind()
        assert len(list(generate(d, [1], Sampling(), 3, range(0)))) == 3


@pytest.mark.parametrize(
    ("wrong", "mentions"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"seed": -1}, "seed"),
    ],
)
def test_sampling_settings_out_of_range_are_refused_by_name(wrong: dict[str, float], mentions: str) -> None:
    with pytest.raises(TinyNNValueError, match=mentions):
        Sampling(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("logits", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 1.0]])
def test_logits_of_a_diverged_model_are_refused(logits: npt.ArrayLike) -> None:
    with pytest.raises(TinyNNValueError, match="diverged"):
        choices(logits, Sampling())


@pytest.mark.parametrize("logits", [[], np.ones((1, 1))])
def test_logits_of_another_shape_are_refused(logits: npt.ArrayLike) -> None:
    with pytest.raises(TinyNNValueError, match="flat array of at least one number, got shape"):
        choices(logits, Sampling())
