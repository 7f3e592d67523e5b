"""If gradients are exchanged between the parts of a batch, a step has the same bytes as without parts."""

from __future__ import annotations

import random
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from engines import realized
from oracle.variants import Variant
from small_runs import config
from thread_processes import in_threads
from toynn import SmolLM2Config, TinyNNValueError
from toynn import tinynn as nn
from toynn.data.windows import WindowBatcher
from toynn.errors import SessionError
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.window_sums import largest_nodes
from toynn.parallel.processes import Processes
from toynn.storage.tensor_files import Tensors
from toynn.training import OptimizerArgs, StepArgs, TrainConfig
from toynn.training.parallel_step import ParallelSteps
from toynn.training.shares import share_of
from toynn.training.step import TrainingSteps

Sums: TypeAlias = dict[str, list[bytes]]

TIED = Variant(SmolLM2Config(127, 40, 4, 2, 72, 2, 512, 10000.0, 1e-5, head_dim=10), 7)
UNTIED = Variant(SmolLM2Config(61, 48, 6, 2, 96, 1, 512, 10000.0, 1e-5, head_dim=12), 33, 1, True, True)
# large enough that each node of the graph runs alone, not in a group of nodes (csrc/graph/groups.c)
LARGE = Variant(SmolLM2Config(600, 128, 4, 2, 352, 2, 512, 10000.0, 1e-5), 96)


def sums_of(engine: LlamaSeqEngine, name: str, first: int, n: int) -> list[bytes]:
    """Return the sums of a gradient in the windows first to first + n - 1: one sum for each node and each place."""
    size, places = engine.download_weight(name).size, engine.gradient_places()[name]
    return [engine.window_sum(*node, at, size).tobytes() for node in largest_nodes(first, n) for at in places]


@pytest.mark.parametrize(
    ("variant", "first", "batch", "recompute"),
    [
        (TIED, 0, 2, False),
        (TIED, 3, 3, False),
        (UNTIED, 2, 2, False),
        (TIED, 4, 2, True),
        (LARGE, 0, 2, False),
    ],
    ids=["tied", "three windows", "untied", "recompute", "large"],
)
def test_a_batch_in_parts_has_the_sums_of_a_whole_batch(
    variant: Variant, first: int, batch: int, recompute: bool
) -> None:
    """The step has two batches, so that the second one adds to stored sums. Parts end at random weights."""
    draw, n = np.random.default_rng(3), batch * variant.t_seq
    (ids, targets), (more_ids, more_targets) = (draw.integers(0, variant.cfg.vocab, (2, n)) for _ in range(2))
    model = {**variant.options, "t_batch": batch, "optimizer": "none"}
    with realized(variant.cfg, **model, n_threads=2) as e:
        e.build_training_step(batches=2, first_window=first, recompute=recompute)
        e.add_gradients(ids, targets, 2.0 * n)
        e.add_gradients(more_ids, more_targets, 2.0 * n, accumulate=True)
        losses = e.window_losses().tolist()
        whole = {name: sums_of(e, name, first, 2 * batch) for name in e.param_names()}
        assert len({sums[0] for sums in whole.values()}) == len(whole)  # all gradients differ
        for seed in range(3):
            names = random.Random(seed).sample(e.param_names(), 4)
            e.add_gradients(ids, targets, 2.0 * n)
            e.begin_gradients(more_ids, more_targets, 2.0 * n, accumulate=True)
            for name in names:
                e.continue_gradients(name)
                assert sums_of(e, name, first, 2 * batch) == whole[name], name
            e.continue_gradients()
            assert {name: sums_of(e, name, first, 2 * batch) for name in whole} == whole
            assert e.window_losses().tolist() == losses


