"""Fused attention with windows, scales and a cache agrees with PyTorch in float64, and a cache changes no bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gemm_kernels import kernel, kernels
from toynn import SessionError, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn

F32 = npt.NDArray[np.float32]

HEADS, KV, D, VOCAB = 4, 2, 6, 11
ROW = (HEADS + 2 * KV) * D
BASE = 100.0

# The scores of a sequence of this length consist of three blocks of keys.
LONG = 781
# Sequences (length, number, window) of one block of queries and of several blocks, with windows that are smaller than a
# block, about as large as a block, or larger than a block.
SIZES = [(1, 2, 1), (7, 2, 3), (7, 1, 7), (97, 1, 96), (130, 2, 17), (200, 1, 97), (200, 1, 130), (100, 1, 1)]
SIZES.append((LONG, 1, LONG))


def values(t: int, batch: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal((t * batch, ROW)).astype(np.float32)


def attention(qkv: F32, t: int, n_threads: int = 1, **options: Any) -> tuple[F32, F32]:
    """Return the attention, and the gradient of qkv for the loss of `head`."""
    rows = qkv.shape[0]
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        x = nn.tnn_input_2d_f32_persistent(s, rows, ROW)
        w = nn.tnn_input_2d_f32_persistent(s, VOCAB, HEADS * D)
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(x)
        positions, targets = nn.tnn_input_1d_i32(s, rows), nn.tnn_input_1d_i32(s, rows)
        table = nn.tnn_fused_rope_table(s, positions, None, D, BASE, 1.0, 1.0)
        out = nn.tnn_fused_attention(s, x, table, HEADS, KV, t, **options)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, out, [w]), targets, -1)
        nn.tnn_set_output(out)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, x)
        nn.tnn_set_output(grad)
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, x, qkv)
        nn.upload_row_major(s, w, head())
        nn.upload_int_array(s, positions, np.tile(np.arange(t, dtype=np.int32), rows // t))
        nn.upload_int_array(s, targets, np.arange(rows, dtype=np.int32) % VOCAB)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        return nn.download_row_major(s, out, rows, HEADS * D), nn.download_row_major(s, grad, rows, ROW)


def head() -> F32:
    """Return the output matrix. The loss is the cross entropy of its logits with the targets 0, 1, 2, ..."""
    return np.random.default_rng(9).standard_normal((VOCAB, HEADS * D)).astype(np.float32)


def expected(qkv: F32, t: int, window: int, scale: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what `attention` returns, computed by PyTorch in float64 with a mask."""
    torch: Any = pytest.importorskip("torch")
    x = torch.tensor(qkv.astype(np.float64), requires_grad=True)
    parts = x.reshape(-1, t, HEADS + 2 * KV, D).transpose(1, 2)  # (B, heads, T, D)
    angles = torch.outer(torch.arange(t).double(), torch.tensor([BASE ** (-2 * i / D) for i in range(D // 2)]).double())

    def turned(h: Any) -> Any:
        a, b = h.chunk(2, dim=-1)
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=-1)

    q, k, v = turned(parts[:, :HEADS]), turned(parts[:, HEADS : HEADS + KV]), parts[:, HEADS + KV :]
    k, v = k.repeat_interleave(HEADS // KV, dim=1), v.repeat_interleave(HEADS // KV, dim=1)
    distance = torch.arange(t)[:, None] - torch.arange(t)[None, :]
    hidden = (distance < 0) | (distance >= window)
    scores = (q @ k.transpose(2, 3) * scale).masked_fill(hidden, -math.inf)
    out = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(-1, HEADS * D)
    targets = torch.arange(out.shape[0]) % VOCAB
    torch.nn.functional.cross_entropy(out @ torch.tensor(head().astype(np.float64)).T, targets).backward()
    return out.detach().numpy(), x.grad.numpy()


@pytest.mark.oracle_torch
@pytest.mark.parametrize(("t", "batch", "window"), SIZES)
def test_a_window_and_a_scale_agree_with_a_mask_in_float64(t: int, batch: int, window: int) -> None:
    qkv = values(t, batch)
    got = attention(qkv, t, window=window, scale=0.7)
    for one, want in zip(got, expected(qkv, t, window, 0.7), strict=True):
        np.testing.assert_allclose(one, want, rtol=0, atol=2e-6 * max(1.0, np.abs(want).max()))


@pytest.mark.quick
@pytest.mark.parametrize("window", [130, 131, 2**63 - 1])
def test_a_window_of_the_whole_sequence_has_the_bits_of_no_window(window: int) -> None:
    qkv = values(130, 2)
    plain = attention(qkv, 130)
    for options in ({"window": window}, {"window": window, "scale": float(np.float32(1.0) / np.sqrt(np.float32(D)))}):
        for one, want in zip(attention(qkv, 130, **options), plain, strict=True):
            assert one.tobytes() == want.tobytes()


@pytest.mark.threads
@pytest.mark.parametrize("n_threads", [2, 3, 4])
def test_a_window_has_the_same_bits_with_any_number_of_threads(n_threads: int) -> None:
    qkv = values(130, 2)
    one, several = (attention(qkv, 130, n, window=17) for n in (1, n_threads))
    assert [part.tobytes() for part in one] == [part.tobytes() for part in several]


@pytest.mark.threads
@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize("n_threads", [1, 3])
def test_blocks_of_keys_have_the_same_bits_with_every_kernel_and_number_of_threads(name: str, n_threads: int) -> None:
    qkv = values(LONG, 1)
    want = attention(qkv, LONG)
    with kernel(name):
        got = attention(qkv, LONG, n_threads)
    assert [part.tobytes() for part in got] == [part.tobytes() for part in want]


@pytest.mark.quick
@pytest.mark.parametrize("name", kernels())
def test_large_scores_have_the_same_bits_with_every_kernel(name: str) -> None:
    """The differences of the scores cover the range of the exponential function, also where its result is 0."""
    qkv = 30 * values(97, 1)
    want = attention(qkv, 97)
    assert np.isfinite(want[0]).all()
    with kernel(name):
        got = attention(qkv, 97)
    assert [part.tobytes() for part in got] == [part.tobytes() for part in want]


@pytest.mark.quick
def test_a_token_depends_on_the_tokens_of_its_window_only() -> None:
    qkv = values(130, 1)
    before, _ = attention(qkv, 130, window=17)
    qkv[50] += 1.0
    after, _ = attention(qkv, 130, window=17)
    changed = np.flatnonzero((before != after).any(axis=1))
    assert changed.tolist() == list(range(50, 67))


@pytest.mark.quick
@pytest.mark.parametrize("window", [0, 1, 17, 97, 199, 200])
@pytest.mark.parametrize("pieces", [[200], [1, 198, 1], [50, 97, 53], [130, *[1] * 70]])
def test_a_cache_gives_the_bits_of_the_whole_sequence(window: int, pieces: list[int]) -> None:
    t = 200
    qkv = values(t, 1)
    want, _ = attention(qkv, t, window=window, scale=0.7)
    with nn.Session(n_threads=2, oversubscribe=True) as s:
        cache = nn.tnn_input_2d_f32_persistent(s, t + 3, 2 * KV * D)
        nn.tnn_finalize_weights(s)
        at = 0
        for n in pieces:
            nn.tnn_reset_for_rebuild(s)
            x, positions, past = nn.tnn_input_2d_f32(s, n, ROW), nn.tnn_input_1d_i32(s, n), nn.tnn_input_1d_i32(s, 1)
            table = nn.tnn_fused_rope_table(s, positions, None, D, BASE, 1.0, 1.0)
            out = nn.tnn_fused_attention_cached(s, x, table, cache, past, HEADS, KV, window=window, scale=0.7)
            nn.tnn_set_output(out)
            nn.tnn_realize(s, out)
            nn.upload_row_major(s, x, qkv[at : at + n])
            nn.upload_int_array(s, positions, np.arange(at, at + n, dtype=np.int32))
            nn.upload_int_array(s, past, [at])
            nn.tnn_compute(s)
            assert nn.download_row_major(s, out, n, HEADS * D).tobytes() == want[at : at + n].tobytes()
            at += n


@pytest.mark.quick
@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"window": -1}, "window = -1 must be at least 1, or 0 for all keys"),
        ({"scale": -0.5}, r"scale = -0\.5 must be above 0, or 0 for 1/sqrt\(d_head\)"),
        ({"scale": math.nan}, "scale"),
        ({"scale": math.inf}, "scale"),
    ],
)
def test_a_wrong_window_or_scale_is_refused(options: dict[str, Any], mentions: str) -> None:
    with nn.Session(n_threads=1) as s:
        cache = nn.tnn_input_2d_f32_persistent(s, 4, 2 * KV * D)
        nn.tnn_finalize_weights(s)
        x, positions, past = nn.tnn_input_2d_f32(s, 4, ROW), nn.tnn_input_1d_i32(s, 4), nn.tnn_input_1d_i32(s, 1)
        table = nn.tnn_fused_rope_table(s, positions, None, D, BASE, 1.0, 1.0)
        with pytest.raises(TinyNNValueError, match=mentions):
            nn.tnn_fused_attention(s, x, table, HEADS, KV, 4, **options)
        with pytest.raises(TinyNNValueError, match=mentions):
            nn.tnn_fused_attention_cached(s, x, table, cache, past, HEADS, KV, **options)


