"""Thousands of sessions, threads and interrupts: memory does not grow, and no process crashes."""

from __future__ import annotations

import os

import pytest

from processes import run_with_toynn

# AddressSanitizer delays freeing memory, ends a process if AddressSanitizer's own allocations fail, and finds leaks.
without_asan = pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="AddressSanitizer changes the memory use")

# does_not_grow compares the resident memory after `few` repetitions, when caches are full, and after `many` more.
GROWTH = """
import gc
from pathlib import Path

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def does_not_grow(work, few, many, most=8 << 20):
    for _ in range(few):
        work()
    before = resident()
    for _ in range(many):
        work()
    grown = resident() - before
    assert grown < most, f"{grown} bytes after {many} repetitions"

CFG = SmolLM2Config.mha(300, 32, 4, 64, 2, 16, 10000.0, 1e-5)
HP = AdamW().hp(1)
"""

REPETITIONS = {
    "a session that is closed": """
        def work():
            s = Session(n_threads=1)
            nn.tnn_input_2d_f32_persistent(s, 64, 64)
            nn.tnn_finalize_weights(s)
            nn.tnn_input_1d_f32(s, 4096)
            s.close()
        does_not_grow(work, 300, 5000)
    """,
    "a session without references, in a cycle with its tensors": """
        def work():
            s = Session(n_threads=1)
            ring = [nn.tnn_input_2d_f32_persistent(s, 64, 64)]
            ring.append(ring)
            nn.tnn_finalize_weights(s)
        def many_times():
            for _ in range(25):
                work()
            gc.collect()
        does_not_grow(many_times, 20, 100)
    """,
    "a graph that is rebuilt, with losses, kernels and refusals": """
        s = Session(n_threads=1)
        w = nn.tnn_input_2d_f32_persistent(s, 16, 16)
        nn.tnn_set_param(w)
        nn.tnn_finalize_weights(s)
        def work():
            nn.tnn_reset_for_rebuild(s)
            targets, labels = nn.tnn_input_1d_i32(s, 16), nn.tnn_input_2d_f32(s, 16, 16)
            nn.tnn_cross_entropy_loss(s, w, labels)
            loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, w, [w]), targets, -1)
            for wrong in (lambda: nn.tnn_add(s, w, 3), lambda: nn.tnn_matmul(s, w, loss), lambda: nn.tnn_compute(s)):
                try:
                    wrong()
                except TinyNNError:
                    pass
                else:
                    raise SystemExit("a wrong call was accepted")
            nn.tnn_set_loss(loss)
            nn.tnn_build_forward_only(s, loss)
            nn.tnn_build_backward(s)
            nn.tnn_realize_backward(s)
            nn.tnn_upload_from_int_array(s, targets, [0] * 16)
            nn.tnn_graph_reset(s)
            nn.tnn_compute_backward(s)
        does_not_grow(work, 300, 5000)
    """,
    "an engine of either layout": """
        def work():
            for layout in ("per_head", "fused"):
                e = realized(CFG, layout=layout)
                e.forward([1, 2, 3, 4])
                e.build_training_step()
                e.close()
        does_not_grow(work, 20, 150)
    """,
    "a decoder, and its graphs": """
        weights = weights_of(realized(CFG))
        from toynn.llm.engine import LlamaDecoder
        def work():
            with LlamaDecoder(CFG, weights, untied=False, n_threads=1) as d:
                d.feed([1, 2, 3])
                d.feed([4])
                d.score([1, 2, 3, 4])
                try:
                    d.feed([1] * 17)
                except TinyNNValueError:
                    pass
        does_not_grow(work, 50, 500)
    """,
    "pools of threads": """
        s = Session(n_threads=1)
        w = nn.tnn_input_2d_f32_persistent(s, 16, 16)
        nn.tnn_finalize_weights(s)
        nn.tnn_realize(s, nn.tnn_scale(s, w, 2.0))
        def work():
            for n in (1, 2, 3):
                nn.tnn_session_set_n_threads(s, n, True)
                nn.tnn_compute(s)
        does_not_grow(work, 50, 500)
    """,
}