def test_calls_in_the_wrong_order_are_refused() -> None:
    ids = list(range(7))
    with realized(TIED.cfg, **{**TIED.options, "optimizer": "none"}) as e:
        e.forward(ids)
        with pytest.raises(SessionError, match="begin_gradients needs a training graph"):
            e.begin_gradients(ids, ids, 7)
        e.build_training_step()
        last, early = "token_embd.weight", "blk.1.ffn_down.weight"
        with pytest.raises(SessionError, match="no batch has been begun; call tnn_begin_step first"):
            e.continue_gradients()
        e.begin_gradients(ids, ids, 7)
        with pytest.raises(TinyNNValueError, match="name must be the name of a weight"):
            e.continue_gradients("nothing")
        with pytest.raises(SessionError, match="belong to a gradient that is not complete; call tnn_continue_step"):
            sums_of(e, early, 0, 1)
        e.continue_gradients(early)
        assert sums_of(e, early, 0, 1)
        with pytest.raises(SessionError, match="belong to a gradient that is not complete"):
            sums_of(e, last, 0, 1)
        with pytest.raises(TinyNNValueError, match=r"t \(tok"):
            nn.tnn_continue_step(e.sess, e.t_seq_token_ids)
        e.add_gradients(ids, ids, 7)  # drops the batch that has begun
        want = sums_of(e, last, 0, 1)
        with pytest.raises(SessionError, match="no batch has been begun"):
            e.continue_gradients()
        e.begin_gradients(ids, ids, 7)
        nn.tnn_graph_reset(e.sess)
        with pytest.raises(SessionError, match="no batch has been begun"):
            e.continue_gradients()
        e.begin_gradients(ids, ids, 7)
        with pytest.raises(TinyNNValueError, match="seq_ids"):
            e.begin_gradients([*ids[1:], 127], ids, 7)
        e.continue_gradients(early)
        with pytest.raises(SessionError, match="adds to the gradients of an earlier call, but there are none"):
            e.add_gradients(ids, ids, 7, accumulate=True)  # the batch that was begun is not complete
        e.begin_gradients(ids, ids, 7)
        e.continue_gradients()
        assert sums_of(e, last, 0, 1) == want
        e.forward(ids)
        with pytest.raises(SessionError, match="no batch has been begun"):
            e.continue_gradients()
    with realized(TIED.cfg, **TIED.options) as e:
        t_loss, t_targets, t_hp = e.build_training_step()
        step = nn.TrainStep(e.t_seq_token_ids, t_targets, t_hp, t_loss)
        with pytest.raises(SessionError, match="to compute a batch in parts, each gradient must be flagged"):
            nn.tnn_begin_step(e.sess, step, ids, ids, np.zeros(7))


STEPS = 3
TOKENS = np.random.default_rng(8).integers(0, 127, 2000).astype(np.uint16)
MODEL = {"t_seq": 7, "seed": 3, "init_scale": 1.5}


def of_steps(kind: str, n_batches: int) -> TrainConfig:
    train = StepArgs(steps=STEPS, batch=12 // n_batches, accumulate=n_batches)
    return config(train=train, optimizer=OptimizerArgs(lr=1e-2, kind=kind, clip=0.05))


def state(engine: LlamaSeqEngine, moments: Tensors | dict[str, npt.NDArray[np.float32]]) -> dict[str, bytes]:
    weights = {name: engine.download_weight(name).tobytes() for name in engine.param_names()}
    return {**weights, **{name: moments[name].tobytes() for name in moments}}


def steps_of_one(settings: TrainConfig) -> tuple[dict[str, bytes], list[tuple[float, float]]]:
    """Return the weights and moments after the steps of one process, and the losses and norms."""
    kind = settings.optimizer.kind
    with realized(TIED.cfg, **MODEL, t_batch=settings.train.batch, optimizer=kind) as e:
        steps = TrainingSteps(e, WindowBatcher(TOKENS, 7, 1), settings, lambda: False)
        results = [steps.take(step) for step in range(1, STEPS + 1)]
        moments = {name: e.download_weight(name) for name in e.moment_names()}
        return state(e, moments), [(one.loss, one.gradient_norm) for one in results if one is not None]


@pytest.mark.parametrize(("kind", "n_batches", "n"), [("adamw", 1, 3), ("adamw", 3, 2), ("muon", 2, 2)])
def test_random_sizes_of_buckets_give_the_bytes_of_one_process(
    kind: str, n_batches: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand for processes. An exchange writes its results when the process waits for it."""
    settings = of_steps(kind, n_batches)
    want = steps_of_one(settings)
    sizes = random.Random(n_batches)

    def work(processes: Processes) -> tuple[dict[str, bytes], list[tuple[float, float]]]:
        share = share_of(settings.train, processes.rank, processes.n)
        with realized(TIED.cfg, **MODEL, t_batch=share.batch, optimizer="none") as e:
            steps = ParallelSteps(e, WindowBatcher(TOKENS, 7, 1), settings, processes, share, {})
            results = [steps.take(step) for step in range(1, STEPS + 1)]
            return state(e, steps.moments()), [(one.loss, one.gradient_norm) for one in results]

    for limit in (1, 1 << 22, *(sizes.randrange(100, 12_000) for _ in range(3))):
        monkeypatch.setattr("toynn.training.shares.bucket_limit", lambda _, limit=limit: limit)
        first, *others = in_threads(n, work)
        assert first == want, limit
        for one in others:
            assert not isinstance(one, Exception), one
            assert one[0] == {name: want[0][name] for name in one[0]}  # process 0 collects the moments
            assert one[1] == want[1]
