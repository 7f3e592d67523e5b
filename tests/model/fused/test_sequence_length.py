"""Graphs whose sequences are shorter than those with which a model was realized."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fused_engines import HP, all_weights, engine, load
from oracle.variants import VARIANTS, Variant
from toynn import TinyNNTypeError, TinyNNValueError
from toynn.llm.labels import IGNORED

T, B = 40, 3
LENGTHS = (9, 24, 17)  # number of tokens of the sample at the start of each sequence
I32 = npt.NDArray[np.int32]


def variant(name: str) -> Variant:
    one = VARIANTS[name]
    return replace(one, cfg=replace(one.cfg, ctx=64), t_seq=T, t_batch=B)


def samples(vocab: int, t: int, lengths: tuple[int, ...] = LENGTHS) -> tuple[I32, I32]:
    """Return ids and targets of samples, padded to t tokens each."""
    ids, targets = np.zeros((len(lengths), t), np.int32), np.full((len(lengths), t), IGNORED, np.int32)
    for row, n in enumerate(lengths):
        draw = np.random.default_rng([row, n])
        ids[row, :n], targets[row, :n] = draw.integers(1, vocab, n), draw.integers(1, vocab, n)
        targets[row, : n // 3] = IGNORED
    return ids.ravel(), targets.ravel()


def step(name: str, t: int, n_threads: int = 1, **build: Any) -> tuple[Any, ...]:
    """Return the loss, norm, window losses, gradients and new weights of a step in sequences of t tokens."""
    one = variant(name)
    with engine(one, n_threads=n_threads, clip=True, keep_gradients=True, **build) as e:
        load(e, one)
        e.use_sequence_length(t)
        e.build_training_step(clip=True, keep_gradients=True, **build)
        ids, targets = samples(one.cfg.vocab, t)
        loss, norm = e.train_step(ids, targets, HP.hp(1), reset_moments=True)
        gradients = {key: e.gradient(key).tobytes() for key in e.params()}
        return loss, norm, e.window_losses().tobytes(), gradients, all_weights(e)


@pytest.mark.parametrize("name", ["gqa", "qkv_bias", "gemma3", "everything at once"])
@pytest.mark.parametrize("build", [{}, {"recompute": True}], ids=["plain", "recompute"])
def test_a_step_has_the_same_bits_for_every_length_that_holds_its_samples(name: str, build: dict[str, Any]) -> None:
    want = step(name, T, **build)
    for t in (24, 25, 32, 39):
        assert step(name, t, **build) == want


@pytest.mark.threads
def test_the_bits_do_not_depend_on_threads() -> None:
    assert step("gqa", 24, n_threads=3) == step("gqa", T)


def test_an_engine_changes_between_lengths_without_losing_weights_or_moments() -> None:
    one = variant("gqa")
    found = []
    for lengths in ((T, T, T, T), (T, 24, 32, 24)):
        with engine(one) as e:
            load(e, one)
            for i, t in enumerate(lengths):
                e.use_sequence_length(t)
                assert e.seq_t == t
                e.build_training_step()
                e.train_step(*samples(one.cfg.vocab, t), HP.hp(i + 1), reset_moments=i == 0)
            e.use_sequence_length(24)
            short = e.forward(samples(one.cfg.vocab, 24)[0]).reshape(B, 24, -1)
            loss = e.mean_loss(*samples(one.cfg.vocab, 24))
            assert e.row_losses().shape == (B * 24,)
            e.use_sequence_length(T)
            whole = e.forward(samples(one.cfg.vocab, T)[0]).reshape(B, T, -1)
            assert short.tobytes() == np.ascontiguousarray(whole[:, :24]).tobytes()
            found.append(
                (loss, whole.tobytes(), all_weights(e), e.download_weight(f"{e.param_names()[0]}.m").tobytes())
            )
    assert found[0] == found[1]


def test_accumulated_batches_have_the_bits_of_one_batch() -> None:
    one = variant("gqa")
    results = []
    for t in (T, 24):
        with engine(one) as e:
            load(e, one)
            e.use_sequence_length(t)
            e.build_training_step(keep_gradients=True, batches=2)
            for i in range(2):
                ids, targets = samples(one.cfg.vocab, t, ((9, 24, 17), (3, 2, 20))[i])
                e.train_step(
                    ids, targets, HP.hp(1), reset_moments=i == 0, accumulate=i > 0, update=i > 0, loss_divisor=51
                )
            results.append(all_weights(e))
    assert results[0] == results[1]


def test_wrong_lengths_are_refused() -> None:
    one = variant("gqa")
    with engine(one) as e:
        for wrong in (0, T + 1):
            with pytest.raises(TinyNNValueError, match=f"^t_seq must be an integer from 1 to {T}, got {wrong}$"):
                e.use_sequence_length(wrong)
        with pytest.raises(TinyNNTypeError, match="t_seq"):
            e.use_sequence_length(2.5)  # type: ignore[arg-type]
        e.use_sequence_length(8)
        e.build_training_step()
        with pytest.raises(TinyNNValueError, match="seq_ids"):
            e.train_step(*samples(one.cfg.vocab, T), HP.hp(1))
    with engine(one, "per_head") as e:
        e.use_sequence_length(T)
        with pytest.raises(TinyNNValueError, match=r"^t_seq must be 40 for a model in the per_head layout, got 8;"):
            e.use_sequence_length(8)