@without_asan
@pytest.mark.parametrize("name", REPETITIONS)
def test_memory_does_not_grow_with_repetitions(name: str) -> None:
    run_with_toynn(GROWTH + "\n" + "\n".join(line[8:] for line in REPETITIONS[name].splitlines()), timeout=600)


@pytest.mark.threads
def test_a_call_during_another_call_is_refused_and_does_not_replace_its_error() -> None:
    """A signal handler runs when a computation of its thread returns, before the error of the computation is read."""
    out = run_with_toynn("""
        s = slowly_refused()
        def handler(*_):
            try:
                nn.tnn_session_n_threads(s)
            except SessionError as error:
                print("inner:", error)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            nn.tnn_compute(s)
        except TinyNNValueError as error:
            print("outer:", error)
        print(nn.tnn_session_n_threads(s))
    """)
    inner, outer, after = out.splitlines()
    assert "in the middle of a call" in inner
    assert outer.startswith("outer: tnn_compute: ids")
    assert after == "1"


@pytest.mark.threads
def test_a_keyboard_interrupt_during_a_compute_is_raised_and_the_session_remains_usable() -> None:
    run_with_toynn("""
        import _thread, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
        s = Session(n_threads=1)
        w = nn.tnn_input_2d_f32_persistent(s, 128, 128)
        nn.tnn_finalize_weights(s)
        x = w
        for _ in range(12):
            x = nn.tnn_matmul(s, w, x)
        nn.tnn_set_output(x)
        nn.tnn_realize(s, x)
        arrived = 0
        for _ in range(8):
            timer = threading.Timer(0.02, _thread.interrupt_main)
            try:
                timer.start()
                while True:
                    nn.tnn_compute(s)
            except KeyboardInterrupt:
                arrived += 1
            timer.join()
        assert arrived == 8
        nn.tnn_compute(s)
        assert not nn.tnn_download(s, x).any()
    """)


@without_asan
@pytest.mark.threads
def test_memory_of_an_interrupted_close_is_freed_by_the_next_close_or_with_the_session() -> None:
    """The interrupt arrives in the middle of close(), which waits for a computation of another thread."""
    run_with_toynn(
        GROWTH
        + """
def interrupted():
    s = Session(n_threads=1)
    w = nn.tnn_input_2d_f32_persistent(s, 1024, 1024)
    nn.tnn_finalize_weights(s)
    nn.tnn_zero_tensor(s, w)
    owner, honest = s._native, type(s._native).settle
    def settle(self):
        type(owner).settle = honest
        raise KeyboardInterrupt
    type(owner).settle = settle
    try:
        s.close()
    except KeyboardInterrupt:
        return s
    raise SystemExit("close() was not interrupted")
does_not_grow(lambda: interrupted().close(), 3, 20)
does_not_grow(interrupted, 3, 20)
"""
    )


@pytest.mark.threads
def test_a_debugger_can_close_the_session_at_any_line_of_a_call() -> None:
    """The memory of the closed session is overwritten, so a call that read it would be detected."""
    out = run_with_toynn("""
        import sys
        junk = []
        def at_line(n, work):
            lines = 0
            def tracer(frame, event, argument):
                nonlocal lines
                if "toynn" not in frame.f_code.co_filename:
                    return None
                if event == "line":
                    lines += 1
                    if lines == n:
                        sys.settrace(None)
                        s.close()
                        junk.extend(bytearray(b"\\xff" * size) for size in range(600, 4000, 64))
                        return None
                return tracer
            sys.settrace(tracer)
            try:
                work()
                return lines, "done"
            except SessionError as error:
                return lines, str(error)
            finally:
                sys.settrace(None)
        n, outcomes = 0, set()
        while True:
            n += 1
            s = Session(n_threads=1)
            w = nn.tnn_input_2d_f32_persistent(s, 8, 8)
            nn.tnn_finalize_weights(s)
            lines, outcome = at_line(n, lambda: nn.tnn_tensor_nelements(w))
            outcomes.add(outcome)
            if lines < n:
                break
            assert s.closed
        print(n)
        print(*sorted(outcomes), sep="|")
    """)
    lines, outcomes = out.splitlines()
    assert int(lines) > 10
    assert outcomes == "done|the session is closed; make a new one"


