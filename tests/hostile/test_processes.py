"""Forks, signals and memory limits around a call. Each test uses a child process, so that a crash is a failure."""

from __future__ import annotations

import pytest

from processes import run_with_toynn


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the system has no fork")
def test_a_child_forked_while_threads_create_sessions_can_create_its_own() -> None:
    """ggml protects its contexts with a lock. A child process that inherits a locked lock would wait forever."""
    out = run_with_toynn(
        """
        def loop():
            while True:
                s = Session(n_threads=1)
                nn.tnn_finalize_weights(s)
                for _ in range(50):
                    nn.tnn_input_1d_f32(s, 4)
                    nn.tnn_reset_for_rebuild(s)
                s.close()
        for _ in range(4):
            threading.Thread(target=loop, daemon=True).start()
        for n in range(1500):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                s = Session(n_threads=1)
                nn.tnn_finalize_weights(s)
                nn.tnn_input_1d_f32(s, 4)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0, f"the child of fork {n} hung"
        print("forked", n + 1)
        os._exit(0 if n == 1499 else 1)
    """,
        timeout=900,
    )
    assert out == "" or "forked" in out


@pytest.mark.threads
def test_a_signal_handler_can_close_the_session_that_its_thread_computes_with() -> None:
    """The session is freed only after the call. So the error message of the call is not read from freed memory."""
    out = run_with_toynn("""
        s = slowly_refused()
        junk = []
        def close(*_):
            s.close()
            junk.extend(bytearray(b"\\xff" * n) for n in range(600, 4000, 8))
        signal.signal(signal.SIGALRM, close)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            nn.tnn_compute(s)
        except TinyNNValueError as error:
            print(error)
        print(s.closed)
        try:
            nn.tnn_compute(s)
        except SessionError as error:
            print(error)
    """)
    first, closed, second = out.splitlines()
    assert first.startswith("tnn_compute: ids")
    assert "contains row" in first
    assert closed == "True"
    assert second == "the session is closed; make a new one"


def test_a_graph_that_ran_out_of_memory_can_be_realized_again() -> None:
    run_with_toynn("""
        s = Session(n_threads=1)
        w = nn.tnn_input_2d_f32_persistent(s, 4096, 4096)
        nn.tnn_finalize_weights(s)
        out = nn.tnn_scale(s, w, 2.0)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), limits[1]))
        try:
            nn.tnn_realize(s, out)
        except MemoryError as error:
            assert "tensors" in str(error)
        else:
            raise SystemExit("the limit on memory had no effect")
        resource.setrlimit(resource.RLIMIT_AS, limits)
        nn.tnn_realize(s, out)
        nn.tnn_compute(s)
        assert not nn.tnn_download(s, out).any()
    """)


@pytest.mark.threads
def test_concatenating_many_tensors_fits_in_a_small_thread_stack() -> None:
    run_with_toynn("""
        threading.stack_size(32768)
        s = Session(n_threads=1)
        w = nn.tnn_input_2d_f32_persistent(s, 3, 4)
        nn.tnn_finalize_weights(s)
        done = []
        def concat():
            done.append(nn.tnn_concat_n(s, [w] * 100, 0))
        t = threading.Thread(target=concat)
        t.start()
        t.join()
        assert nn.tnn_tensor_ne0(done[0]) == 400
    """)


@pytest.mark.parametrize(
    "call",
    [
        "SmolLM2Config.mha(10**5000, 12, 3, 20, 2, 16, 1e4, 1e-5)",
        "RecipeOptions(t_seq=10**5000)",
        "AdamW().hp(10**5000)",
        "TrainingBatch(10, 4).fill([1, 2, 3, 10**5000])",
        "labels.targets([1, 2, 3, 10**5000], 5, 4, 1)",
        "TrainingBatch(10, 4).fill([[1], [2, 3]])",
        "TrainingBatch(10, 4).fill([1, 2, 3, 4], [[1], [2, 3]])",
    ],
)
def test_numbers_too_long_to_print_and_ragged_lists_raise_errors_that_name_the_argument(call: str) -> None:
    out = run_with_toynn(f"""
        try:
            {call}
        except TinyNNError as error:
            print(error)
    """)
    assert out.split()[0] in ("vocab", "t_seq", "step", "seq_ids", "m_hp")


def test_a_frozen_configuration_with_changed_fields_is_checked_again() -> None:
    out = run_with_toynn("""
        for field, value in (("n_kv", 0), ("n_kv", -1), ("d_ff", 0), ("n_layers", -1), ("rope_scaling", None)):
            for layout in ("per_head", "fused"):
                cfg = SmolLM2Config.tiny()
                object.__setattr__(cfg, field, value)
                try:
                    FromScratch().realize(cfg, RecipeOptions(t_seq=4, layout=layout))
                except TinyNNError as error:
                    print(field, str(error)[:40])
    """)
    assert len(out.splitlines()) == 10


def test_names_that_are_not_strings_are_refused() -> None:
    run_with_toynn("""
        e = realized(SmolLM2Config.tiny(), layout="per_head")
        e.build_training_step(pin=True)
        for call in (e.gradient, e.download_weight, e.download_tap):
            for name in ([], {}, 3, None):
                try:
                    call(name)
                except TinyNNTypeError as error:
                    assert "name must be a str" in str(error), error
                else:
                    raise SystemExit(f"{call} accepted {name!r}")
    """)
