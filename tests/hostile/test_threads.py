"""Sessions in many threads: one session per thread, a session shared by mistake, and a session closed during a call.

`make sanitize-threads` runs this file with ThreadSanitizer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from engines import realize, realized, weights_of
from toynn import AdamW, FromScratch, LlamaDecoder, LlamaSeqEngine, RecipeOptions, SessionError, SmolLM2Config, labels
from toynn import tinynn as nn

pytestmark = pytest.mark.threads

CFG = SmolLM2Config.mha(61, 16, 2, 24, 2, 16, 10000.0, 1e-5)
IDS = [(7 * i + 3) % 61 for i in range(8)]
LAYOUTS = ("per_head", "fused")


def in_threads(works: list[Callable[[], Any]]) -> list[Any]:
    """Run the functions in parallel threads that start together. Return their results, or raise the first exception."""
    results: list[Any] = [None] * len(works)
    failed: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def run(i: int) -> None:
        try:
            gate.wait(60)
            results[i] = works[i]()
        except BaseException as failure:
            failed.append(failure)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "a thread hung for 300 s"
    if failed:
        raise failed[0]
    return results


def training(layout: str, seed: int, steps: int) -> list[float]:
    """Train a new recipe and return its losses."""
    with FromScratch() as recipe:
        recipe.realize(CFG, RecipeOptions(t_seq=8, seed=seed, layout=layout, n_threads=1))
        rows = labels.targets(IDS, 61, 8, 1) if layout == "fused" else labels.next_token(IDS, 61, 8, 1)
        return [recipe.step(IDS, range(8), rows, AdamW().hp(step), step == 1) for step in range(1, steps + 1)]


def refused_or_done(work: Callable[[], object]) -> str:
    """Return the message of the SessionError that a function raises, or "" if the function succeeds."""
    try:
        work()
    except SessionError as error:
        return str(error)
    return ""


def engine(layout: str = "fused", n_threads: int = 2) -> LlamaSeqEngine:
    """Return an engine with its own thread pool, also on a machine with one core."""
    return realized(CFG, layout=layout, t_seq=8, n_threads=n_threads)


# ---- one session per thread ----


def test_runs_in_parallel_threads_have_the_same_losses_as_single_runs() -> None:
    kinds = [(layout, seed) for layout in LAYOUTS for seed in range(3)]
    alone = [training(layout, seed, 12) for layout, seed in kinds]
    assert in_threads([partial(training, layout, seed, 12) for layout, seed in kinds]) == alone


def test_engines_with_their_own_thread_pools_do_not_affect_each_other() -> None:
    def forwards(n_threads: int) -> bytes:
        with engine("fused", n_threads) as own:
            return b"".join(own.forward(IDS).tobytes() for _ in range(10))

    assert len(set(in_threads([partial(forwards, n) for n in (1, 2, 3, 2, 1)]))) == 1


def test_sessions_of_parallel_threads_refuse_each_others_handles() -> None:
    def live(n: int) -> int:
        foreign = 0
        for _ in range(40):
            with nn.Session(n_threads=1) as s, nn.Session(n_threads=1) as other:
                t = nn.tnn_input_1d_f32_persistent(s, n)
                nn.tnn_finalize_weights(s)
                nn.tnn_finalize_weights(other)
                nn.tnn_realize(s, nn.tnn_scale(s, t, 2.0))
                nn.tnn_compute(s)
                assert nn.tnn_download(s, t).shape == (n,)
                with pytest.raises(SessionError, match="another session"):
                    nn.tnn_scale(other, t, 2.0)
                foreign += 1
        return foreign

    assert in_threads([partial(live, n) for n in range(1, 7)]) == [40] * 6


def test_the_matrix_product_kernel_can_be_changed_while_other_threads_compute() -> None:
    names = [name for i in range(2) if (name := nn.tnn_gemm_kernel_at(i)) is not None]
    before = nn.tnn_gemm_kernel()

    def change() -> list[float]:
        for i in range(200):
            nn.tnn_gemm_use_kernel(names[i % len(names)])
        return []

    try:
        *losses, _ = in_threads([lambda: training("fused", 0, 12)] * 3 + [change])
    finally:
        nn.tnn_gemm_use_kernel(before)
    assert losses == [training("fused", 0, 12)] * 3


# ---- one session shared by mistake ----


def test_threads_that_train_one_engine_take_turns_and_lose_no_step() -> None:
    """All threads use the same batch and hyperparameters, so the losses equal those of a single thread."""

    def steps(own: LlamaSeqEngine, n: int) -> list[float]:
        wanted = labels.targets(IDS, 61, 8, 1)
        return [own.train_step(IDS, wanted, AdamW().hp(1))[0] for _ in range(n)]

    with engine() as alone, engine() as shared:
        for one in (alone, shared):
            one.build_training_step()
        taken = [loss for part in in_threads([lambda: steps(shared, 10)] * 4) for loss in part]
        assert sorted(taken) == sorted(steps(alone, 40))
        for name in alone.weights:
            assert shared.download_weight(name).tobytes() == alone.download_weight(name).tobytes()


def test_threads_that_train_and_evaluate_one_engine_get_correct_results_or_errors() -> None:
    """forward() drops the training graph, so a step after it is refused with the reason."""
    with engine() as shared:
        expected = shared.forward(IDS).tobytes()
        wanted = labels.targets(IDS, 61, 8, 1)

        def evaluate() -> int:
            return sum(shared.forward(IDS).tobytes() == expected for _ in range(30))

        def train() -> int:
            messages = [refused_or_done(step) for _ in range(30)]
            assert all("graph" in message or "train_step needs" in message for message in messages if message), messages
            return len(messages)

        def step() -> None:
            shared.build_training_step()
            shared.train_step(IDS, wanted, AdamW(lr=0.0).hp(1))

        assert in_threads([evaluate, evaluate, train, train]) == [30, 30, 30, 30]


# ---- a session that is closed while threads compute ----


def session_work() -> tuple[Callable[[], object], Callable[[], object]]:
    s = nn.Session(n_threads=2, oversubscribe=True)
    w = nn.tnn_input_2d_f32_persistent(s, 64, 64)
    nn.tnn_finalize_weights(s)
    x = w
    for _ in range(8):
        x = nn.tnn_matmul(s, w, x)
    nn.tnn_realize(s, x)
    return lambda: nn.tnn_compute(s), s.close


def engine_work() -> tuple[Callable[[], object], Callable[[], object]]:
    opened = engine()
    opened.build_training_step()
    wanted = labels.targets(IDS, 61, 8, 1)
    return lambda: opened.train_step(IDS, wanted, AdamW().hp(1)), opened.close


def forward_work() -> tuple[Callable[[], object], Callable[[], object]]:
    opened = engine("per_head")
    return lambda: opened.forward(IDS), opened.close


def recipe_work() -> tuple[Callable[[], object], Callable[[], object]]:
    recipe = FromScratch()
    recipe.realize(CFG, RecipeOptions(t_seq=8, n_threads=1))
    rows = labels.next_token(IDS, 61, 8, 1)
    return lambda: recipe.step(IDS, range(8), rows, AdamW().hp(1), True), recipe.close


def decoder_work() -> tuple[Callable[[], object], Callable[[], object]]:
    with engine() as source:
        weights = weights_of(source)
    decoder = LlamaDecoder(CFG, weights, untied=False, n_threads=2, oversubscribe=True)

    def work() -> None:
        decoder.rewind()
        decoder.feed(IDS)

    return work, decoder.close


@pytest.mark.parametrize("make", [session_work, engine_work, forward_work, recipe_work, decoder_work])
def test_closing_while_threads_compute_raises_a_session_error_in_each(
    make: Callable[[], tuple[Callable[[], object], Callable[[], object]]],
) -> None:
    for patience in np.linspace(0, 0.02, 6):
        work, close = make()
        begun = threading.Event()

        def until_closed(work: Callable[[], object] = work, begun: threading.Event = begun) -> str:
            while not (message := refused_or_done(work)):
                begun.set()
            return message

        def close_meanwhile(
            close: Callable[[], object] = close, begun: threading.Event = begun, patience: float = patience
        ) -> str:
            assert begun.wait(60)
            threading.Event().wait(patience)
            close()
            close()
            return "closed"

        *messages, closed = in_threads([until_closed, until_closed, close_meanwhile])
        assert closed == "closed"
        for message in messages:
            assert "closed" in message or "realize" in message, message


def test_an_engine_that_was_closed_during_a_graph_build_can_be_realized_again() -> None:
    opened = engine("per_head", 1)
    for _ in range(12):
        begun = threading.Event()

        def until_closed(begun: threading.Event = begun) -> None:
            taps = True
            while not refused_or_done(partial(opened.forward, IDS, taps=taps)):
                begun.set()
                taps = not taps  # another value makes forward() drop the graph and build a new one

        def close(begun: threading.Event = begun) -> None:
            assert begun.wait(60)
            opened.close()

        in_threads([until_closed, close])
        realize(opened, CFG, layout="per_head", t_seq=8)
        assert np.isfinite(opened.forward(IDS)).all()
        assert np.isfinite(opened.forward(IDS, taps=False)).all()
    opened.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a thread to a core")
def test_threads_that_wait_give_their_core_to_the_thread_that_they_wait_for() -> None:
    """If waiting threads kept their core, each barrier between nodes would take whole time slices of 1 to 4 ms."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # the threads of a session inherit the core to which this thread is bound
    try:
        with realized(CFG, t_seq=8, untied=True, n_threads=4) as engine:
            engine.forward(IDS)
            before = time.process_time()
            for _ in range(20):
                engine.forward(IDS)
            seconds = (time.process_time() - before) / 20
    finally:
        os.sched_setaffinity(0, cores)
    assert seconds < 0.05
