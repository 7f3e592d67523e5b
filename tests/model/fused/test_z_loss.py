"""The z-loss: gradients agree with a float64 oracle, parts and threads change no bit, wrong arguments are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import realized
from small_runs import config
from toynn import LlamaSeqEngine, RecipeOptions, SessionError, SmolLM2Config, TinyNNValueError, TrainArgs, train
from toynn import tinynn as nn
from toynn.errors import ConfigurationError
from toynn.llm.labels import IGNORE_ID
from toynn.llm.preference import Preference
from toynn.storage.checkpoint import load_checkpoint
from toynn.training import StepArgs, TrainConfig

ROWS, WIDTH, VOCAB = 6, 5, 23


def values() -> tuple[Any, Any, Any]:
    """Return activations, output weights, and targets. One target is ignored, and some logits are large."""
    draw = np.random.default_rng(7)
    x, w = draw.standard_normal((ROWS, WIDTH)) * 4, draw.standard_normal((VOCAB, WIDTH))
    wanted = draw.integers(0, VOCAB, ROWS)
    wanted[2] = IGNORE_ID
    return x.astype(np.float32), w.astype(np.float32), wanted


def gradients(z: float | None, part: int = 0, windows: int = 1, n_threads: int = 1) -> tuple[float, list[Any]]:
    """Return the loss, and the gradients of x and of W. z: the coefficient; None: do not call `tnn_set_z_loss`. part:
    the rows of a part; 0: compute all logits at once.
    """
    x, w, wanted = values()
    with nn.Session(n_threads=n_threads, oversubscribe=True) as s:
        nn.tnn_session_set_windows(s, windows, 0)
        t_w, m, v = (nn.tnn_input_2d_f32_persistent(s, VOCAB, WIDTH) for _ in range(3))
        t_x = nn.tnn_input_2d_f32_persistent(s, ROWS, WIDTH)
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, t_w, w)
        nn.upload_row_major(s, t_x, x)
        for tensor in (t_w, t_x):
            nn.tnn_set_param(tensor)
        t_wanted, hp = nn.tnn_input_1d_i32(s, ROWS), nn.tnn_input_1d_f32(s, 7)
        if part:
            loss = nn.tnn_fused_output_loss(s, t_x, t_w, t_wanted, IGNORE_ID, None, part)
        else:
            loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, t_x, [t_w]), t_wanted, IGNORE_ID)
        if z is not None:
            nn.tnn_set_z_loss(s, loss, z)
        nn.tnn_set_output(loss)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        grads = [nn.tnn_tensor_grad(s, t) for t in (t_x, t_w)]
        for grad in grads:
            nn.tnn_set_output(grad)
        nn.tnn_extend_backward_graph(s, nn.tnn_fused_adamw(s, t_w, grads[1], m, v, hp))
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, hp, np.zeros((1, 7)))
        nn.upload_int_array(s, t_wanted, wanted)
        nn.tnn_graph_reset(s)
        nn.tnn_compute_backward(s)
        found = [nn.download_row_major(s, one, n, WIDTH) for one, n in zip(grads, (ROWS, VOCAB), strict=True)]
        return float(nn.download_row_major(s, loss, 1, 1)[0, 0]), found


def oracle(z: float) -> tuple[float, list[Any]]:
    """Return the cross entropy in float64, and the gradients of cross entropy plus z times the mean of
    log(sum(exp(logits)))^2.
    """
    x, w, wanted = (one.astype(np.float64) for one in values())
    logits, ids, counted = x @ w.T, wanted.astype(int), wanted >= 0
    lse = np.log(np.exp(logits).sum(axis=1))
    n = counted.sum()
    d_logits = np.exp(logits - lse[:, None]) * (1 + 2 * z * lse)[:, None]
    d_logits[np.arange(ROWS)[counted], ids[counted]] -= 1
    d_logits = np.where(counted[:, None], d_logits, 0) / n
    loss = (lse[counted] - logits[np.arange(ROWS)[counted], ids[counted]]).sum() / n
    return float(loss), [d_logits @ w, d_logits.T @ x]


@pytest.mark.parametrize("z", [1e-4, 0.3])
def test_gradients_agree_with_a_float64_oracle(z: float) -> None:
    (loss, got), (want_loss, want) = gradients(z), oracle(z)
    assert abs(loss - want_loss) < 1e-6 * want_loss
    for one, exact in zip(got, want, strict=True):
        np.testing.assert_allclose(one, exact, rtol=2e-5, atol=2e-6 * np.abs(exact).max())
    without = oracle(0.0)[1]
    assert np.abs(got[0] - without[0]).max() > 3e-4 * np.abs(without[0]).max()


def test_parts_and_threads_do_not_change_a_bit() -> None:
    _, want = gradients(0.3)
    for part in (1, 4, ROWS):
        for n_threads in (1, 3):
            _, got = gradients(0.3, part, n_threads=n_threads)
            assert [one.tobytes() for one in got] == [one.tobytes() for one in want], (part, n_threads)


@pytest.mark.parametrize("part", [0, 4])
def test_a_coefficient_of_0_has_the_bits_of_no_z_loss(part: int) -> None:
    (loss, got), (want_loss, want) = gradients(0.0, part), gradients(None, part)
    assert loss == want_loss
    assert [one.tobytes() for one in got] == [one.tobytes() for one in want]


def test_wrong_arguments_of_the_session_call_are_refused() -> None:
    with nn.Session(n_threads=1) as s:
        x = nn.tnn_input_2d_f32_persistent(s, ROWS, VOCAB)
        nn.tnn_finalize_weights(s)
        nn.tnn_set_param(x)
        loss = nn.tnn_fused_cross_entropy(s, x, nn.tnn_input_1d_i32(s, ROWS), IGNORE_ID)
        for wrong in (-1.0, math.nan, math.inf):
            with pytest.raises(TinyNNValueError, match="coefficient"):
                nn.tnn_set_z_loss(s, loss, wrong)
        with pytest.raises(TinyNNValueError, match="must be a result of tnn_fused_cross_entropy"):
            nn.tnn_set_z_loss(s, x, 0.1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        with pytest.raises(SessionError, match="before tnn_build_backward"):
            nn.tnn_set_z_loss(s, loss, 0.1)


def test_an_option_that_does_not_fit_is_refused() -> None:
    cfg = SmolLM2Config(VOCAB, 8, 2, 1, 12, 1, 16, 10000.0, 1e-5)
    with LlamaSeqEngine() as engine, pytest.raises(TinyNNValueError, match=r"z_loss=0\.1 needs layout='fused'"):
        engine.realize(cfg, RecipeOptions(t_seq=4, z_loss=0.1))
    says = r"z_loss must be 0 if preference is given, got 0\.1"
    with realized(cfg, t_seq=4, t_batch=2, z_loss=0.1) as engine, pytest.raises(TinyNNValueError, match=says):
        engine.build_training_step(preference=Preference())
    with pytest.raises(TinyNNValueError, match="z_loss must be"):
        RecipeOptions(z_loss=-1.0)
    with pytest.raises(ConfigurationError, match=r"train\.z_loss must be 0 with train\.objective"):
        TrainConfig(train=StepArgs(objective="dpo", z_loss=0.1))


def test_a_run_with_a_z_loss_ends_with_smaller_logits(data: Path, tmp_path: Path) -> None:
    squares = {}
    for z in (0.0, 0.5):
        out = tmp_path / str(z)
        train(TrainArgs(data, out, config(train=StepArgs(steps=40, batch=2, z_loss=z))))
        trained = load_checkpoint(out).model
        with LlamaSeqEngine() as engine:
            engine.realize(trained.shape, RecipeOptions(t_seq=16, layout="fused"), trained.weights)
            logits = engine.forward(list(range(16)))
            squares[z] = float((np.log(np.exp(logits.astype(np.float64)).sum(axis=-1)) ** 2).mean())
    assert squares[0.5] < 0.7 * squares[0.0]
