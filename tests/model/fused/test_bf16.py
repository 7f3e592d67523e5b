"""Models with precision="bf16": gradients agree with the oracle, and threads, kernels and batches change no bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bf16_products import product
from engines import realized, weights_of
from fused_engines import F32, HP, all_weights, engine, load, targets
from gemm_kernels import kernel, kernels
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import LlamaSeqEngine, RecipeOptions, SmolLM2Config, TinyNNValueError
from toynn import tinynn as nn
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.fused import graph
from toynn.llm.labels import IGNORE_ID
from toynn.llm.layouts import to_per_head
from toynn.model.trained_model import TrainedModel

CFG = SmolLM2Config(101, 40, 4, 2, 72, 2, 64, 10000.0, 1e-5, head_dim=10)


@each_variant
def test_loss_and_gradients_agree_with_a_float64_oracle_that_rounds_the_same_operands(variant: Variant) -> None:
    llama = pytest.importorskip("oracle.llama")
    with engine(variant, precision="bf16", keep_gradients=True) as e:
        weights = load(e, variant)
        call = (
            variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), variant.t_seq, variant.t_batch
        )  # fmt: skip
        want, exact = llama.loss_and_grads(*call, rounded="bf16"), llama.loss_and_grads(*call)
        loss, _ = e.train_step(variant.ids(), targets(variant), HP.hp(1))
        got = to_per_head({name: e.gradient(name) for name in e.param_names()}, variant.cfg)
    # A value near the middle of two bfloat16 numbers may be rounded differently in f32 and in f64, so the results
    # are not equal. The errors of the gradients must be a small part of the change that rounding all operands causes.
    assert abs(loss - want.loss) < 1e-4 * want.loss
    errors, effects = [], []
    for name, grad in want.grads.items():
        scale = np.linalg.norm(grad)
        errors.append(np.linalg.norm(got[name] - grad) / scale)
        effects.append(np.linalg.norm(exact.grads[name] - grad) / scale)
    assert max(errors) < 0.3 * max(effects)
    assert np.median(errors) < 0.1 * np.median(effects)


# ---- the bits of the gradients of one product ----


def tree(nodes: list[F32]) -> F32:
    """Return the sum of the windows, added as a binary tree. The left half of the windows is the largest power of two
    that is below their number.
    """
    if len(nodes) == 1:
        return nodes[0]
    half = 1 << ((len(nodes) - 1).bit_length() - 1)
    return tree(nodes[:half]) + tree(nodes[half:])


def gradients(x: F32, w: F32, wanted: Any, windows: int, n_threads: int, precision: str, part: int) -> list[F32]:
    """Return the gradients of x, of W and of the logits x W^T. part: rows of logits that exist at once; 0: all."""
    (n, d), vocab = x.shape, len(w)
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        nn.tnn_session_set_windows(s, windows, 0)
        t_w, m, v = (nn.tnn_input_2d_f32_persistent(s, vocab, d) for _ in range(3))
        t_x = nn.tnn_input_2d_f32_persistent(s, n, d)
        nn.tnn_finalize_weights(s)
        nn.tnn_upload_from_float_array(s, t_w, w)
        nn.tnn_upload_from_float_array(s, t_x, x)
        if precision == "bf16":
            nn.tnn_tensor_set_bf16_products(t_w)
        for tensor in (t_w, t_x):
            nn.tnn_set_param(tensor)
        t_wanted, hp = nn.tnn_input_1d_i32(s, n), nn.tnn_input_1d_f32(s, 7)
        logits = None if part else nn.tnn_fused_linear(s, t_x, [t_w])
        if logits is None:
            loss = nn.tnn_fused_output_loss(s, t_x, t_w, t_wanted, IGNORE_ID, None, part)
        else:
            loss = nn.tnn_fused_cross_entropy(s, logits, t_wanted, IGNORE_ID)
        nn.tnn_set_output(loss)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grads = [nn.tnn_tensor_grad(s, t) for t in (t_x, t_w, logits) if t is not None]
        for grad in grads:
            nn.tnn_set_output(grad)
        nn.tnn_extend_backward_graph(s, nn.tnn_fused_adamw(s, t_w, grads[1], m, v, hp))
        nn.tnn_pin_all_graph_b_nodes(s)
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, hp, np.zeros((1, 7)))
        nn.upload_int_array(s, t_wanted, wanted)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        shapes = [(n, d), (vocab, d), (n, vocab)]
        return [nn.download_row_major(s, one, *shape) for one, shape in zip(grads, shapes, strict=False)]


@pytest.mark.threads
@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize(
    ("windows", "t", "vocab", "d"), [(1, 13, 30, 9), (5, 7, 17, 33), (3, 1, 40, 8), (4, 10, 70, 45)]
)
def test_the_gradients_of_a_product_have_the_bits_of_the_oracle(
    name: str, windows: int, t: int, vocab: int, d: int
) -> None:
    draw = np.random.default_rng(t)
    x, w = draw.standard_normal((windows * t, d), np.float32), draw.standard_normal((vocab, d), np.float32)
    wanted = draw.integers(0, vocab, windows * t)
    with kernel(name):
        got_x, got_w, dy = gradients(x, w, wanted, windows, 1, "bf16", 0)
        assert got_x.tobytes() == product(dy, w).tobytes()
        parts = [slice(i * t, (i + 1) * t) for i in range(windows)]
        assert got_w.tobytes() == tree([product(dy[rows].T, x[rows]) for rows in parts]).tobytes()
        for part in (1, 2, 3, 5, t, 2 * t + 1):  # a part that would end at an odd row of a window gets one more row
            for n_threads in (1, 2):
                in_parts = gradients(x, w, wanted, windows, n_threads, "bf16", part)
                assert in_parts[0].tobytes() == got_x.tobytes(), part
                assert in_parts[1].tobytes() == got_w.tobytes(), part


# ---- a model ----


def two_steps(variant: Variant, n_threads: int = 1, **build: Any) -> tuple[list[float], dict[str, bytes]]:
    with engine(variant, n_threads=n_threads, precision="bf16", **build) as e:
        losses = [e.train_step(variant.ids(), targets(variant), HP.hp(i))[0] for i in (1, 2)]
        return losses, all_weights(e)


@pytest.mark.threads
@each_variant
def test_threads_kernels_and_recomputed_activations_do_not_change_any_bit(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = two_steps(variant)
    assert two_steps(variant, n_threads=3) == want
    assert two_steps(variant, recompute=True) == want
    for name in kernels():
        with kernel(name):
            assert two_steps(variant, n_threads=2) == want
    monkeypatch.setattr(graph, "LOGITS_NBYTES", 0)
    monkeypatch.setattr(graph, "LEAST_ROWS", 3)
    monkeypatch.setattr(graph, "parts_save_memory", lambda *_: True)
    assert two_steps(variant) == want


def test_bf16_changes_the_results_but_not_the_initial_weights() -> None:
    variant = VARIANTS["tied"]
    with engine(variant) as f32, engine(variant, precision="bf16") as bf16:
        assert all_weights(f32) == all_weights(bf16)
        losses = [e.train_step(variant.ids(), targets(variant), HP.hp(1))[0] for e in (f32, bf16)]
        assert losses[0] != losses[1]
        assert losses[1] == pytest.approx(losses[0], rel=1e-2)
        assert all_weights(f32) != all_weights(bf16)


@pytest.mark.parametrize("t", [1, 2, 7, 33])
def test_a_sequence_has_the_same_logits_alone_and_in_a_batch(t: int) -> None:
    ids = np.random.default_rng(t).integers(0, CFG.vocab, (4, t))

    def logits(rows: Any) -> F32:
        with realized(CFG, t_seq=t, t_batch=len(rows), seed=3, n_threads=2, precision="bf16") as e:
            return e.forward(rows.ravel()).reshape(len(rows), t, -1)

    together = logits(ids)
    for i in range(4):
        assert logits(ids[i : i + 1]).tobytes() == together[i : i + 1].tobytes()


@pytest.mark.parametrize("t", [5, 8])
def test_a_step_in_several_batches_has_the_bits_of_one_batch(t: int) -> None:
    draw = np.random.default_rng(t)
    ids, wanted = draw.integers(0, CFG.vocab, (6, t)), draw.integers(0, CFG.vocab, (6, t))

    def after_a_step(batch: int) -> dict[str, bytes]:
        with realized(CFG, t_seq=t, t_batch=batch, seed=3, precision="bf16") as e:
            e.build_training_step(keep_gradients=True)
            for at in range(0, 6, batch):
                part = slice(at, at + batch)
                e.train_step(
                    ids[part].ravel(), wanted[part].ravel(), HP.hp(1), accumulate=at > 0, update=at + batch == 6,
                    loss_divisor=ids.size, reset_moments=at == 0,
                )  # fmt: skip
            return {name: values.tobytes() for name, values in weights_of(e).items()}

    want = after_a_step(6)
    assert [after_a_step(batch) == want for batch in (1, 2, 3)] == [True] * 3


def test_the_products_of_an_adapter_stay_f32_and_those_of_its_base_are_rounded() -> None:
    """1 and 1 + 2^-12 are equal in bfloat16, but adapters that consist of these numbers give different logits."""
    with realized(CFG, t_seq=6, seed=3, precision="bf16") as plain:
        base = TrainedModel(plain.cfg, weights_of(plain), None)
        ids = np.arange(6)
        want = plain.forward(ids)
    options = RecipeOptions(t_seq=6, layout="fused", n_threads=1, precision="bf16")
    with LlamaSeqEngine() as e:
        e.realize_with_adapter(base, AdapterSpec(2, 4.0, False, ("q", "down")), options)
        assert e.forward(ids).tobytes() == want.tobytes()
        values = {name: e.download_weight(name) for name in e.param_names()}
        for name, value in values.items():
            e.upload_weight(name, np.ones_like(value))
        ones = e.forward(ids)
        for name, value in values.items():
            e.upload_weight(name, np.full_like(value, 1.0 + 2.0**-12))
        assert e.forward(ids).tobytes() != ones.tobytes()


def test_wrong_precisions_are_refused() -> None:
    with pytest.raises(TinyNNValueError, match="precision must be one of 'f32', 'bf16', got 'f16'"):
        RecipeOptions(t_seq=4, layout="fused", precision="f16")
    with pytest.raises(TinyNNValueError, match="precision='bf16' needs layout='fused', got layout='per_head'"):
        realized(CFG, layout="per_head", precision="bf16")


def test_the_result_of_an_operator_cannot_have_bf16_products() -> None:
    with nn.Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 3, 2)
        nn.tnn_finalize_weights(s)
        y = nn.tnn_fused_linear(s, w, [w])
        with pytest.raises(TinyNNValueError, match="must be a declared matrix, got the result of an operator of shape"):
            nn.tnn_tensor_set_bf16_products(y)
