"""The loss of preference pairs (DPO, hinge, IPO) agrees with PyTorch in float64; batches and threads change no bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adapters import adapter_of
from engines import realized
from fused_engines import HP, all_weights, engine, load
from oracle.variants import VARIANTS, Variant
from toynn import LlamaSeqEngine, RecipeOptions, SessionError, SmolLM2Config, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn
from toynn.llm.labels import IGNORED
from toynn.llm.layouts import to_per_head
from toynn.llm.preference import Preference
from toynn.llm.window_sums import tree_sum
from tuned_models import BASES, base_of, divided, joined

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
PAIRS = Variant(VARIANTS["gqa"].cfg, 6, t_batch=4, untied=True)
PREFERENCES = [
    Preference(beta=0.25),
    Preference(beta=0.5, label_smoothing=0.125),
    Preference("hinge", beta=0.25),
    Preference("ipo", beta=0.5),
]
each_preference = pytest.mark.parametrize("preference", PREFERENCES, ids=["dpo", "smoothed", "hinge", "ipo"])


def pairs_of(variant: Variant, seed: int = 1) -> tuple[I32, I32, F64]:
    """Return ids and targets (B*T,), and log-probabilities of a reference (B,).

    The sequences have prompts and padding of different lengths, so the numbers of their targets differ.
    """
    draw = np.random.default_rng(seed)
    b, t = variant.t_batch, variant.t_seq
    ids = draw.integers(0, variant.cfg.vocab, (b, t + 1))
    targets = ids[:, 1:].copy()
    for row in targets:
        begin = draw.integers(0, t - 1)
        end = draw.integers(begin + 1, t + 1)
        row[:begin], row[end:] = IGNORED, IGNORED
    return ids[:, :-1].astype(np.int32).ravel(), targets.astype(np.int32).ravel(), draw.normal(-12, 3, b)


def losses_in_torch(logits: Any, targets: I32, reference: F64, preference: Preference) -> Any:
    """Return the loss of each pair in float64, from logits (B*T, vocab)."""
    torch = pytest.importorskip("torch")
    b = reference.size
    wanted = torch.tensor(targets, dtype=torch.int64)
    counts = wanted != IGNORED
    log_probs = torch.log_softmax(logits, dim=1)[torch.arange(wanted.numel()), wanted.clamp(min=0)]
    sums = (log_probs * counts).reshape(b, -1).sum(dim=1)
    change = sums - torch.tensor(reference)
    if preference.kind == "ipo":
        change = change / counts.reshape(b, -1).sum(dim=1)
    margin = change[::2] - change[1::2]
    z, smoothing = preference.beta * margin, preference.label_smoothing
    if preference.kind == "hinge":
        return torch.relu(1 - z)
    if preference.kind == "ipo":
        return (margin - 1 / (2 * preference.beta)) ** 2
    log_sigmoid = torch.nn.functional.logsigmoid
    return -(1 - smoothing) * log_sigmoid(z) - smoothing * log_sigmoid(-z)


@pytest.mark.oracle_torch
@each_preference
def test_loss_and_every_gradient_agree_with_torch(preference: Preference) -> None:
    torch, llama = pytest.importorskip("torch"), pytest.importorskip("oracle.llama")
    ids, targets, reference = pairs_of(PAIRS)
    with engine(PAIRS, keep_gradients=True, preference=preference) as e:
        weights = {name: torch.tensor(w, requires_grad=True) for name, w in load(e, PAIRS).items()}
        positions = torch.tensor(PAIRS.positions(), dtype=torch.float64)
        logits = llama.logits_of(PAIRS.cfg, weights, torch.tensor(ids), positions, PAIRS.t_seq, PAIRS.t_batch)
        want = losses_in_torch(logits, targets, reference, preference)
        want.mean().backward()
        loss, _ = e.train_step(ids, targets, HP.hp(1), reference=reference, update=False)
        np.testing.assert_allclose(e.pair_losses(), want.detach().numpy(), rtol=3e-6)
        assert loss == pytest.approx(float(want.detach().mean()), rel=3e-6)
        got = to_per_head({name: e.gradient(name) for name in e.param_names()}, PAIRS.cfg)
        for name, grad in got.items():
            exact = weights[name].grad.numpy()
            np.testing.assert_allclose(grad, exact, rtol=0, atol=3e-5 * np.abs(exact).max(), err_msg=name)


@pytest.mark.oracle_torch
@each_preference
def test_gradients_of_an_adapter_agree_with_torch(preference: Preference) -> None:
    torch, llama = pytest.importorskip("torch"), pytest.importorskip("oracle.llama")
    variant = Variant(BASES["gqa"].cfg, 6, t_batch=4, untied=True)
    ids, targets, reference = pairs_of(variant)
    model, base = base_of(variant)
    given = adapter_of(model.shape)
    spec, tensors = given.spec, given.tensors
    adapter = {name: torch.tensor(w.astype(np.float64), requires_grad=True) for name, w in tensors.items()}
    merged = {name: torch.tensor(w) for name, w in joined(base, variant).items()}
    for name in [one.removesuffix(".lora_a") for one in tensors if one.endswith(".lora_a")]:
        merged[name] = merged[name] + spec.scale * adapter[f"{name}.lora_b"] @ adapter[f"{name}.lora_a"]
    positions = torch.tensor(variant.positions(), dtype=torch.float64)
    logits = llama.logits_of(
        variant.cfg, divided(merged, variant), torch.tensor(ids), positions, variant.t_seq, variant.t_batch
    )
    want = losses_in_torch(logits, targets, reference, preference).mean()
    want.backward()
    with LlamaSeqEngine() as e:
        e.realize_with_adapter(model, spec, RecipeOptions(6, 4, n_threads=1, layout="fused"), tensors)
        e.build_training_step(keep_gradients=True, preference=preference)
        loss, _ = e.train_step(ids, targets, HP.hp(1), reference=reference, update=False)
        assert loss == pytest.approx(float(want.detach()), rel=3e-6)
        for name, one in adapter.items():
            exact = one.grad.numpy()
            np.testing.assert_allclose(e.gradient(name), exact, rtol=0, atol=3e-5 * np.abs(exact).max(), err_msg=name)


def results(variant: Variant, batch: int, preference: Preference, n_threads: int = 1, **build: Any) -> Any:
    """Take two steps over the pairs of a variant, in batches of `batch` sequences. Return everything they change."""
    part = Variant(variant.cfg, variant.t_seq, t_batch=batch, untied=variant.untied)
    ids, targets, reference = pairs_of(variant)
    n, rows = variant.t_batch // batch, batch * variant.t_seq
    with engine(part, n_threads=n_threads, clip=True, keep_gradients=True, preference=preference, **build) as e:
        found: list[Any] = []
        for step in (1, 2):
            losses: list[float] = []
            for i in range(n):
                at = slice(i * rows, (i + 1) * rows)
                _, norm = e.train_step(
                    ids[at], targets[at], HP.hp(step), reference=reference[i * batch : (i + 1) * batch],
                    accumulate=i > 0, update=i == n - 1, max_norm=0.5, loss_divisor=variant.t_batch // 2,
                )  # fmt: skip
                losses += e.pair_losses().tolist()
            found.append((losses, tree_sum(losses), norm))
        gradients = {name: e.gradient(name).tobytes() for name in e.param_names()}
        return found, gradients, all_weights(e)


MANY = Variant(SmolLM2Config(300, 40, 2, 1, 56, 2, 64, 10000.0, 1e-5), 21, t_batch=12, untied=True)


@pytest.mark.parametrize("batch", [2, 4, 6])
def test_batches_of_a_step_do_not_change_a_bit(batch: int) -> None:
    assert results(MANY, batch, PREFERENCES[0]) == results(MANY, 12, PREFERENCES[0], n_threads=2)


@pytest.mark.threads
@pytest.mark.parametrize("rows", [1, 20, 64])
def test_parts_of_the_logits_recomputation_and_threads_do_not_change_a_bit(rows: int, in_parts: Any) -> None:
    want = results(MANY, 12, PREFERENCES[1])
    assert results(MANY, 12, PREFERENCES[1], recompute=True) == want
    in_parts(rows)
    for n_threads in (1, 3):
        assert results(MANY, 12, PREFERENCES[1], n_threads) == want
    assert results(MANY, 12, PREFERENCES[1], recompute=True) == want


def test_a_model_that_equals_its_reference_has_a_margin_of_0() -> None:
    """The loss -log(sigmoid(0)) is log 2. The log-probabilities that Python and the graph compute must be exactly
    equal.
    """
    ids, targets, _ = pairs_of(MANY)
    preference = Preference(beta=1e6)
    with engine(MANY) as e:
        e.mean_loss(ids, targets)
        reference = -e.window_losses()
        loss = e.mean_loss(ids, targets, preference=preference, reference=reference)
        assert loss == float(np.float32(np.log(2)))
        assert e.pair_losses().tolist() == [loss] * 6
        steep = Preference(beta=40.0)
        for change, want in ((1.0, 40.0), (-1.0, np.exp(-40.0))):
            moved = reference + np.tile([change, 0.0], 6)  # the margin of each pair is -change
            assert e.mean_loss(ids, targets, preference=steep, reference=moved) == pytest.approx(want, rel=1e-4)


def test_wrong_arguments_are_refused() -> None:
    ids, targets, reference = pairs_of(PAIRS)
    with engine(PAIRS, preference=PREFERENCES[0]) as e:
        feed = (ids, targets, HP.hp(1))
        with pytest.raises(TinyNNTypeError, match="reference must be an array of float64"):
            e.train_step(*feed)
        for wrong in (reference[:2], np.where(reference < 0, np.nan, 0.0), reference * 1e40):
            with pytest.raises(TinyNNValueError, match="reference must"):
                e.train_step(*feed, reference=wrong)
        e.build_training_step()
        with pytest.raises(TinyNNValueError, match="reference must be left out"):
            e.train_step(*feed, reference=reference)
        with pytest.raises(SessionError, match="pair_losses needs a graph with preference pairs"):
            e.pair_losses()
    odd = Variant(PAIRS.cfg, 6, t_batch=3, untied=True)
    for variant, layout, message in (
        (odd, "fused", "an even number of sequences, got t_batch = 3"),
        (PAIRS, "per_head", "preference needs the fused layout"),
    ):
        with (
            realized(variant.cfg, **variant.options, layout=layout) as e,
            pytest.raises(TinyNNValueError, match=message),
        ):
            e.build_training_step(preference=PREFERENCES[0])
    for wrong_settings in (
        {"kind": "dpo"},
        {"beta": 0},
        {"label_smoothing": 0.5},
        {"kind": "ipo", "label_smoothing": 0.1},
    ):
        with pytest.raises(TinyNNValueError, match=next(reversed(wrong_settings))):
            Preference(**wrong_settings)


def test_operands_that_do_not_fit_are_refused() -> None:
    with nn.Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, 5, 4)
        nn.tnn_finalize_weights(s)
        ids, wanted = nn.tnn_input_1d_i32(s, 8), nn.tnn_input_1d_i32(s, 8)
        logits = nn.tnn_fused_linear(s, nn.tnn_get_rows(s, w, ids), [w])
        loss = nn.tnn_fused_cross_entropy(s, logits, wanted, -1)
        reference, settings = nn.tnn_input_2d_f32(s, 2, 4), nn.tnn_input_1d_f32(s, 3)
        for operands, message in (
            ((logits, reference, settings), "cross_entropy .* must be a result of tnn_fused_cross_entropy"),
            ((loss, nn.tnn_input_2d_f32(s, 2, 3), settings), "the number of sequences must be even"),
            ((loss, nn.tnn_input_2d_f32(s, 2, 6), settings), "the number of sequences must be even"),
            ((loss, nn.tnn_input_2d_f32(s, 3, 4), settings), r"must be an input of shape \[sequences, 2\]"),
            ((loss, reference, reference), r"settings has shape .*, but it must be an input of shape \[3\]"),
        ):
            with pytest.raises(TinyNNValueError, match=message):
                nn.tnn_fused_preference_loss(s, *operands)
        with pytest.raises(TinyNNValueError, match="kind = 3 must be a value of enum tnn_preference, 0 to 2"):
            nn.tnn_fused_preference_loss(s, loss, reference, settings, kind=3)
        result = nn.tnn_fused_preference_loss(s, loss, reference, settings)
        nn.tnn_realize(s, result)
        for upload, shape in ((w, (5, 4)), (reference, (2, 4))):
            nn.upload_row_major(s, upload, np.zeros(shape))
        nn.upload_int_array(s, ids, np.zeros(8, dtype=np.int32))
        nn.upload_int_array(s, wanted, np.zeros(8, dtype=np.int32))
        for values, message in (
            ((0.0, 0.0, 1.0), "beta"),
            ((np.nan, 0.0, 1.0), "beta"),
            ((1.0, 0.5, 1.0), "label_smoothing"),
            ((1.0, 0.0, 0.0), "divisor"),
            ((1.0, 0.0, np.inf), "divisor"),
        ):
            nn.upload_row_major(s, settings, [values])
            with pytest.raises(TinyNNValueError, match=f"which is {message}, must be"):
                nn.tnn_compute(s)
        nn.upload_row_major(s, settings, [[1.0, 0.0, 2.0]])
        nn.tnn_compute(s)
        assert nn.download_row_major(s, result, 1, 1)[0, 0] == np.float32(np.log(2))
