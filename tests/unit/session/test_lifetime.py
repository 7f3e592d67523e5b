"""The lifetime of sessions, their threads, forks, and the import of the extension."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from toynn import Session, SessionError, TinyNNTypeError, TinyNNValueError
from toynn import tinynn as nn
from toynn.tinynn import native

pytestmark = pytest.mark.quick


def test_a_session_may_be_closed_twice_and_its_use_after_close_is_an_error() -> None:
    s = Session(n_threads=1)
    t = nn.tnn_input_1d_f32_persistent(s, 3)
    s.close()
    s.close()
    nn.tnn_session_free(s)
    assert s.closed
    assert "closed" in repr(t)
    with pytest.raises(SessionError, match="closed"):
        nn.tnn_finalize_weights(s)
    with pytest.raises(SessionError, match="closed"), s:
        pass


def test_garbage_collection_frees_a_session_when_no_tensor_is_left() -> None:
    s = Session(n_threads=1)
    t = nn.tnn_input_1d_f32_persistent(s, 3)
    gone = weakref.ref(s)
    del s
    gc.collect()
    assert gone() is not None
    assert t.ne[0] == 3
    del t
    gc.collect()
    assert gone() is None


@pytest.mark.threads
def test_closing_from_another_thread_waits_for_the_call_in_progress() -> None:
    s = Session(n_threads=1)
    closing = threading.Thread(target=s.close)
    with s.exclusive():
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        assert not s.closed
    closing.join(10)
    assert s.closed


@pytest.mark.threads
def test_many_threads_may_call_one_session() -> None:
    failures: list[BaseException] = []
    with Session(n_threads=1) as s:
        t = nn.tnn_input_1d_f32_persistent(s, 64)
        nn.tnn_finalize_weights(s)
        out = nn.tnn_scale(s, t, 2.0)
        nn.tnn_set_output(out)
        nn.tnn_realize(s, out)

        def work(value: int) -> None:
            try:
                for _ in range(50):
                    with s.exclusive():
                        nn.tnn_upload_from_float_array(s, t, np.full(64, value))
                        nn.tnn_compute(s)
                        assert nn.tnn_download(s, out)[0] == 2 * value
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_cannot_use_the_session_of_its_parent() -> None:
    code = """
import os
from toynn import Session, SessionError, tinynn as nn
s = Session(n_threads=1)
t = nn.tnn_input_1d_f32_persistent(s, 3)
nn.tnn_finalize_weights(s)
pid = os.fork()
if pid == 0:
    try:
        nn.tnn_download(s, t)
    except SessionError as error:
        assert "fork" in str(error), error
        s.close()
        with Session(n_threads=1) as own:
            nn.tnn_input_1d_f32_persistent(own, 3)
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert nn.tnn_download(s, t).tolist() == [0, 0, 0]
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.threads
def test_the_interpreter_ends_cleanly_with_sessions_alive_and_a_thread_computing() -> None:
    code = """
import threading, time
from toynn import Session, tinynn as nn
kept = []
for _ in range(3):
    s = Session()
    t = nn.tnn_input_2d_f32_persistent(s, 256, 256)
    nn.tnn_finalize_weights(s)
    out = nn.tnn_matmul(s, t, t)
    nn.tnn_set_output(out)
    nn.tnn_realize(s, out)
    kept.append((s, t, out))
def work():
    while True:
        nn.tnn_compute(s)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
    run = subprocess.run([sys.executable, "-c", code], timeout=60, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_thread_count_is_the_argument_or_the_environment_variable_or_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TOYNN_OVERSUBSCRIBE", raising=False)
    monkeypatch.delenv("TOYNN_N_THREADS", raising=False)
    cores = nn.tnn_available_cores()
    with Session() as s:
        assert nn.tnn_session_n_threads(s) == cores
    monkeypatch.setenv("TOYNN_N_THREADS", "1")
    with Session() as s:
        assert nn.tnn_session_n_threads(s) == 1
    with Session(n_threads=cores) as s:
        assert nn.tnn_session_n_threads(s) == cores
    monkeypatch.setenv("TOYNN_N_THREADS", str(cores + 1))
    with pytest.raises(TinyNNValueError, match=f"TOYNN_N_THREADS must be at most {cores} .* got {cores + 1}"):
        Session()
    with pytest.raises(TinyNNValueError, match=f"n_threads must be at most {cores} .* got {cores + 1}"):
        Session(n_threads=cores + 1)
    with Session(n_threads=cores + 1, oversubscribe=True) as s:
        assert nn.tnn_session_n_threads(s) == cores + 1
    monkeypatch.setenv("TOYNN_OVERSUBSCRIBE", "1")
    with Session() as s:
        assert nn.tnn_session_n_threads(s) == cores + 1


@pytest.mark.parametrize("value", ["two", "-1", "0", "1.5", "99999999999999999999"])
def test_an_invalid_thread_count_in_the_environment_is_refused_by_name(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOYNN_N_THREADS", value)
    with pytest.raises(TinyNNValueError, match="TOYNN_N_THREADS"):
        Session()


@pytest.mark.parametrize("value", ["1000000000", "9" * 5000])
def test_a_thread_count_above_the_cores_is_refused_and_leading_zeros_are_accepted(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOYNN_OVERSUBSCRIBE", raising=False)
    monkeypatch.setenv("TOYNN_N_THREADS", value)
    with pytest.raises(
        TinyNNValueError,
        match=r"TOYNN_N_THREADS must be at most \d+ .* got [19]\d+$",
    ):
        Session()
    monkeypatch.setenv("TOYNN_N_THREADS", "00000000000001")
    with Session() as s:
        assert nn.tnn_session_n_threads(s) == 1


def test_oversubscribe_in_the_environment_must_be_0_or_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYNN_OVERSUBSCRIBE", "yes")
    with pytest.raises(TinyNNValueError, match="TOYNN_OVERSUBSCRIBE"):
        Session()


def test_every_call_of_the_header_has_a_python_function() -> None:
    from toynn import _tinynn

    calls = {name for name in dir(_tinynn.lib) if name.startswith("tnn_")}
    assert calls, "the extension exports nothing"
    assert calls <= set(nn.__all__)


def test_a_cpu_without_the_required_features_gets_an_import_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unfit:
        @staticmethod
        def tnn_cpu_missing() -> object:
            return native.ffi.new("char[]", b"avx2 fma")

        tnn_profile = staticmethod(native.lib.tnn_profile)

    monkeypatch.setattr(native, "lib", Unfit)
    with pytest.raises(ImportError, match=rf"{nn.tnn_profile()}.*lacks avx2 fma.*TOYNN_NATIVE=ON"):
        native._refuse_unfit_cpu()


def test_an_object_that_is_not_a_session_is_refused_by_name() -> None:
    with pytest.raises(TinyNNTypeError, match="s must be a Session"):
        nn.tnn_finalize_weights(object())  # type: ignore[arg-type]


def test_the_error_of_a_session_that_was_never_opened_says_so() -> None:
    class Unopened(Session):
        def __init__(self) -> None:
            pass

    s = Unopened()
    assert s.closed
    s.close()
    with pytest.raises(SessionError, match="never opened"):
        nn.tnn_session_n_threads(s)


def test_a_session_cannot_be_copied_or_pickled() -> None:
    with Session(n_threads=1) as s:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TinyNNTypeError, match="copied or pickled"):
                attempt(s)
