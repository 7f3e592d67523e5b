"""The oracles agree with each other, with finite differences, and with the published curve of the Ruby project toy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oracle import llama_numpy
from oracle.params import initial_weights, param_shapes, random_weights, trainable_names
from oracle.variants import VARIANTS, Variant, each_variant
from toynn.model.config import SmolLM2Config

if TYPE_CHECKING:
    from oracle.llama import Result

pytestmark = pytest.mark.oracle_torch
llama = pytest.importorskip("oracle.llama")

TOKENS = Path(__file__).resolve().parents[2] / "examples" / "data" / "tokens.json"
PUBLISHED = [6.440947532653809, 6.390329360961914, 6.321597576141357, 6.240766525268555, 6.151132583618164]
CONSTANT_HP = [0.001, 0.9, 0.95, 1e-8, 0, 0.9, 0.95]


def weights_of(variant: Variant) -> dict[str, np.ndarray]:
    return random_weights(variant.cfg, variant.untied, variant.qkv_bias, seed=1)


def numpy_loss(variant: Variant, weights: dict[str, np.ndarray]) -> float:
    logits = llama_numpy.forward(
        variant.cfg, weights, variant.ids(), variant.positions(), variant.t_seq, variant.t_batch
    )
    return llama_numpy.cross_entropy(logits, variant.labels())


def torch_result(variant: Variant, weights: dict[str, np.ndarray]) -> Result:
    result: Result = llama.loss_and_grads(
        variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), variant.t_seq, variant.t_batch
    )
    return result


@each_variant
def test_both_oracles_give_the_same_logits_and_loss(variant: Variant) -> None:
    weights = weights_of(variant)
    result = torch_result(variant, weights)
    logits = llama_numpy.forward(
        variant.cfg, weights, variant.ids(), variant.positions(), variant.t_seq, variant.t_batch
    )
    np.testing.assert_allclose(logits, result.logits, rtol=0, atol=1e-12)
    assert numpy_loss(variant, weights) == pytest.approx(result.loss, abs=1e-13)
    assert np.abs(logits).max() > 0.5  # logits near 0 would make the comparison meaningless


@each_variant
def test_exactly_the_trainable_weights_have_a_gradient(variant: Variant) -> None:
    shapes = param_shapes(variant.cfg, variant.untied, variant.qkv_bias)
    grads = torch_result(variant, weights_of(variant)).grads
    assert list(grads) == trainable_names(variant.cfg, variant.untied, variant.qkv_bias)
    assert {name: grad.shape for name, grad in grads.items()} == {name: shapes[name] for name in grads}
    # Without RoPE, a bias of k would shift all scores of a row equally, so its gradient would be 0. With RoPE, no
    # gradient is 0.
    assert all(np.abs(grad).max() > 1e-6 for grad in grads.values())


@each_variant
def test_gradients_equal_central_differences_of_the_other_oracle(variant: Variant) -> None:
    weights = weights_of(variant)
    grads = torch_result(variant, weights).grads
    rng = np.random.default_rng(2)
    step = 1e-5
    for name, grad in grads.items():
        # two directions are tested: the whole gradient, and its largest entry
        direction = rng.choice([-1.0, 1.0], grad.shape)
        entry = np.zeros(grad.shape)
        entry[np.unravel_index(np.abs(grad).argmax(), grad.shape)] = 1.0
        for along in (direction, entry):
            there, back = ({**weights, name: weights[name] + sign * step * along} for sign in (1, -1))
            slope = (numpy_loss(variant, there) - numpy_loss(variant, back)) / (2 * step)
            assert slope == pytest.approx(float((grad * along).sum()), rel=1e-6, abs=1e-8), name


def test_sequences_of_a_batch_do_not_affect_each_other() -> None:
    variant = VARIANTS["everything at once"]
    cfg, weights, t_seq = variant.cfg, weights_of(variant), variant.t_seq
    both = llama_numpy.forward(cfg, weights, variant.ids(), variant.positions(), t_seq, 2)
    for b in (0, 1):
        own = slice(b * t_seq, (b + 1) * t_seq)
        alone = llama.loss_and_grads(
            cfg, weights, variant.ids()[own], variant.positions()[own], variant.labels()[own], t_seq, 1
        )
        np.testing.assert_allclose(alone.logits, both[own], rtol=0, atol=1e-12)


def test_later_tokens_do_not_change_earlier_logits() -> None:
    variant = VARIANTS["gqa"]
    weights, changed = weights_of(variant), variant.ids().copy()
    changed[-2:] = (changed[-2:] + 1) % variant.cfg.vocab
    before, after = (
        llama_numpy.forward(variant.cfg, weights, ids, variant.positions(), variant.t_seq, 1)
        for ids in (variant.ids(), changed)
    )
    assert np.array_equal(before[:-2], after[:-2])
    assert np.abs(before[-2:] - after[-2:]).max() > 1e-3


def test_shifting_all_positions_does_not_change_the_logits() -> None:
    variant = VARIANTS["llama3 rope"]
    weights = weights_of(variant)
    here, there = (
        llama_numpy.forward(variant.cfg, weights, variant.ids(), variant.positions() + by, variant.t_seq, 1)
        for by in (0, 11)
    )
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-12)


def test_a_row_of_zero_labels_has_the_gradient_of_ggml() -> None:
    """If all labels of a row are 0, ggml's gradient of its logits is softmax / rows, although its loss is always 0."""
    variant = VARIANTS["tied"]
    labels = variant.labels()
    labels[3] = 0.0
    weights = weights_of(variant)
    args = (variant.cfg, weights, variant.ids(), variant.positions())
    rows = variant.t_seq
    guarded = llama.loss_and_grads(*args, labels, rows, 1)
    probability = llama_numpy.softmax(guarded.logits)[3]
    # ggml's gradient is linear in the labels, so a row without a label still adds softmax / rows to the gradient.
    soft = variant.labels()
    soft[3] = probability
    nothing_from_row_3 = llama.loss_and_grads(*args, soft, rows, 1)
    full = llama.loss_and_grads(*args, variant.labels(), rows, 1)
    target = variant.labels()[3].argmax()
    assert guarded.loss == pytest.approx(full.loss + np.log(probability[target]) / rows, abs=1e-12)
    final_norm = "output_norm.weight"
    assert np.abs(guarded.grads[final_norm] - nothing_from_row_3.grads[final_norm]).max() > 1e-6


