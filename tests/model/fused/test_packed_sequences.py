"""In a sequence with several samples, each sample has the bits that it has alone; gradients agree with the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized
from fused_engines import HP, all_weights, engine, load, targets
from oracle.variants import VARIANTS, Variant, each_variant
from toynn import RopeScaling, SmolLM2Config, TinyNNTypeError, TinyNNValueError
from toynn.llm.fused import graph
from toynn.llm.layouts import to_fused
from toynn.model.shape import ModelShape

Int = npt.NDArray[np.int32]

# The second sequence ends with padding. Each token of the padding is a sample of its own.
T, BATCH = 104, 2
SAMPLES = [(0, 20), (20, 90), (90, 104), (104, 204)]  # first row and end of each sample
STARTS = np.concatenate([np.repeat([0, 20, 90], [20, 70, 14]), np.zeros(100), np.arange(100, 104)]).astype(np.int32)
MODELS = {
    "llama": SmolLM2Config(
        101, 24, 4, 2, 40, 2, 128, 10000.0, 1e-5, head_dim=10, rope_scaling=RopeScaling.llama3(8.0, 1.0, 4.0, 32)
    ),
    "gemma3": ModelShape(
        101, 24, 4, 2, 40, 3, 128, 10000.0, 1e-5, head_dim=12, architecture="gemma3", qk_norm=True, sliding_window=20,
        global_interval=3, local_rope_base=1000.0, query_pre_attn_scalar=16,
    ),
    "smollm3": ModelShape(
        101, 24, 4, 2, 40, 2, 128, 10000.0, 1e-5, head_dim=12, architecture="smollm3", no_rope_interval=2
    ),
}  # fmt: skip
each_model = pytest.mark.parametrize("cfg", MODELS.values(), ids=MODELS.keys())


def ids_and_targets() -> tuple[Int, Int]:
    rng = np.random.default_rng(4)
    ids, wanted = rng.integers(0, 101, (2, T * BATCH), dtype=np.int32)
    wanted[204:] = -100
    return ids, wanted


class Step:
    """The results of a step without update: row losses by sequence, the gradients of the weights, and the logits."""

    def __init__(self, cfg: SmolLM2Config, ids: Int, wanted: Int, starts: Int | None, **build: Any) -> None:
        with realized(cfg, t_seq=T, t_batch=BATCH, seed=3, init_scale=1.5) as e:
            e.build_training_step(keep_gradients=True, packed=starts is not None, **build)
            e.train_step(ids, wanted, HP.hp(1), update=False, loss_divisor=9, starts=starts)
            self.losses = e.window_losses()
            self.gradients = {name: e.gradient(name) for name in e.param_names()}
            self.logits = e.forward(ids, starts=starts)


def alone(cfg: SmolLM2Config, sample: tuple[int, int]) -> Step:
    """Return the step of one sample, at the start of its sequence. The rest of the sequence does not count."""
    ids, wanted = ids_and_targets()
    first, end = sample
    begin = first // T * T
    own_ids, own_wanted = ids.copy(), np.full(T * BATCH, -100, dtype=np.int32)
    own_ids[begin : begin + T] = 7
    own_ids[begin : begin + end - first] = ids[first:end]
    own_wanted[begin : begin + end - first] = wanted[first:end]
    return Step(cfg, own_ids, own_wanted, None)


@each_model
def test_a_sample_has_the_logits_the_loss_and_the_gradients_that_it_has_alone(cfg: SmolLM2Config) -> None:
    """The gradients of a sample are those of a step in which only this sample counts."""
    ids, wanted = ids_and_targets()
    whole = Step(cfg, ids, wanted, STARTS)
    total = {name: np.zeros(values.shape) for name, values in whole.gradients.items()}
    for first, end in SAMPLES:
        single, begin = alone(cfg, (first, end)), first // T * T
        assert single.logits[begin : begin + end - first].tobytes() == whole.logits[first:end].tobytes()
        only = np.full(T * BATCH, -100, dtype=np.int32)
        only[first:end] = wanted[first:end]
        counted = Step(cfg, ids, only, STARTS)
        assert counted.losses.tolist() == single.losses.tolist()
        for name, values in counted.gradients.items():
            assert values.tobytes() == single.gradients[name].tobytes(), name
            total[name] += values
    for name, values in whole.gradients.items():
        np.testing.assert_allclose(values, total[name], rtol=0, atol=1e-6 * np.abs(total[name]).max(), err_msg=name)


@each_model
def test_a_sample_changes_no_bit_of_the_logits_of_another(cfg: SmolLM2Config) -> None:
    ids, wanted = ids_and_targets()
    before = Step(cfg, ids, wanted, STARTS).logits
    ids[20:90] = (ids[20:90] + 1) % 101
    after = Step(cfg, ids, wanted, STARTS).logits
    changed = np.flatnonzero((before != after).any(axis=1))
    assert changed.tolist() == list(range(20, 90))


@each_variant
@pytest.mark.oracle_torch
def test_the_loss_and_the_gradients_agree_with_the_oracle_in_float64(variant: Variant) -> None:
    """Two samples share a sequence. For the oracle, each sample is a sequence."""
    llama = pytest.importorskip("oracle.llama")
    t, apart = variant.t_seq, replace(variant, t_batch=2 * variant.t_batch)
    starts = np.tile(np.repeat(np.array([0, t], dtype=np.int32), t), variant.t_batch)
    with engine(replace(variant, t_seq=2 * t), packed=True, keep_gradients=True) as e:
        weights = load(e, variant)
        loss, _ = e.train_step(apart.ids(), targets(apart), HP.hp(1), update=False, starts=starts)
        got = {name: e.gradient(name) for name in e.param_names()}
    want = llama.loss_and_grads(variant.cfg, weights, apart.ids(), apart.positions(), apart.labels(), t, apart.t_batch)
    assert loss == pytest.approx(want.loss, abs=2e-6)
    grads = to_fused({name: grad.astype(np.float32) for name, grad in want.grads.items()}, variant.cfg)
    for name, grad in got.items():
        scale = np.abs(grads[name]).max()
        np.testing.assert_allclose(grad, grads[name], rtol=0, atol=max(1e-6, 2e-5 * scale), err_msg=name)


def two_steps(cfg: SmolLM2Config, n_threads: int = 1, batches: int = 1, **build: Any) -> Any:
    """Take two steps over both sequences in one batch or in two. Return everything that the steps change."""
    ids, wanted = ids_and_targets()
    with realized(cfg, t_seq=T, t_batch=BATCH // batches, seed=3, init_scale=1.5, n_threads=n_threads) as e:
        e.build_training_step(keep_gradients=True, clip=True, packed=True, **build)
        losses: list[float] = []
        for step in (1, 2):
            for i, part in enumerate(np.split(np.arange(T * BATCH), batches)):
                _, norm = e.train_step(
                    ids[part],
                    wanted[part],
                    HP.hp(step),
                    accumulate=i > 0,
                    update=i == batches - 1,
                    loss_divisor=204,
                    max_norm=0.5,
                    starts=STARTS[part],
                )
                losses += e.window_losses().tolist()
        return losses, norm, all_weights(e)


@pytest.mark.threads
def test_threads_recomputing_batches_and_parts_of_the_loss_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = MODELS["gemma3"]
    want = two_steps(cfg)
    assert two_steps(cfg, n_threads=3) == want
    assert two_steps(cfg, n_threads=2, recompute=True) == want
    assert two_steps(cfg, batches=2) == want
    monkeypatch.setattr(graph, "LOGITS_NBYTES", 0)
    monkeypatch.setattr(graph, "parts_save_memory", lambda *_: True)
    assert two_steps(cfg) == want


def test_a_packed_graph_without_starts_has_the_bits_of_a_plain_graph() -> None:
    ids, wanted = ids_and_targets()
    cfg = MODELS["gemma3"]
    plain, packed = Step(cfg, ids, wanted, None), Step(cfg, ids, wanted, np.zeros(T * BATCH, dtype=np.int32))
    with realized(cfg, t_seq=T, t_batch=BATCH, seed=3, init_scale=1.5) as e:
        e.build_training_step(keep_gradients=True, packed=True)
        e.train_step(ids, wanted, HP.hp(1), update=False, loss_divisor=9)
        without = {name: e.gradient(name) for name in e.param_names()}
    assert plain.logits.tobytes() == packed.logits.tobytes()
    for name, values in plain.gradients.items():
        assert values.tobytes() == packed.gradients[name].tobytes() == without[name].tobytes(), name


def test_the_mean_loss_is_that_of_a_step() -> None:
    ids, wanted = ids_and_targets()
    with realized(MODELS["llama"], t_seq=T, t_batch=BATCH, seed=3, init_scale=1.5) as e:
        e.build_training_step(packed=True)
        loss, _ = e.train_step(ids, wanted, HP.hp(1), update=False, starts=STARTS)
        assert e.mean_loss(ids, wanted, starts=STARTS) == loss
        plain = e.mean_loss(ids, wanted)
        assert plain != loss
        assert e.mean_loss(ids, wanted, starts=STARTS) == loss
        e.forward(ids, starts=STARTS)
        logits = e.forward(ids)
        assert e.forward(ids, starts=STARTS).tobytes() != logits.tobytes()


def test_wrong_starts_are_refused() -> None:
    ids, wanted = ids_and_targets()
    with realized(MODELS["llama"], t_seq=T, t_batch=BATCH) as e:
        e.build_training_step()
        with pytest.raises(TinyNNValueError, match=r"^starts can be given only after build_training_step\(packed=True"):
            e.train_step(ids, wanted, HP.hp(1), starts=STARTS)
        e.build_training_step(packed=True)
        for place, value, mentions in (
            (0, 1, r"^starts\[0\] is 1, but must be 0 \(the position of this token in its sequence\), or equal to"),
            (5, 4, r"^starts\[5\] is 4, but must be 5"),
            (25, 21, r"^starts\[25\] is 21, but must be 25"),
            (T, T - 1, rf"^starts\[{T}\] is {T - 1}, but must be 0"),
            (3, -1, rf"^starts\[3\] is -1, but must be from 0 to {T - 1} \(t_seq = {T}\)"),
            (3, T, rf"^starts\[3\] is {T}, but must be from 0 to"),
        ):
            starts = STARTS.copy()
            starts[place] = value
            for call in (
                lambda starts=starts: e.train_step(ids, wanted, HP.hp(1), starts=starts),
                lambda starts=starts: e.forward(ids, starts=starts),
                lambda starts=starts: e.mean_loss(ids, wanted, starts=starts),
            ):
                with pytest.raises(TinyNNValueError, match=mentions):
                    call()
        with pytest.raises(TinyNNValueError, match="starts must have shape"):
            e.forward(ids, starts=STARTS[1:])
        with pytest.raises(TinyNNTypeError, match="starts"):
            e.forward(ids, starts=STARTS.astype(np.float32))


def test_the_per_head_layout_refuses_samples() -> None:
    variant = VARIANTS["gqa"]
    message = r"^packed samples need the fused layout, got a model in the per_head layout$"
    with realized(variant.cfg, **variant.options, layout="per_head") as e:
        with pytest.raises(TinyNNValueError, match=message):
            e.build_training_step(packed=True)
        with pytest.raises(TinyNNValueError, match=message):
            e.forward(variant.ids(), starts=np.zeros(variant.t_seq, dtype=np.int32))
