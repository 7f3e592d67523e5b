"""Targets that do not count for the loss, and the mean over the targets of a whole step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fused_engines import HP, engine, load, targets
from oracle.variants import VARIANTS, Variant
from toynn import TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn
from toynn.data.windows import Batch, EqualWindows
from toynn.llm.labels import IGNORED
from toynn.llm.layouts import to_per_head
from toynn.training.config import StepArgs, TrainConfig
from toynn.training.optimizer_config import OptimizerArgs
from toynn.training.step import TrainingSteps

ONE = VARIANTS["gqa"]  # this variant has one sequence of 7 tokens
COUNTS = (6, 1, 0)  # targets that count in each of the three batches of a step
WHOLE = Variant(ONE.cfg, ONE.t_seq, t_batch=len(COUNTS))


def masked(counts: tuple[int, ...] = COUNTS) -> npt.NDArray[np.int32]:
    """Return targets for the sequences of WHOLE. counts: for each sequence, how many of its last targets count."""
    rows = targets(WHOLE).reshape(len(counts), -1)
    for row, count in zip(rows, counts, strict=True):
        row[: row.size - count] = IGNORED
    return rows


class Batches(EqualWindows):
    """Replaces the windows of a split: batch i is sequence i of WHOLE."""

    t_seq = WHOLE.t_seq
    windows_per_epoch = len(COUNTS)

    def __init__(self, wanted: npt.NDArray[np.int32]) -> None:
        self._ids, self._targets = WHOLE.ids().reshape(wanted.shape), wanted

    def read(self, start: int, n: int) -> Batch:
        assert n == 1
        return Batch(self._ids[start], self._targets[start])


def config(accumulate: int = len(COUNTS)) -> TrainConfig:
    return TrainConfig(train=StepArgs(batch=1, accumulate=accumulate), optimizer=OptimizerArgs(kind="adamw", clip=0.0))


def test_loss_and_gradients_of_a_step_are_those_of_one_large_batch_weighted_by_its_targets() -> None:
    llama = pytest.importorskip("oracle.llama")
    wanted = masked()
    counts = (wanted.ravel() != IGNORED)[:, None]
    assert counts.sum() == sum(COUNTS)
    rows = np.eye(WHOLE.cfg.vocab)[np.maximum(wanted.ravel(), 0)] * counts
    with engine(ONE) as e:
        weights = load(e, ONE)
        want = llama.loss_and_grads(
            WHOLE.cfg, weights, WHOLE.ids(), WHOLE.positions(), rows * counts.size / counts.sum(), WHOLE.t_seq,
            WHOLE.t_batch, as_ggml=False,
        )  # fmt: skip
        steps = TrainingSteps(e, Batches(wanted), config(), lambda: False)  # type: ignore[arg-type]
        steps.build_graph()
        result = steps.take(1)
        assert result is not None
        got = to_per_head({name: e.gradient(name) for name in e.param_names()}, ONE.cfg)
    assert result.loss == pytest.approx(want.loss, rel=2e-6)
    norm = np.sqrt(sum(float((grad**2).sum()) for grad in want.grads.values()))
    assert result.gradient_norm == pytest.approx(norm, rel=1e-5)
    for name, grad in want.grads.items():
        np.testing.assert_allclose(got[name], grad, rtol=0, atol=2e-5 * np.abs(grad).max(), err_msg=name)


def test_a_step_without_any_target_that_counts_is_refused() -> None:
    with engine(ONE) as e:
        before = e.download_weight("token_embd.weight").tobytes()
        steps = TrainingSteps(e, Batches(masked((0, 0, 0))), config(), lambda: False)  # type: ignore[arg-type]
        with pytest.raises(TinyNNValueError, match="step 1 has no target that counts for the loss: all 21 targets"):
            steps.take(1)
        assert e.download_weight("token_embd.weight").tobytes() == before


def test_equal_numbers_of_targets_give_the_bits_of_separate_means() -> None:
    """If all batches have the same number of targets, the divisor of each batch is this number."""
    wanted = masked((3, 3, 3))
    runs = []
    for divisor in (None, 3.0):
        with engine(ONE, clip=True, keep_gradients=True) as e:
            for i, (ids, row) in enumerate(zip(WHOLE.ids().reshape(3, -1), wanted, strict=True)):
                step = e.train_step(ids, row, HP.hp(1), accumulate=i > 0, update=i == 2, loss_divisor=divisor)
            runs.append((step, {name: e.gradient(name).tobytes() for name in e.param_names()}))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("layout", ["fused", "per_head"])
def test_both_numbers_for_an_ignored_target_give_the_same_bits(layout: str) -> None:
    losses = []
    for ignored in (IGNORED, -1):
        wanted = targets(ONE)
        wanted[[1, 4]] = ignored
        with engine(ONE, layout) as e:
            losses.append([e.train_step(ONE.ids(), wanted, HP.hp(i))[0] for i in (1, 2)])
            losses[-1].append(e.mean_loss(ONE.ids(), wanted))
    assert losses[0] == losses[1]


def test_a_batch_without_targets_adds_nothing_to_loss_and_gradients() -> None:
    nothing = np.full(ONE.t_seq, IGNORED)
    with engine(ONE, clip=True, keep_gradients=True) as e:
        with pytest.raises(TinyNNValueError, match="targets are all -100 or -1"):
            e.train_step(ONE.ids(), nothing, HP.hp(1))
        with pytest.raises(TinyNNValueError, match="targets are all -100 or -1"):
            e.mean_loss(ONE.ids(), nothing)
        e.build_training_step(clip=True, keep_gradients=True)
        _, norm = e.train_step(ONE.ids(), targets(ONE), HP.hp(1), update=False)
        before = {name: e.gradient(name).tobytes() for name in e.param_names()}
        result = e.train_step(ONE.ids(), nothing, HP.hp(1), accumulate=True, update=False, loss_divisor=7.0)
        assert result == (0.0, norm)
        assert {name: e.gradient(name).tobytes() for name in e.param_names()} == before


def test_the_gradient_of_a_row_without_target_is_exactly_zero() -> None:
    draw = np.random.default_rng(0)
    with nn.Session(n_threads=2, oversubscribe=True) as s:
        table, head = (nn.tnn_input_2d_f32_persistent(s, rows, 8) for rows in (6, 5))
        nn.tnn_finalize_weights(s)
        for tensor, rows in ((table, 6), (head, 5)):
            nn.upload_row_major(s, tensor, draw.standard_normal((rows, 8)))
            nn.tnn_set_param(tensor)
        ids, wanted = nn.tnn_input_1d_i32(s, 6), nn.tnn_input_1d_i32(s, 6)
        logits = nn.tnn_fused_linear(s, nn.tnn_get_rows(s, table, ids), [head])
        loss = nn.tnn_fused_cross_entropy(s, logits, wanted, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        gradient = nn.tnn_tensor_grad(s, table)
        nn.tnn_set_output(gradient)
        nn.tnn_realize_backward(s)
        nn.upload_int_array(s, ids, range(6))
        nn.upload_int_array(s, wanted, [0, -1, 2, -1, -1, 4])
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        got = nn.download_row_major(s, gradient, 6, 8)
    assert not got[[1, 3, 4]].any()
    assert got[[0, 2, 5]].all()


def test_divisors_that_cannot_divide_are_refused() -> None:
    ids, wanted, hp = ONE.ids(), targets(ONE), HP.hp(1)
    with engine(ONE) as e:
        for divisor in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(TinyNNValueError, match="loss_divisor"):
                e.train_step(ids, wanted, hp, loss_divisor=divisor)
        with pytest.raises(TinyNNTypeError, match="loss_divisor"):
            e.train_step(ids, wanted, hp, loss_divisor="7")  # type: ignore[arg-type]
    with engine(ONE, "per_head") as e, pytest.raises(TinyNNValueError, match="loss_divisor needs the fused layout"):
        e.train_step(ids, wanted, hp, loss_divisor=7.0)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_graph_checks_the_value_of_its_divisor_before_it_computes(value: float) -> None:
    with nn.Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 6, 8)
        nn.tnn_finalize_weights(s)
        x, wanted, divisor = nn.tnn_input_2d_f32(s, 5, 8), nn.tnn_input_1d_i32(s, 5), nn.tnn_input_1d_f32(s, 1)
        logits = nn.tnn_fused_linear(s, x, [w])
        for wrong in (nn.tnn_input_1d_f32(s, 2), nn.tnn_sum(s, divisor)):
            with pytest.raises(TinyNNValueError, match="divisor has shape"):
                nn.tnn_fused_cross_entropy(s, logits, wanted, -1, wrong)
        loss = nn.tnn_fused_cross_entropy(s, logits, wanted, -1, divisor)
        nn.tnn_realize(s, loss)
        nn.upload_row_major(s, x, np.ones((5, 8)))
        nn.upload_int_array(s, wanted, [-1] * 5)
        nn.tnn_upload_from_float_array(s, divisor, [value])
        with pytest.raises(TinyNNValueError, match="must be finite and above 0"):
            nn.tnn_compute(s)
        nn.tnn_upload_from_float_array(s, divisor, [2.0])
        nn.tnn_compute(s)
        assert nn.tnn_download(s, loss)[0] == 0.0