def scalar_adamw(w: float, grads: list[float], hp: list[float]) -> float:
    """Return a weight after an AdamW update as in the paper of Loshchilov and Hutter, with the two factors of ggml."""
    alpha, beta1, beta2, eps, decay, s5, s6 = hp
    m = v = 0.0
    for g in grads:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - alpha * decay * w - alpha * (s5 * m) / ((s6 * v) ** 0.5 + eps)
    return w


@pytest.mark.parametrize("hp", [CONSTANT_HP, [0.01, 0.8, 0.99, 1e-3, 0.1, 5.0, 100.0]])
def test_adamw_equals_the_formula_of_ggml(hp: list[float]) -> None:
    rng = np.random.default_rng(3)
    grads = rng.normal(size=(4, 5))
    start = rng.normal(size=5)
    w, m, v = start.copy(), np.zeros(5), np.zeros(5)
    for grad in grads:
        llama.adamw_update(w, grad, m, v, hp)
    expected = [scalar_adamw(start[i], list(grads[:, i]), hp) for i in range(5)]
    np.testing.assert_allclose(w, expected, rtol=1e-13)


def test_adamw_with_bias_correction_equals_torch() -> None:
    import torch

    lr, beta1, beta2, eps, decay = 0.01, 0.9, 0.95, 1e-8, 0.1
    rng = np.random.default_rng(4)
    start, grads = rng.normal(size=6), rng.normal(size=(3, 6))
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.AdamW([parameter], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    w, m, v = start.copy(), np.zeros(6), np.zeros(6)
    for step, grad in enumerate(grads, start=1):
        parameter.grad = torch.tensor(grad)
        optimizer.step()
        llama.adamw_update(w, grad, m, v, [lr, beta1, beta2, eps, decay, 1 / (1 - beta1**step), 1 / (1 - beta2**step)])
    np.testing.assert_allclose(w, parameter.detach().numpy(), rtol=1e-12)


def test_training_changes_neither_the_given_weights_nor_a_frozen_embedding() -> None:
    variant = VARIANTS["projection lens"]
    weights = weights_of(variant)
    before = {name: value.copy() for name, value in weights.items()}
    trained = llama.adamw_steps(
        variant.cfg, weights, variant.ids(), variant.positions(), variant.labels(), [CONSTANT_HP] * 3, variant.t_seq, 1
    )
    assert all(np.array_equal(weights[name], before[name]) for name in weights)
    assert np.array_equal(trained.weights["token_embd.weight"], before["token_embd.weight"])
    assert not np.array_equal(trained.weights["lens.proj.weight"], before["lens.proj.weight"])
    assert trained.losses[2] < trained.losses[1] < trained.losses[0]


def test_float64_training_follows_the_published_curve_of_the_reference() -> None:
    """Train as for the published curve, on 32 tokens of toynn's stories with the same number of distinct labels.

    With seed 0 of the older random stream, all rows of the embedding are equal. So the losses of two sequences with the
    same number of distinct labels differ only by rounding errors. Adam amplifies rounding errors, but in float64 they
    are tiny.
    """
    cfg = SmolLM2Config.mha(627, 64, 4, 128, 2, 32, 10000.0, 1e-5, donor_d_in=128)
    window = json.loads(TOKENS.read_text(encoding="utf-8"))["smoke_window"]["ids"]
    weights = initial_weights(cfg, untied=True, qkv_bias=False, seed=0, init_scale=1.0, init_stream="xorshift64")
    hp = np.array(CONSTANT_HP, dtype=np.float32)

    def curve(ids: list[int]) -> np.ndarray:
        labels = np.zeros((32, 627))
        labels[np.arange(32), [*ids[1:], ids[-1]]] = 1.0
        return np.array(llama.adamw_steps(cfg, weights, ids, np.arange(32), labels, [hp] * 5, 32, 1).losses)

    misses = curve(window) - PUBLISHED
    assert abs(misses[0]) < 1.5e-6  # the Ruby project toy rounds its mean over 32 rows to f32
    assert np.abs(misses).max() < 1e-4
    unseen = next(i for i in range(627) if i not in window)
    one_more = window.copy()
    repeat = next(at for at in range(2, 32) if window[at] in window[1:at])
    one_more[repeat] = unseen  # replace a repeated label by a new label, so that there is one more distinct label
    assert len(set(one_more[1:])) == len(set(window[1:])) + 1 == 27
    assert (curve(one_more) - PUBLISHED)[4] > 4e-4
    single = next(at for at in range(2, 31) if window[1:].count(window[at]) == 1)
    one_less = window.copy()
    one_less[single] = window[1]
    assert len(set(one_less[1:])) == 25
    assert (curve(one_less) - PUBLISHED)[4] < -4e-4
