"""The gradient of a step is a binary tree over its windows, so the division into batches changes no bit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized
from oracle.variants import Variant
from toynn import AdamW, RopeScaling, SmolLM2Config, TinyNNValueError, build_info
from toynn import tinynn as nn
from toynn.errors import SessionError
from toynn.llm.labels import IGNORE_ID
from toynn.llm.window_sums import step_loss, tree_sum
from toynn.model.shape import ModelShape

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

HP = AdamW(lr=0.01, weight_decay=0.1, bias_correct=True)
SCALING = RopeScaling.llama3(8.0, 1.0, 4.0, 32)
VARIANTS = {
    "tied": Variant(SmolLM2Config(127, 40, 4, 2, 72, 2, 512, 10000.0, 1e-5, head_dim=10), 7),
    "untied with biases": Variant(
        SmolLM2Config(61, 48, 6, 2, 96, 1, 512, 10000.0, 1e-5, head_dim=12, rope_scaling=SCALING), 33, 1, True, True
    ),
    "norms of heads": Variant(
        ModelShape(61, 24, 4, 2, 40, 1, 64, 10000.0, 1e-5, head_dim=20, architecture="qwen3", qk_norm=True), 16
    ),
    "a window of two blocks of k": Variant(SmolLM2Config(29, 16, 2, 1, 24, 1, 512, 10000.0, 1e-5), 400),
}


def batch_of_windows(variant: Variant, windows: int) -> tuple[I32, I32]:
    """Return ids and targets (windows, T). Many ids occur several times, in one window and in several windows. Some
    targets are missing.
    """
    draw = np.random.default_rng(windows)
    ids = draw.integers(0, variant.cfg.vocab // 2, (windows, variant.t_seq)).astype(np.int32)
    targets = np.roll(ids, -1, axis=1)
    targets[draw.random(targets.shape) < 0.2] = IGNORE_ID
    return ids, targets


def steps(
    variant: Variant, windows: int, batch: int, n_threads: int = 1, n: int = 2
) -> tuple[list[float], list[float | None], dict[str, bytes]]:
    """Take steps of `windows` windows in batches. Return losses, norms, and all gradients, weights and moments."""
    ids, targets = batch_of_windows(variant, windows)
    counted = int((targets != IGNORE_ID).sum())
    losses, norms = [], []
    options = {**variant.options, "t_batch": batch}
    with realized(variant.cfg, **options, seed=3, init_scale=1.5, n_threads=n_threads) as e:
        e.build_training_step(clip=True, keep_gradients=True)
        for step in range(n):
            sums: list[float] = []
            for at in range(0, windows, batch):
                _, norm = e.train_step(
                    ids[at : at + batch].ravel(),
                    targets[at : at + batch].ravel(),
                    HP.hp(step + 1),
                    accumulate=at > 0,
                    update=at + batch == windows,
                    max_norm=0.5,
                    loss_divisor=counted,
                )
                sums += e.window_losses().tolist()
            losses.append(step_loss(sums, counted))
            norms.append(norm)
        results = {f"gradient of {name}": e.gradient(name).tobytes() for name in e.param_names()}
        for name in e.param_names():
            results |= {name + moment: e.download_weight(name + moment).tobytes() for moment in ("", ".m", ".v")}
    return losses, norms, results


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "windows", "batches"),
    [
        ("tied", 8, (1, 2, 4)),
        ("tied", 6, (1, 2, 3)),
        ("tied", 15, (3, 5)),
        ("untied with biases", 8, (1, 4)),
        ("norms of heads", 12, (3, 4)),
        ("a window of two blocks of k", 4, (1, 2)),
    ],
)
def test_batches_of_any_size_give_the_bits_of_the_whole_step(name: str, windows: int, batches: Sequence[int]) -> None:
    whole = steps(VARIANTS[name], windows, windows)
    for batch in batches:
        assert steps(VARIANTS[name], windows, batch) == whole
    assert steps(VARIANTS[name], windows, batches[-1], n_threads=3) == whole


def test_keeping_the_gradients_changes_no_bit_of_a_step_with_one_window() -> None:
    variant = VARIANTS["tied"]
    ids, targets = batch_of_windows(variant, 1)
    results = []
    for keep in (False, True):
        with realized(variant.cfg, **variant.options, seed=3) as e:
            e.build_training_step(keep_gradients=keep)
            loss, _ = e.train_step(ids.ravel(), targets.ravel(), HP.hp(1))
            results.append((loss, {name: e.download_weight(name).tobytes() for name in e.param_names()}))
    assert results[0] == results[1]


def tree(nodes: list[F32]) -> F32:
    """Return the sum of the windows, added as a binary tree. The left half of the windows is the largest power of two
    that is below their number.
    """
    if len(nodes) == 1:
        return nodes[0]
    half = 1 << ((len(nodes) - 1).bit_length() - 1)
    return tree(nodes[:half]) + tree(nodes[half:])


@pytest.mark.quick
@pytest.mark.parametrize("windows", [1, 2, 3, 5, 8, 11])
def test_the_gradient_of_a_batch_is_the_tree_of_the_gradients_of_its_windows(windows: int) -> None:
    """The model is untied, because a tied embedding has two trees, one for each use."""
    variant = VARIANTS["untied with biases"]
    ids, targets = batch_of_windows(variant, windows)
    counted = int((targets != IGNORE_ID).sum())

    def gradients(start: int, n: int) -> dict[str, F32]:
        with realized(variant.cfg, **{**variant.options, "t_batch": n}, seed=3, init_scale=1.5) as e:
            e.build_training_step(keep_gradients=True)
            part = slice(start, start + n)
            e.train_step(ids[part].ravel(), targets[part].ravel(), HP.hp(1), update=False, loss_divisor=counted)
            return {name: e.gradient(name) for name in e.param_names()}

    alone = [gradients(i, 1) for i in range(windows)]
    for name, got in gradients(0, windows).items():
        assert got.tobytes() == tree([one[name] for one in alone]).tobytes(), name


@pytest.mark.parametrize(("first", "windows", "batch"), [(3, 5, 1), (1, 6, 3), (4, 4, 2), (6, 3, 3), (5, 2, 1)])
def test_a_session_can_compute_a_part_of_the_windows_of_a_step(first: int, windows: int, batch: int) -> None:
    """The expected sum is that of the largest nodes of the tree that lie in this part, added from the last to the
    first.
    """
    variant = VARIANTS["untied with biases"]
    ids, targets = batch_of_windows(variant, first + windows)
    counted = int((targets != IGNORE_ID).sum())

    def gradients(start: int, end: int, step: int, number: int) -> dict[str, F32]:
        """Compute the windows start to end - 1 in batches. number: the number of window `start` in its step."""
        with realized(variant.cfg, **{**variant.options, "t_batch": step}, seed=3, init_scale=1.5) as e:
            e.build_training_step(keep_gradients=True, first_window=number)
            for at in range(start, end, step):
                part = slice(at, at + step)
                feed = (ids[part].ravel(), targets[part].ravel(), HP.hp(1))
                e.train_step(*feed, accumulate=at > start, update=False, loss_divisor=counted)
            with pytest.raises(SessionError, match=rf"the windows of a step from window {number} on"):
                e.train_step(*feed)
            return {name: e.gradient(name) for name in e.param_names()}

    def nodes(start: int, end: int) -> list[tuple[int, int]]:
        """Return the starts and ends of the largest nodes that cover the windows start to end - 1."""
        if start == end:
            return []
        size = 1
        while start % (2 * size) == 0 and start + 2 * size <= end:
            size *= 2
        return [(start, start + size), *nodes(start + size, end)]

    got = gradients(first, first + windows, batch, first)
    alone = {i: gradients(i, i + 1, 1, i) for i in range(first, first + windows)}
    for name in got:
        sums = [tree([alone[i][name] for i in range(*node)]) for node in nodes(first, first + windows)]
        want = reduce(lambda right, left: left + right, reversed(sums))
        assert got[name].tobytes() == want.tobytes(), name


def linear_gradient(x: F32, targets: I32, vocab: int, windows: int, counted: int, n_threads: int) -> F32:
    """Return the gradient of the matrix (vocab, d) of a model that is one product with the rows of x."""
    n, d = x.shape
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        nn.tnn_session_set_windows(s, windows, 0)
        w, m, v = (nn.tnn_input_2d_f32_persistent(s, vocab, d) for _ in range(3))
        table = nn.tnn_input_2d_f32_persistent(s, n, d)
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, w, np.random.default_rng(1).standard_normal((vocab, d)))
        nn.upload_row_major(s, table, x)
        nn.tnn_set_param(w)
        ids, wanted, hp = nn.tnn_input_1d_i32(s, n), nn.tnn_input_1d_i32(s, n), nn.tnn_input_1d_f32(s, 7)
        divisor = nn.tnn_input_1d_f32(s, 1)
        logits = nn.tnn_fused_linear(s, nn.tnn_get_rows(s, table, ids), [w])
        loss = nn.tnn_fused_cross_entropy(s, logits, wanted, IGNORE_ID, divisor)
        nn.tnn_set_output(loss)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grad = nn.tnn_tensor_grad(s, w)
        nn.tnn_set_output(grad)
        nn.tnn_extend_backward_graph(s, nn.tnn_fused_adamw(s, w, grad, m, v, hp))
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, divisor, [[counted]])
        step = nn.TrainStep(ids, wanted, hp, loss)
        nn.tnn_train_step(s, step, np.arange(n), targets, np.zeros(7), update=False)
        return nn.download_row_major(s, grad, vocab, d)


@pytest.mark.parametrize("kernel", [name for i in range(2) if (name := nn.tnn_gemm_kernel_at(i)) is not None])
@pytest.mark.parametrize(
    ("vocab", "d", "t", "windows"), [(1203, 557, 3, 5), (557, 1203, 8, 9), (1, 1, 9, 4), (50, 1, 1, 4), (7, 33, 1, 40)]
)
def test_matrices_larger_than_the_blocks_of_a_product_have_the_tree_of_their_windows(
    kernel: str, vocab: int, d: int, t: int, windows: int
) -> None:
    draw, in_use = np.random.default_rng(2), build_info()["gemm_kernel"]
    x = draw.standard_normal((t * windows, d)).astype(np.float32)
    targets = draw.integers(0, vocab, t * windows).astype(np.int32)
    parts = [slice(i * t, (i + 1) * t) for i in range(windows)]
    nn.tnn_gemm_use_kernel(kernel)
    try:
        want = tree([linear_gradient(x[rows], targets[rows], vocab, 1, len(x), 1) for rows in parts])
        for n_threads in (1, 2):
            assert linear_gradient(x, targets, vocab, windows, len(x), n_threads).tobytes() == want.tobytes()
    finally:
        nn.tnn_gemm_use_kernel(in_use)


def test_calls_that_do_not_fit_the_windows_are_refused_and_change_nothing() -> None:
    variant = VARIANTS["tied"]
    ids, targets = batch_of_windows(variant, 2)
    feed = (ids.ravel(), targets.ravel(), HP.hp(1))
    with realized(variant.cfg, **{**variant.options, "t_batch": 2}) as e:
        with pytest.raises(TinyNNValueError, match="batches must be 1 without keep_gradients=True, got 2"):
            e.build_training_step(batches=2)
        e.build_training_step(keep_gradients=True, batches=3)
        before = {name: e.download_weight(name).tobytes() for name in e.param_names()}
        for _ in range(2):
            with pytest.raises(SessionError, match="adds to the gradients of an earlier call, but there are none"):
                e.train_step(*feed, accumulate=True, update=False)
        assert before == {name: e.download_weight(name).tobytes() for name in e.param_names()}
        e.train_step(*feed)
        # the step has ended, so there is no sum to add to
        with pytest.raises(SessionError, match="adds to the gradients of an earlier call, but there are none"):
            e.train_step(*feed, accumulate=True)
        with pytest.raises(SessionError, match="tensors of a graph exist already; set the windows before"):
            nn.tnn_session_set_windows(e.sess, 1, 0)
        nn.tnn_reset_for_rebuild(e.sess)
        for n, first, message in ((0, 0, "n = 0 must be between 1"), (1, -1, "first = -1 must be between 0")):
            with pytest.raises(TinyNNValueError, match=message):
                nn.tnn_session_set_windows(e.sess, n, first)
        with pytest.raises(SessionError, match="tnn_reserve_batches can be called only after tnn_realize_backward"):
            nn.tnn_reserve_batches(e.sess, 1)
    with realized(variant.cfg, **variant.options, layout="per_head") as e:
        e.build_training_step()
        with pytest.raises(SessionError, match="window_losses needs a graph of the fused layout"):
            e.window_losses()


def test_the_rows_of_a_graph_must_consist_of_its_windows() -> None:
    with nn.Session(n_threads=1) as s:
        nn.tnn_session_set_windows(s, 2, 0)
        w = nn.tnn_input_2d_f32_persistent(s, 5, 4)
        nn.tnn_finalize_weights(s)
        ids, wanted = nn.tnn_input_1d_i32(s, 3), nn.tnn_input_1d_i32(s, 3)
        logits = nn.tnn_fused_linear(s, nn.tnn_get_rows(s, w, ids), [w])
        with pytest.raises(TinyNNValueError, match="its rows must consist of 2 windows of equal size"):
            nn.tnn_fused_cross_entropy(s, logits, wanted, -1)


def test_a_step_of_many_batches_needs_memory_for_a_few_sums_only() -> None:
    variant = VARIANTS["tied"]
    sizes = []
    for batches in (1, 2, 4, 64, 1 << 30):
        with realized(variant.cfg, **variant.options) as e:
            e.build_training_step(keep_gradients=True, batches=batches)
            sizes.append(nn.tnn_session_compute_nbytes(e.sess))
    with realized(variant.cfg, **variant.options) as e:
        gradients = 4 * sum(e.download_weight(name).size for name in e.param_names())
    for levels, size in zip((0, 1, 2, 6, 30), sizes, strict=True):
        # a tied embedding has two sums; each sum starts at a multiple of 16 elements
        assert levels * gradients <= size - sizes[0] <= levels * 2 * gradients


def test_a_sum_of_scalars_has_the_tree_of_the_windows() -> None:
    draw = np.random.default_rng(0)
    for n in range(1, 40):
        values = draw.standard_normal(n).tolist()
        assert tree_sum(values) == tree([np.float64(value) for value in values])
    assert tree_sum([1e16, 1.0, 1.0, 1.0]) == (1e16 + 1.0) + 2.0 != reduce(lambda a, b: a + b, [1e16, 1.0, 1.0, 1.0])
