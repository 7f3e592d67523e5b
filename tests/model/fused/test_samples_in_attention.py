"""With several samples in a sequence, attention gives each sample the bits that it has alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from toynn import TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn

F32 = npt.NDArray[np.float32]

HEADS, KV, D, VOCAB = 4, 2, 6, 11
ROW = (HEADS + 2 * KV) * D
BASE = 100.0

# Each entry is the length of a sequence, the lengths of its samples, and the window. Some samples lie in one block of
# queries, and others in several blocks. There are samples of one token, a sequence whose last vector of keys is not
# full, and windows that are about as large as a block.
SIZES = [
    (8, (3, 5), 0),
    (30, (1, 1, 9, 19), 4),
    (130, (1, 129), 0),
    (130, (97, 33), 17),
    (200, (37, 101, 62), 0),
    (203, (37, 101, 65), 0),
    (203, (5, 198), 97),
    (200, (100, 100), 96),
    (331, (13, 301, 17), 131),
]
# In this sequence, the scores of the first sample are one block of keys. In a sequence with only this sample, they are
# three blocks.
LONG = (807, (787, 20), 0)


def starts_of(lengths: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """Return the first position of the sample of each token."""
    return np.repeat(np.cumsum((0, *lengths[:-1])), lengths).astype(np.int32)


def values(rows: int) -> F32:
    return np.random.default_rng(5).standard_normal((rows, ROW)).astype(np.float32)


def head() -> F32:
    """Return the output matrix. The loss is the cross entropy of its logits."""
    return np.random.default_rng(9).standard_normal((VOCAB, HEADS * D)).astype(np.float32)


def attention(
    qkv: F32,
    t: int,
    starts: npt.NDArray[np.int32] | None,
    targets: npt.NDArray[np.int32],
    window: int,
    n_threads: int = 1,
) -> tuple[F32, F32]:
    """Return the attention and the gradient of qkv. The loss is the sum over the targets that are not -1, divided by 7.

    Positions start at 0 in each sample. starts: None builds the graph without starts.
    """
    rows = qkv.shape[0]
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        x = nn.tnn_input_2d_f32_persistent(s, rows, ROW)
        w = nn.tnn_input_2d_f32_persistent(s, VOCAB, HEADS * D)
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(x)
        t_positions, t_targets, t_starts = (nn.tnn_input_1d_i32(s, rows) for _ in range(3))
        divisor = nn.tnn_input_1d_f32(s, 1)
        table = nn.tnn_fused_rope_table(s, t_positions, None, D, BASE, 1.0, 1.0)
        out = nn.tnn_fused_attention(
            s, x, table, HEADS, KV, t, window=window, scale=0.7, starts=None if starts is None else t_starts
        )
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, out, [w]), t_targets, -1, divisor)
        nn.tnn_set_output(out)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, x)
        nn.tnn_set_output(grad)
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, x, qkv)
        nn.upload_row_major(s, w, head())
        nn.upload_row_major(s, divisor, [[7.0]])
        positions = np.tile(np.arange(t, dtype=np.int32), rows // t)
        if starts is not None:
            positions -= starts
            nn.upload_int_array(s, t_starts, starts)
        nn.upload_int_array(s, t_positions, positions)
        nn.upload_int_array(s, t_targets, targets)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        return nn.download_row_major(s, out, rows, HEADS * D), nn.download_row_major(s, grad, rows, ROW)


def some_targets(rows: int) -> npt.NDArray[np.int32]:
    return np.arange(rows, dtype=np.int32) % VOCAB


@pytest.mark.quick
@pytest.mark.parametrize(("t", "lengths", "window"), [*SIZES, LONG])
def test_a_sample_has_the_bits_that_it_has_at_the_start_of_a_sequence(
    t: int, lengths: tuple[int, ...], window: int
) -> None:
    qkv, targets = values(t), some_targets(t)
    packed = attention(qkv, t, starts_of(lengths), targets, window)
    first = 0
    for n in lengths:
        alone, own = np.roll(qkv, -first, axis=0), np.full(t, -1, dtype=np.int32)
        own[:n] = targets[first : first + n]
        for one, whole in zip(attention(alone, t, None, own, window), packed, strict=True):
            assert one[:n].tobytes() == whole[first : first + n].tobytes()
        first += n


@pytest.mark.oracle_torch
@pytest.mark.parametrize(("t", "lengths", "window"), SIZES)
def test_samples_agree_with_a_block_diagonal_mask_in_float64(t: int, lengths: tuple[int, ...], window: int) -> None:
    torch: Any = pytest.importorskip("torch")
    qkv, targets, starts = values(t), some_targets(t), starts_of(lengths)
    got = attention(qkv, t, starts, targets, window)
    x = torch.tensor(qkv.astype(np.float64), requires_grad=True)
    parts = x.reshape(t, HEADS + 2 * KV, D).transpose(0, 1)  # (heads, T, D)
    at = torch.tensor(np.arange(t) - starts).double()
    angles = torch.outer(at, torch.tensor([BASE ** (-2 * i / D) for i in range(D // 2)]).double())

    def turned(h: Any) -> Any:
        a, b = h.chunk(2, dim=-1)
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], dim=-1)

    q, k, v = turned(parts[:HEADS]), turned(parts[HEADS : HEADS + KV]), parts[HEADS + KV :]
    k, v = k.repeat_interleave(HEADS // KV, dim=0), v.repeat_interleave(HEADS // KV, dim=0)
    distance = torch.arange(t)[:, None] - torch.arange(t)[None, :]
    sample = torch.tensor(starts)
    hidden = (distance < 0) | (sample[:, None] != sample[None, :])
    if window:
        hidden |= distance >= window
    out = torch.softmax((q @ k.transpose(1, 2) * 0.7).masked_fill(hidden, -math.inf), dim=-1) @ v
    out = out.transpose(0, 1).reshape(t, HEADS * D)
    logits = out @ torch.tensor(head().astype(np.float64)).T
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(targets).long(), reduction="sum") / 7
    loss.backward()
    for one, want in zip(got, (out.detach().numpy(), x.grad.numpy()), strict=True):
        np.testing.assert_allclose(one, want, rtol=0, atol=2e-6 * max(1.0, np.abs(want).max()))


@pytest.mark.quick
@pytest.mark.parametrize("window", [0, 17])
def test_a_sample_changes_no_bit_of_another_sample(window: int) -> None:
    t, lengths = 200, (37, 101, 62)
    qkv, targets, starts = values(2 * t), some_targets(2 * t), np.tile(starts_of(lengths), 2)
    before = attention(qkv, t, starts, targets, window)
    qkv[t + 50] += 100.0  # changes a token in the second sample of the second sequence
    after = attention(qkv, t, starts, targets, window)
    out, grad = (np.flatnonzero((a != b).any(axis=1)) for a, b in zip(before, after, strict=True))
    sample = range(t + 37, t + 138)
    assert t + 50 in out
    assert set(out) | set(grad) <= set(sample)
    assert min(out) == t + 50


@pytest.mark.threads
@pytest.mark.parametrize("window", [0, 17])
@pytest.mark.parametrize("n_threads", [2, 3, 4])
def test_samples_have_the_same_bits_with_any_number_of_threads(n_threads: int, window: int) -> None:
    t = 130
    qkv, targets = values(2 * t), some_targets(2 * t)
    starts = np.concatenate([starts_of((97, 33)), starts_of((5, 125))])
    one, several = (attention(qkv, t, starts, targets, window, n) for n in (1, n_threads))
    assert [part.tobytes() for part in one] == [part.tobytes() for part in several]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("wrong", "at"),
    [([1, 1, 2, 3], 0), ([0, -1, 0, 0], 1), ([0, 0, 3, 3], 2), ([0, 0, 2, 1], 3), ([0, 0, 0, 2**31 - 1], 3)],
)
@pytest.mark.parametrize("first", [0, 4])
def test_wrong_starts_are_refused_before_a_compute(wrong: list[int], at: int, first: int) -> None:
    starts = np.zeros(8, dtype=np.int32)
    with nn.Session(n_threads=1) as s:
        x, positions, t_starts = nn.tnn_input_2d_f32(s, 8, ROW), nn.tnn_input_1d_i32(s, 8), nn.tnn_input_1d_i32(s, 8)
        nn.tnn_tensor_set_name(t_starts, "STARTS")
        table = nn.tnn_fused_rope_table(s, positions, None, D, BASE, 1.0, 1.0)
        out = nn.tnn_fused_attention(s, x, table, HEADS, KV, 4, starts=t_starts)
        nn.tnn_set_output(out)
        nn.tnn_realize(s, out)
        nn.upload_row_major(s, x, values(8))
        nn.upload_int_array(s, positions, starts)
        nn.upload_int_array(s, t_starts, starts)
        nn.tnn_compute(s)
        starts[first : first + 4] = wrong
        nn.upload_int_array(s, t_starts, starts)
        message = (
            rf"starts STARTS\[{first + at}\] = {wrong[at]} must be {at} \(the position of this token in its "
            r"sequence\), or equal to the start of the preceding token in this sequence"
        )
        with pytest.raises(TinyNNValueError, match=message):
            nn.tnn_compute(s)


@pytest.mark.quick
def test_starts_must_be_an_input_with_one_value_for_each_row() -> None:
    with nn.Session(n_threads=1) as s:
        x, positions = nn.tnn_input_2d_f32(s, 8, ROW), nn.tnn_input_1d_i32(s, 8)
        table = nn.tnn_fused_rope_table(s, positions, None, D, BASE, 1.0, 1.0)
        with pytest.raises(TinyNNValueError, match=r"starts has shape \[7\], but it must have one value for each row"):
            nn.tnn_fused_attention(s, x, table, HEADS, KV, 4, starts=nn.tnn_input_1d_i32(s, 7))
        with pytest.raises(TinyNNTypeError, match="starts has dtype f32, but it must be i32"):
            nn.tnn_fused_attention(s, x, table, HEADS, KV, 4, starts=x)