# ---- several sequences, and a cache in f16 ----


def rotated(x: npt.NDArray[np.float64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return x (tokens, D) after NEOX RoPE, in float64."""
    angles = np.outer(positions, BASE ** (-2.0 * np.arange(D // 2) / D))
    c, s = np.cos(angles), np.sin(angles)
    low, high = x[:, : D // 2], x[:, D // 2 :]
    return np.hstack([low * c - high * s, low * s + high * c])


def oracle_of_rounded(qkv: npt.NDArray[np.float32], position: int) -> npt.NDArray[np.float64]:
    """Return the attention of the token at a position, (HEADS D,): float64, with keys and values rounded to f16."""
    x, positions = qkv[: position + 1].astype(np.float64), np.arange(position + 1)
    heads = []
    for head in range(HEADS):
        kv = head // (HEADS // KV)
        q = rotated(x[-1:, head * D : (head + 1) * D], positions[-1:])[0]
        k = rotated(x[:, (HEADS + kv) * D : (HEADS + kv + 1) * D], positions).astype(np.float16).astype(np.float64)
        v = x[:, (HEADS + KV + kv) * D : (HEADS + KV + kv + 1) * D].astype(np.float16).astype(np.float64)
        scores = k @ q / np.sqrt(D)
        p = np.exp(scores - scores.max())
        heads.append(p @ v / p.sum())
    return np.concatenate(heads)


@contextmanager
def sequences(s: nn.Session, cache: nn.Tensor, n: int, t: int, n_ctx: int) -> Iterator[Callable[..., Any]]:
    """Yield a function that computes the attention of t more tokens of each of n sequences."""
    nn.tnn_reset_for_rebuild(s)
    x, positions = nn.tnn_input_2d_f32(s, n * t, ROW), nn.tnn_input_1d_i32(s, n * t)
    past, first_rows = nn.tnn_input_1d_i32(s, n), nn.tnn_input_1d_i32(s, n)
    table = nn.tnn_fused_rope_table(s, positions, None, D, BASE, 1.0, 1.0)
    out = nn.tnn_fused_attention_cached(s, x, table, cache, past, HEADS, KV, n_ctx=n_ctx, first_rows=first_rows)
    nn.tnn_set_output(out)
    nn.tnn_realize(s, out)

    def run(qkv: npt.NDArray[np.float32], n_past: list[int], rows: list[int]) -> npt.NDArray[np.float32]:
        nn.upload_row_major(s, x, qkv)
        nn.upload_int_array(s, positions, np.add.outer(n_past, np.arange(t)).ravel().astype(np.int32))
        nn.upload_int_array(s, past, n_past)
        nn.upload_int_array(s, first_rows, rows)
        nn.tnn_compute(s)
        return nn.download_row_major(s, out, n * t, HEADS * D)

    yield run


@pytest.mark.quick
@pytest.mark.parametrize("n_threads", [1, 3])
def test_sequences_of_different_lengths_share_a_cache_in_f16(n_threads: int) -> None:
    """Each sequence has the bits that it has alone, and they agree with a float64 oracle of the rounded numbers."""
    lengths, first_rows = (130, 1, 17), [0, 150, 160]
    texts = [values(n + 1, 1, seed=i) for i, n in enumerate(lengths)]
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        cache = nn.tnn_kv_cache(s, 200, 2 * KV * D, nn.TNN_F16)
        nn.tnn_finalize_weights(s)
        alone = []
        for text in texts:
            with sequences(s, cache, 1, len(text), 200) as run:
                alone.append(run(text, [0], [0])[-1])
        for text, first in zip(texts, first_rows, strict=True):
            with sequences(s, cache, 1, len(text) - 1, 200) as run:
                run(text[:-1], [0], [first])
        with sequences(s, cache, 3, 1, 140) as run:
            got = run(np.stack([text[-1] for text in texts]), list(lengths), first_rows)
    for one, want, text in zip(got, alone, texts, strict=True):
        assert one.tobytes() == want.tobytes()
        # Keys are rotated in f32 here, and in float64 in the oracle. A few keys then round to different f16 numbers.
        np.testing.assert_allclose(one, oracle_of_rounded(text, len(text) - 1), atol=5e-5)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("n_past", "first_rows", "mentions"),
    [
        (
            [0, 0],
            [0, 21],
            r"first_rows\[1\] = 21 must be between 2 \(the first row after the preceding sequence\) and 20",
        ),
        ([5, 0], [0, 6], r"first_rows\[1\] = 6 must be between 7"),
        ([5, 0], [-1, 7], r"first_rows\[0\] = -1 must be between 0"),
        ([9, 0], [0, 15], r"n_past\[0\] = 9 must be between 0 and 8, because the cache can hold 10 tokens"),
        ([0, 1], [0, 19], r"n_past\[1\] = 1 must be between 0 and 0, because the cache can hold 2 tokens"),
        ([-1, 0], [0, 15], r"n_past\[0\] = -1 must be between 0"),
    ],
)
def test_sequences_that_overlap_or_do_not_fit_are_refused(
    n_past: list[int], first_rows: list[int], mentions: str
) -> None:
    with nn.Session(n_threads=1) as s:
        cache = nn.tnn_kv_cache(s, 21, 2 * KV * D, nn.TNN_F32)
        nn.tnn_finalize_weights(s)
        with sequences(s, cache, 2, 2, 10) as run:
            with pytest.raises(TinyNNValueError, match=mentions):
                run(values(4, 1), n_past, first_rows)
            run(values(4, 1), [0, 8], [0, 11])


@pytest.mark.quick
def test_wrong_operands_of_sequences_are_refused() -> None:
    with nn.Session(n_threads=1) as s:
        cache, typed = (
            nn.tnn_kv_cache(s, 8, 2 * KV * D, nn.TNN_F32),
            nn.tnn_input_2d_persistent_typed(s, 8, 2 * KV * D, nn.TNN_BF16),
        )
        nn.tnn_finalize_weights(s)
        x, positions = nn.tnn_input_2d_f32(s, 4, ROW), nn.tnn_input_1d_i32(s, 4)
        table = nn.tnn_fused_rope_table(s, positions, None, D, BASE, 1.0, 1.0)
        two, three = nn.tnn_input_1d_i32(s, 2), nn.tnn_input_1d_i32(s, 3)
        wrong: list[tuple[nn.Tensor, nn.Tensor, dict[str, Any], type[Exception], str]] = [
            (typed, two, {"first_rows": two}, TinyNNTypeError, "kv_cache has dtype bf16, but it must be f32 or f16"),
            (cache, three, {"first_rows": three}, TinyNNValueError, "must be a multiple of 3, got 4"),
            (cache, two, {}, TinyNNValueError, r"first_rows must have shape \[2\], .* got none"),
            (cache, two, {"first_rows": three}, TinyNNValueError, r"first_rows must have shape \[2\], .* got \[3\]"),
            (cache, two, {"first_rows": two, "n_ctx": 1}, TinyNNValueError, "n_ctx = 1 must be 0 .* or between 2"),
            (cache, two, {"first_rows": two, "n_ctx": 9}, TinyNNValueError, "n_ctx = 9 must be 0 .* or between 2"),
        ]
        for kv_cache, n_past, options, error, mentions in wrong:
            with pytest.raises(error, match=mentions):
                nn.tnn_fused_attention_cached(s, x, table, kv_cache, n_past, HEADS, KV, **options)


@pytest.mark.quick
def test_caches_are_resized_before_a_graph_only() -> None:
    with nn.Session(n_threads=1) as s:
        with pytest.raises(TinyNNTypeError, match=r"dtype = 30 must be 0 \(F32\) or 1 \(F16\)"):
            nn.tnn_kv_cache(s, 4, 8, nn.TNN_BF16)
        cache = nn.tnn_kv_cache(s, 4, 8, nn.TNN_F16)
        weight = nn.tnn_input_2d_f32_persistent(s, 2, 2)
        with pytest.raises(SessionError, match="caches can be resized only after"):
            nn.tnn_resize_kv_caches(s, 4)
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, weight, np.full((2, 2), 3.0, np.float32))
        nn.upload_row_major(s, cache, np.ones((4, 8), np.float32))
        for rows in (0, -1, 2**60, 2**31 // 8):
            with pytest.raises(TinyNNValueError, match=r"rows = .* must be between 1 and 268435455"):
                nn.tnn_resize_kv_caches(s, rows)
        assert nn.download_row_major(s, cache, 4, 8).all(), "after an error nothing has changed"
        nn.tnn_resize_kv_caches(s, 7)
        assert not nn.download_row_major(s, cache, 7, 8).any()
        assert nn.download_row_major(s, weight, 2, 2).tolist() == [[3.0, 3.0], [3.0, 3.0]]
        nn.tnn_input_1d_f32(s, 1)
        with pytest.raises(SessionError, match="caches can be resized only after"):
            nn.tnn_resize_kv_caches(s, 4)
    with nn.Session(n_threads=1) as s:
        nn.tnn_input_1d_f32_persistent(s, 1)
        nn.tnn_finalize_weights(s)
        with pytest.raises(SessionError, match="this session has no caches"):
            nn.tnn_resize_kv_caches(s, 4)
