"""The kernel of attention: windows, scales and a cache, compared with PyTorch in float64 and with itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from toynn import TinyNNValueError
from toynn import tinynn as nn

F32 = npt.NDArray[np.float32]

HEADS, KV, D, VOCAB = 4, 2, 6, 11
ROW = (HEADS + 2 * KV) * D
BASE = 100.0

# Sequences of one block of queries and of several, with windows inside a block, around its size, and larger.
SIZES = [(1, 2, 1), (7, 2, 3), (7, 1, 7), (97, 1, 96), (130, 2, 17), (200, 1, 97), (200, 1, 130), (100, 1, 1)]


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
    """Return the output matrix, whose cross entropy with targets 0, 1, 2, ... is the loss."""
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