@pytest.mark.threads
def test_threads_that_rebuild_compute_and_close_one_session_only_get_errors_of_toynn() -> None:
    run_with_toynn("""
        import random
        def worker(s, w, seed):
            pick = random.Random(seed)
            for _ in range(400):
                try:
                    step = pick.randrange(6)
                    if step == 0:
                        nn.tnn_reset_for_rebuild(s)
                    elif step == 1:
                        with s.exclusive():
                            nn.tnn_reset_for_rebuild(s)
                            y = nn.tnn_scale(s, w, 2.0)
                            nn.tnn_set_output(y)
                            nn.tnn_realize(s, y)
                            nn.tnn_compute(s)
                            assert (nn.tnn_download(s, y) == 2).all()
                    elif step == 2:
                        nn.tnn_realize(s, nn.tnn_silu(s, w))
                    elif step == 3:
                        nn.tnn_compute(s)
                    elif step == 4:
                        nn.tnn_graph_node(s, 0).name
                    elif pick.random() < 0.01:
                        s.close()
                except TinyNNError:
                    pass
        failed = []
        threading.excepthook = lambda args: failed.append(args.exc_value)
        for n in range(20):
            s = Session(n_threads=1)
            w = nn.tnn_input_2d_f32_persistent(s, 8, 8)
            nn.tnn_finalize_weights(s)
            nn.upload_row_major(s, w, np.ones((8, 8)))
            threads = [threading.Thread(target=worker, args=(s, w, 4 * n + i)) for i in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            s.close()
        assert not failed, failed
    """)


@pytest.mark.threads
def test_a_decoder_fed_by_threads_loses_no_token() -> None:
    run_with_toynn("""
        from toynn.llm.engine import LlamaDecoder
        cfg = SmolLM2Config.mha(300, 32, 4, 64, 2, 64, 10000.0, 1e-5)
        weights = weights_of(realized(cfg))
        for _ in range(30):
            d = LlamaDecoder(cfg, weights, untied=False, n_threads=1)
            fed, refused = [], []
            def feed():
                for _ in range(12):
                    try:
                        d.feed([1, 2, 3])
                        fed.append(3)
                    except TinyNNValueError as error:
                        assert "ids must hold at most" in str(error), error
                        refused.append(1)
            threads = [threading.Thread(target=feed) for _ in range(3)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert d.n_past == sum(fed) == 63, (d.n_past, sum(fed))
            assert len(fed) + len(refused) == 36
            d.close()
    """)


@without_asan
@pytest.mark.parametrize("what", ["plain", "per_head", "fused"])
def test_a_process_with_too_little_memory_gets_a_memory_error_and_no_signal(what: str) -> None:
    """The memory limits range from almost no memory to enough memory. The MemoryError can be toynn's or Python's."""
    script = """
        import sys
        CFG = SmolLM2Config.mha(300, 32, 4, 64, 3, 16, 1e4, 1e-5)
        def work(what):
            if what == "plain":
                s = Session(n_threads=2, oversubscribe=True)
                w = [nn.tnn_input_2d_f32_persistent(s, 8, 8) for _ in range(1100)]
                nn.tnn_set_param(w[0])
                nn.tnn_finalize_weights(s)
                x = w[0]
                for _ in range(500):
                    x = nn.tnn_scale(s, x, 1.0)
                loss = nn.tnn_sum(s, x)
                nn.tnn_set_loss(loss)
                nn.tnn_build_forward_only(s, loss)
                nn.tnn_build_backward(s)
                nn.tnn_realize_backward(s)
                nn.tnn_graph_reset(s)
                nn.tnn_compute_backward(s)
            else:
                e = realized(CFG, layout=what, t_seq=16, t_batch=2, n_threads=2)
                e.forward([1] * 32)
                e.build_training_step()
                if what == "fused":
                    e.train_step([1] * 32, [2] * 32, AdamW().hp(1))
                e.close()
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MORE, resource.getrlimit(resource.RLIMIT_AS)[1]))
        try:
            work("WHAT")
            print("done")
        except MemoryError as error:
            print("refused", type(error).__name__)
    """
    refused = 0
    for limit in range(0, 40 << 20, 2_500_000):
        out = run_with_toynn(script.replace("MORE", str(limit)).replace("WHAT", what))
        refused += out.startswith("refused")
    assert refused > 2
