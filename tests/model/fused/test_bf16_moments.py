"""Optimizer steps with bfloat16 moments have the bits of a numpy oracle with any number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest

import toynn
import toynn.tinynn as nn
from stochastic_bf16 import Floats, random_bits, rounded, truncated
from toynn import AdamW, LlamaSeqEngine, RecipeOptions, SmolLM2Config
from toynn.errors import TinyNNTypeError, TinyNNValueError

pytestmark = pytest.mark.quick

ADAMW = AdamW(lr=0.01, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, bias_correct=True)
MUON = [0.02, 0.95, 0.1]  # learning rate, momentum, weight decay
SHAPES = [(1, 1), (1, 7), (3, 5), (5, 37), (16, 16), (70, 33)]
SEED = 123456789
Pair: TypeAlias = tuple[nn.Tensor, nn.Tensor]


@dataclass
class Step:
    """The operands of a step, float32 (rows, columns). The moments are bfloat16 numbers."""

    w: Floats
    g: Floats
    m: Floats
    v: Floats

    @classmethod
    def random(cls, shape: tuple[int, int]) -> Step:
        draw = np.random.default_rng(shape)
        w, g, m, v = (draw.standard_normal(shape, dtype=np.float32) for _ in range(4))
        return cls(w, g, truncated(m), truncated(v * v))


def taken(
    start: Step, *, kind: str = "adamw", step: int = 3, seed: int = SEED, threads: int = 1, bf16: bool = True
) -> Step:
    """Take one step in a session and return the new weights and moments."""
    rows, columns = start.w.shape
    dtype = nn.TNN_BF16 if bf16 else nn.TNN_F32
    with nn.Session(n_threads=threads, oversubscribe=True) as s:
        tw, table = (nn.tnn_input_2d_f32_persistent(s, rows, columns) for _ in range(2))
        tm, tv = (nn.tnn_input_2d_persistent_typed(s, rows, columns, dtype) for _ in range(2))
        ids = nn.tnn_input_1d_i32_persistent(s, rows)
        nn.tnn_finalize_weights(s)
        for tensor, values in ((tw, start.w), (tm, start.m), (tv, start.v), (table, start.g)):
            nn.upload_row_major(s, tensor, values)
        nn.upload_int_array(s, ids, range(rows))
        nn.tnn_set_param(tw)
        hp, t_step = nn.tnn_input_1d_f32(s, 7 if kind == "adamw" else 3), nn.tnn_input_1d_i32(s, 1)
        tg = nn.tnn_get_rows(s, table, ids)
        x, targets = nn.tnn_input_2d_f32(s, 1, columns), nn.tnn_input_1d_i32(s, 1)
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, x, [tw]), targets, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        given = (t_step, seed) if bf16 else (None, 0)
        if kind == "adamw":
            node = nn.tnn_fused_adamw(s, tw, tg, tm, tv, hp, None, given[0], seed=given[1])
        else:
            node = nn.tnn_fused_muon(s, tw, tg, tm, hp, None, given[0], seed=given[1])
        nn.tnn_extend_backward_graph(s, node)
        nn.tnn_realize_backward(s)
        nn.upload_row_major(s, x, np.ones((1, columns)))
        nn.upload_int_array(s, targets, [0])
        nn.upload_row_major(s, hp, ADAMW.hp(3) if kind == "adamw" else [MUON])
        if bf16:
            nn.upload_int_array(s, t_step, [step])
        nn.tnn_graph_reset_grads_only(s)
        nn.tnn_compute_backward(s)
        w, m, v = (nn.download_row_major(s, tensor, rows, columns) for tensor in (tw, tm, tv))
    return Step(w, start.g, m, v)


def adamw_in_numpy(start: Step, step: int) -> Step:
    """Compute the step in float32, in the order of the kernel, and round the moments."""
    lr, beta1, beta2, eps, decay, s5, s6 = ADAMW.hp(3)[0]
    one = np.float32(1.0)
    m = start.m * beta1 + start.g * (one - beta1)
    v = start.v * beta2 + start.g * start.g * (one - beta2)
    w = start.w * (one - lr * decay) - lr * (m * s5) / (np.sqrt(v * s6) + eps)
    random = random_bits(SEED, step, m.size).reshape(m.shape)
    return Step(w, start.g, rounded(m, random & np.uint32(0xFFFF)), rounded(v, random >> np.uint32(16)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("step", [0, 3, 2**31 - 1])
def test_a_step_of_adamw_has_the_bits_of_the_oracle(shape: tuple[int, int], step: int) -> None:
    start = Step.random(shape)
    found, expected = taken(start, step=step), adamw_in_numpy(start, step)
    for name in ("w", "m", "v"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_step_of_muon_rounds_the_momentum_after_it_was_used(shape: tuple[int, int]) -> None:
    start = Step.random(shape)
    found, in_f32 = taken(start, kind="muon"), taken(start, kind="muon", bf16=False)
    random = random_bits(SEED, 3, in_f32.m.size).reshape(shape) & np.uint32(0xFFFF)
    assert found.m.tobytes() == rounded(in_f32.m, random).tobytes()
    assert found.w.tobytes() == in_f32.w.tobytes()


@pytest.mark.threads
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_bits_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    start = Step.random((70, 33))
    alone = taken(start, kind=kind)
    for threads in (2, 3, 4):
        several = taken(start, kind=kind, threads=threads)
        for name in ("w", "m", "v"):
            assert getattr(several, name).tobytes() == getattr(alone, name).tobytes(), (threads, name)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("other", [{"step": 4}, {"seed": SEED + 1}])
def test_step_and_seed_change_the_random_bits(kind: str, other: dict[str, Any]) -> None:
    start = Step.random((70, 33))
    first, second = taken(start, kind=kind), taken(start, kind=kind, **other)
    assert first.w.tobytes() == second.w.tobytes()
    differing = np.mean(first.m != second.m)
    assert 0.2 < differing < 0.45  # a third of the numbers differ if the remainders are uniformly distributed


def test_the_rounding_has_no_bias() -> None:
    n = 1 << 16
    start = Step(*(np.zeros((256, 256), np.float32) for _ in range(4)))
    start.g[:] = np.float32(10.01)
    found = taken(start)
    m, v = (x.ravel()[0] for x in (start.g * np.float32(0.1), start.g * start.g * np.float32(0.05)))
    for values, exact in ((found.m, m), (found.v, v)):
        low, high = np.unique(values).tolist()
        assert low < exact < high
        share = (float(exact) - low) / (high - low)
        assert float(np.mean(values == high)) == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5 + 1e-4)


def test_exact_and_largest_numbers_stay_finite_and_unchanged() -> None:
    start = Step.random((4, 4))
    start.g[:] = 0.0
    start.m[:] = truncated(np.float32(3.3e38))
    start.v[:] = 0.0
    found = taken(start)
    assert np.isfinite(found.m).all()
    assert (found.v == 0).all()


# ---- what is refused ----


def declared(s: nn.Session) -> tuple[Pair, Pair, Pair, nn.Tensor, nn.Tensor]:
    """Return weight and gradient, moments in bfloat16, moments in float32, hp, and the number of the step."""
    w = nn.tnn_input_2d_f32_persistent(s, 4, 4)
    m, v = (nn.tnn_input_2d_persistent_typed(s, 4, 4, nn.TNN_BF16) for _ in range(2))
    whole = (nn.tnn_input_2d_f32_persistent(s, 4, 4), nn.tnn_input_2d_f32_persistent(s, 4, 4))
    nn.tnn_finalize_weights(s)
    nn.tnn_set_param(w)
    hp, step, targets = nn.tnn_input_1d_f32(s, 7), nn.tnn_input_1d_i32(s, 1), nn.tnn_input_1d_i32(s, 4)
    loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, nn.tnn_input_2d_f32(s, 4, 4), [w]), targets, -1)
    nn.tnn_set_loss(loss)
    nn.tnn_build_forward_only(s, loss)
    nn.tnn_build_backward(s)
    return (w, nn.tnn_tensor_grad(s, w)), (m, v), whole, hp, step


def test_the_dtype_of_the_moments_and_the_step_must_fit() -> None:
    with nn.Session(n_threads=1) as s:
        (w, g), half, whole, hp, step = declared(s)
        with pytest.raises(TinyNNTypeError, match="m has dtype bf16"):
            nn.tnn_fused_adamw(s, w, g, *half, hp)
        with pytest.raises(TinyNNTypeError, match="m has dtype f32"):
            nn.tnn_fused_adamw(s, w, g, *whole, hp, None, step)
        with pytest.raises(TinyNNTypeError, match="v has dtype f32"):
            nn.tnn_fused_adamw(s, w, g, half[0], whole[1], hp, None, step)
        with pytest.raises(TinyNNTypeError, match="step has dtype f32"):
            nn.tnn_fused_adamw(s, w, g, *half, hp, None, hp)
        with pytest.raises(TinyNNValueError, match=r"step has shape .*must be \[1\]"):
            nn.tnn_fused_adamw(s, w, g, *half, hp, None, nn.tnn_input_1d_i32(s, 2))
        with pytest.raises(TinyNNTypeError, match="m has dtype bf16"):
            nn.tnn_fused_muon(s, w, g, half[0], nn.tnn_view_1d(s, hp, 3, 0))


def test_an_engine_with_bfloat16_moments_needs_the_number_of_the_step() -> None:
    cfg = SmolLM2Config(vocab=11, d_model=8, n_heads=2, n_kv=1, d_ff=12, n_layers=1, ctx=4, rope_base=1e4, rms_eps=1e-5)
    with LlamaSeqEngine() as engine:
        engine.realize(cfg, RecipeOptions(t_seq=4, layout="fused", moments="bf16", n_threads=1))
        assert set(engine.bf16_moment_names()) == {
            name for name in engine.moment_names() if engine.download_weight(name).ndim == 2
        }
        engine.build_training_step(clip=True)
        step = ([1, 2, 3, 4], [2, 3, 4, 5], ADAMW.hp(1))
        with pytest.raises(TinyNNValueError, match="step is missing"):
            engine.train_step(*step)
        engine.train_step(*step, step=1)
        assert engine.download_weight(engine.bf16_moment_names()[0]).any()
    with LlamaSeqEngine() as engine:
        engine.realize(cfg, RecipeOptions(t_seq=4, layout="fused", n_threads=1))
        assert engine.bf16_moment_names() == []
        engine.build_training_step()
        with pytest.raises(TinyNNValueError, match="step must be left out, got 1"):
            engine.train_step(*step, step=1)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_profiled_step_has_the_bits_of_a_step(kind: str) -> None:
    cfg = SmolLM2Config(
        vocab=16, d_model=16, n_heads=2, n_kv=1, d_ff=24, n_layers=1, ctx=8, rope_base=1e4, rms_eps=1e-5
    )
    ids, hp, positions = np.arange(8), AdamW(lr=0.01).hp(3), np.arange(8)
    more: dict[str, Any] = {"step": 3, **({"muon_hp": toynn.Muon(lr=0.02).hp()} if kind == "muon" else {})}
    options = RecipeOptions(t_seq=8, layout="fused", optimizer=kind, moments="bf16", n_threads=1)
    results = []
    for profiled in (False, True):
        with LlamaSeqEngine() as engine:
            engine.realize(cfg, options)
            engine.build_training_step()
            if profiled:
                toynn.profile(engine, ids, positions, ids, hp, True, **more)
            else:
                engine.train_step(ids, ids, hp, positions=positions, reset_moments=True, **more)
            results.append({name: engine.download_weight(name).tobytes() for name in engine.weights})
    assert results[0] == results[1]


def test_the_per_head_layout_refuses_bfloat16_moments() -> None:
    with pytest.raises(TinyNNValueError, match="moments='bf16' needs layout='fused'"):
        RecipeOptions(t_seq=4, moments="bf16").validate()
