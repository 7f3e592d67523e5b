"""A sequence has the same bits alone and in a batch in the fused layout; some operators of ggml break this rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized
from toynn import AdamW, RopeScaling, SmolLM2Config, build_info, labels
from toynn import tinynn as nn
from toynn.model.shape import ModelShape

F32 = npt.NDArray[np.float32]

BATCH = 4
# The f32 lanes of the vectors in ggml's softmax and in tinyBLAS: AVX2 has eight, NEON four.
LANES = 4 if build_info()["profile"].endswith(("aarch64", "arm64")) else 8
NOT_WHOLE = 3 * LANES // 2  # with this length, the second sequence of a batch starts in the middle of a vector
# tinyBLAS computes four rows together: 12 is a multiple of four, and 10 is not.
MODELS = {
    "heads of 16": SmolLM2Config(127, 64, 4, 4, 96, 2, 256, 10000.0, 1e-5),
    "gqa, heads of 12": SmolLM2Config(
        127, 48, 6, 2, 96, 2, 256, 10000.0, 1e-5, head_dim=12, rope_scaling=RopeScaling.llama3(8.0, 1.0, 4.0, 32)
    ),
    "heads of 10": SmolLM2Config(101, 40, 4, 2, 72, 2, 256, 10000.0, 1e-5, head_dim=10),
}
# A window of 20 ends inside a block of 96 queries.
WINDOWS = ModelShape(
    101, 40, 4, 2, 72, 3, 256, 10000.0, 1e-5, head_dim=12, architecture="gemma3", qk_norm=True, untied=True,
    sliding_window=20, global_interval=3,
)  # fmt: skip
IN_FUSED = {**MODELS, "windows": WINDOWS}
each_model = pytest.mark.parametrize("cfg", MODELS.values(), ids=MODELS.keys())
each_model_in_fused = pytest.mark.parametrize("cfg", IN_FUSED.values(), ids=IN_FUSED.keys())


def sequences(cfg: SmolLM2Config, t: int, batch: int = BATCH) -> npt.NDArray[np.int64]:
    return np.random.default_rng(t).integers(0, cfg.vocab, (batch, t))


def forward(cfg: SmolLM2Config, ids: npt.NDArray[np.int64], layout: str, n_threads: int = 1) -> dict[str, F32]:
    """Return the intermediate results ("taps") of a forward pass over ids (B, T), each of shape (B, T, n)."""
    batch, t = ids.shape
    start = {"untied": True, "seed": 3, "init_scale": 1.5}
    with realized(cfg, layout=layout, t_seq=t, t_batch=batch, n_threads=n_threads, **start) as e:
        e.forward(ids.ravel(), taps=True)
        return {tap: e.download_tap(tap).reshape(batch, t, -1) for tap in e.taps}


def alone_and_in_the_batch(cfg: SmolLM2Config, t: int, layout: str) -> list[tuple[F32, F32]]:
    """Return the logits of each sequence of a batch, computed alone and within the batch."""
    ids = sequences(cfg, t)
    together = forward(cfg, ids, layout, n_threads=2)["logits"]
    return [(forward(cfg, ids[i : i + 1], layout)["logits"][0], together[i]) for i in range(BATCH)]


# ---- the fused layout ----


@each_model_in_fused
@pytest.mark.parametrize("t", [1, 2, 3, 7, 8, 13, 31, 33, 64, 97, 130])
def test_fused_logits_have_the_same_bits_alone_and_anywhere_in_a_batch(cfg: SmolLM2Config, t: int) -> None:
    """The lengths are below and above the size of vectors, tiles and blocks of queries.

    The batch is computed with two threads, and each sequence alone with one thread.
    """
    for alone, together in alone_and_in_the_batch(cfg, t, "fused"):
        assert alone.tobytes() == together.tobytes()


@pytest.mark.parametrize("n", [1, 7, 8, 131])
def test_the_loss_of_a_row_has_the_same_bits_alone_and_in_a_batch(n: int) -> None:
    logits = np.random.default_rng(n).standard_normal((BATCH * 5, n), dtype=np.float32)
    wanted = np.random.default_rng(0).integers(0, n, BATCH * 5)

    def row_losses(logits: F32, wanted: npt.NDArray[np.int64]) -> F32:
        with nn.Session(n_threads=2, oversubscribe=True) as s:
            x = nn.tnn_input_2d_f32_persistent(s, len(wanted), n)
            targets = nn.tnn_input_1d_i32_persistent(s, len(wanted))
            nn.tnn_finalize_weights(s)
            mean = nn.tnn_fused_cross_entropy(s, x, targets, -1)
            rows = nn.tnn_tensor_src(mean, 0)
            assert rows is not None
            nn.tnn_set_output(rows)
            nn.tnn_realize(s, mean)
            nn.tnn_upload_from_float_array(s, x, logits)
            nn.upload_int_array(s, targets, wanted)
            nn.tnn_compute(s)
            return nn.tnn_download(s, rows)

    together = row_losses(logits, wanted)
    assert (together > 0).any() or n == 1
    for i in range(len(wanted)):
        assert row_losses(logits[i : i + 1], wanted[i : i + 1]).tobytes() == together[i : i + 1].tobytes()


@each_model_in_fused
@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize("t", [7, 40])
def test_gradients_of_a_batch_equal_accumulated_gradients_bit_for_bit(cfg: SmolLM2Config, batch: int, t: int) -> None:
    """A gradient adds the rows one after the other.

    Accumulation continues this sum, and the factors 1/2 and 1/4 are exact.
    """
    ids, hp = sequences(cfg, t, batch), AdamW(lr=0.01, weight_decay=0.1, bias_correct=True).hp(1)

    def step(parts: list[npt.NDArray[np.int64]]) -> dict[str, bytes]:
        rows = len(parts[0])
        biases = {"qkv_bias": cfg is not WINDOWS}
        with realized(cfg, t_seq=t, t_batch=rows, untied=True, **biases, seed=3, init_scale=1.5) as e:
            e.build_training_step(clip=True, keep_gradients=True)
            for i, part in enumerate(parts):
                wanted = labels.targets(part.ravel(), cfg.vocab, t, rows)
                last = i == len(parts) - 1
                scale = 1.0 / len(parts) if last else 1.0
                e.train_step(part.ravel(), wanted, hp, accumulate=i > 0, update=last, gradient_scale=scale)
            gradients = {name: (e.gradient(name) * np.float32(scale)).tobytes() for name in e.param_names()}
            return gradients | {f"new {name}": e.download_weight(name).tobytes() for name in e.weights}

    assert step([ids]) == step([ids[i : i + 1] for i in range(batch)])


# ---- the per_head layout: ggml's own operators over one (T*B) x (T*B) mask ----


@each_model
@pytest.mark.parametrize("t", [32, 96])
def test_per_head_logits_have_the_same_bits_if_t_seq_is_a_multiple_of_32(cfg: SmolLM2Config, t: int) -> None:
    for alone, together in alone_and_in_the_batch(cfg, t, "per_head"):
        assert alone.tobytes() == together.tobytes()


@pytest.mark.parametrize("t", [LANES, 3 * LANES, 5 * LANES])
@pytest.mark.parametrize("name", ["heads of 16", "gqa, heads of 12"])
def test_whole_vectors_are_enough_if_tinyblas_computes_the_heads(name: str, t: int) -> None:
    for alone, together in alone_and_in_the_batch(MODELS[name], t, "per_head"):
        assert alone.tobytes() == together.tobytes()


@each_model
@pytest.mark.parametrize("t", [7, NOT_WHOLE])
def test_other_per_head_logits_agree_within_rounding_and_differ_from_the_first_attention_on(
    cfg: SmolLM2Config, t: int
) -> None:
    ids = sequences(cfg, t)
    alone, together = forward(cfg, ids[1:2], "per_head"), forward(cfg, ids, "per_head")
    for tap in ("embed", "blk.0.attn_norm"):
        assert alone[tap][0].tobytes() == together[tap][1].tobytes()
    for tap in ("blk.0.residual", "logits"):
        assert alone[tap][0].tobytes() != together[tap][1].tobytes()
        np.testing.assert_allclose(alone[tap][0], together[tap][1], rtol=0, atol=2e-6 * np.abs(together[tap]).max())


def computed(build: Callable[..., nn.Tensor], *arrays: F32) -> F32:
    """Return the result (rows, n) of a graph over 2d arrays."""
    with nn.Session(n_threads=1) as s:
        inputs = [nn.tnn_input_2d_f32_persistent(s, a.shape[0], a.shape[1]) for a in arrays]
        nn.tnn_finalize_weights(s)
        result = build(s, *inputs)
        nn.tnn_set_output(result)
        nn.tnn_realize(s, result)
        for tensor, array in zip(inputs, arrays, strict=True):
            nn.tnn_upload_from_float_array(s, tensor, np.ascontiguousarray(array))
        nn.tnn_compute(s)
        return nn.tnn_download(s, result).reshape(result.ne[1], result.ne[0])


@pytest.mark.parametrize(
    ("t", "d_head", "softmax_holds", "product_holds"),
    [(NOT_WHOLE, 12, False, False), (LANES, 12, True, True), (LANES, 10, True, False), (32, 10, True, True)],
)
def test_masked_softmax_and_product_with_values_depend_on_the_batch(
    t: int, d_head: int, softmax_holds: bool, product_holds: bool
) -> None:
    """ggml adds a softmax row in vectors that start at the first column of the batch.

    If d_head is a multiple of 4, tinyBLAS adds the products with the values in as many lanes as a vector has. Otherwise
    ggml adds them in four times as many lanes, and then adds the remaining products one by one. If a sequence starts
    within a vector, its keys are divided among the lanes differently.
    """
    draw, n = np.random.default_rng(0), t * BATCH
    scores = draw.standard_normal((n, n), dtype=np.float32)
    values = draw.standard_normal((n, d_head), dtype=np.float32)
    mask = np.full((n, n), -np.inf, dtype=np.float32)
    blocks = [slice(i * t, (i + 1) * t) for i in range(BATCH)]
    for block in blocks:
        mask[block, block][np.tril_indices(t)] = 0.0

    def masked(s: nn.Session, x: nn.Tensor, m: nn.Tensor) -> nn.Tensor:
        return nn.tnn_soft_max_ext(s, x, m, 0.25, 0.0)

    def causal(s: nn.Session, x: nn.Tensor) -> nn.Tensor:
        return nn.tnn_softmax(s, nn.tnn_diag_mask_inf(s, nn.tnn_scale(s, x, 0.25), 0))

    def weighted(s: nn.Session, v: nn.Tensor, p: nn.Tensor) -> nn.Tensor:
        return nn.tnn_matmul(s, nn.tnn_transpose(s, v), p)

    p = computed(masked, scores, mask)
    out = computed(weighted, values, p)
    assert softmax_holds == all(np.array_equal(computed(causal, scores[b, b]), p[b, b]) for b in blocks)
    assert product_holds == all(np.array_equal(computed(weighted, values[b], p[b, b]), out[b]) for b in blocks)
