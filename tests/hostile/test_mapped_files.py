"""If a file changes while weights are mapped from it, an exception names the file, and the process continues."""

from __future__ import annotations

import signal
import textwrap

import pytest

from processes import PRELUDE, run_python, run_with_toynn

MAPPED = """
import faulthandler, mmap, tempfile, time
from pathlib import Path

path = Path(tempfile.mkdtemp()) / "base.bin"
N = 1024  # rows and columns of a mapped matrix of ones

def write():
    path.write_bytes(np.ones((N, N), np.float32).tobytes())

def attached(n_threads=2):
    s = Session(n_threads=n_threads, oversubscribe=True)
    with path.open("rb") as file:
        nn.tnn_session_attach_weight_mmap(s, nn.MappedFile(file))
    w = nn.tnn_input_2d_persistent_mmap(s, N, N, nn.TNN_F32, 0)
    own = nn.tnn_input_1d_f32_persistent(s, 4)
    nn.tnn_finalize_weights(s)
    x = nn.tnn_input_2d_f32(s, 64, N)
    y = nn.tnn_matmul(s, w, x)
    nn.tnn_realize(s, y)
    nn.tnn_upload_from_float_array(s, x, np.ones((64, N)))
    return s, w, own, y

def raises(call, mentions):
    try:
        call()
    except MappedFileError as error:
        assert "base.bin" in str(error) and mentions in str(error), error
    else:
        raise AssertionError("no exception")

def computes(s, w, own, y):
    nn.tnn_compute(s)
    return nn.tnn_download(s, y).tolist() == [N] * N * 64

def use_until_it_fails(s, w, own, y):
    try:
        while True:
            nn.tnn_compute(s)
    except MappedFileError as error:
        assert "base.bin became shorter" in str(error), error

def read_beyond_the_end_of_another_file():
    with tempfile.TemporaryFile() as file:
        file.truncate(8192)
        other = mmap.mmap(file.fileno(), 8192, prot=mmap.PROT_READ)
        file.truncate(0)
        return other[5000]

write()
"""


@pytest.mark.threads
@pytest.mark.parametrize("below", ["", "faulthandler.enable()"], ids=["alone", "with faulthandler"])
def test_a_file_that_is_cut_during_computes_is_an_exception(below: str) -> None:
    script = """
    sessions = [attached(n) for n in (1, 2, 4)]
    assert all(computes(*one) for one in sessions)
    threads = [threading.Thread(target=use_until_it_fails, args=one) for one in sessions]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    os.truncate(path, 1 << 20)
    for thread in threads:
        thread.join()
    for s, w, own, y in sessions:
        raises(lambda: nn.tnn_compute(s), "became shorter")
        raises(lambda: nn.tnn_download(s, w), "became shorter")
        s.close()
    write()
    print(computes(*attached()))
    """
    assert run(script, below) == "True\n"


def test_missing_pages_are_replaced_and_reported() -> None:
    """The C call gets no descriptor, so that only the handler can detect that the file became shorter."""
    script = """
    from toynn.tinynn.native import ffi, lib
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    buffer = ffi.from_buffer("char[]", pages)
    sessions = []
    for n_threads in (1, 3):
        s = Session(n_threads=n_threads, oversubscribe=True)
        assert lib.tnn_session_attach_weight_mmap(s._native.pointer, buffer, len(pages), -1, b"base.bin") == lib.TNN_OK
        w = nn.tnn_input_2d_persistent_mmap(s, N, N, nn.TNN_F32, 0)
        nn.tnn_finalize_weights(s)
        y = nn.tnn_scale(s, w, 2.0)
        nn.tnn_realize(s, y)
        nn.tnn_compute(s)
        sessions.append((s, w, y))
    faulthandler.enable()  # the next compute puts the handler of the mapping before this one
    os.truncate(path, 1 << 20)
    for s, w, y in sessions:
        for call in (lambda: nn.tnn_compute(s), lambda: nn.tnn_compute(s), lambda: nn.tnn_download(s, w)):
            raises(call, "became shorter, or could not be read, while its tensors were in use")
        s.close()
    write()
    print(computes(*attached()))
    """
    assert run(script) == "True\n"


def test_a_change_is_found_before_the_next_use() -> None:
    script = """
    for change, mentions in (
        (lambda: os.truncate(path, N * N * 4 - 1), "became shorter"),  # in the last page, which still exists
        (lambda: os.truncate(path, N * N * 4 + 1), "was changed"),
        (lambda: (time.sleep(0.02), path.open("r+b").write(bytes(4))), "was changed"),
    ):
        write()
        time.sleep(0.02)
        s, w, own, y = attached()
        assert computes(s, w, own, y)
        nn.tnn_upload_from_float_array(s, own, [1, 2, 3, 4])
        change()
        raises(lambda: nn.tnn_compute(s), mentions)
        raises(lambda: nn.tnn_download(s, w), mentions)
        print(nn.tnn_download(s, own).tolist())  # what was not computed from the file stays
    """
    assert run(script) == "[1.0, 2.0, 3.0, 4.0]\n" * 3


def test_a_replaced_file_keeps_its_old_pages() -> None:
    script = """
    one = attached()
    other = path.with_name("new")
    other.write_bytes(bytes(100))
    os.replace(other, path)
    path.unlink()
    print(computes(*one))
    """
    assert run(script) == "True\n"


def test_values_that_a_changed_file_may_have_spoiled_cannot_be_downloaded() -> None:
    script = """
    s, w, own, y = attached()
    nn.tnn_upload_from_float_array(s, own, [1, 2, 3, 4])
    thread = threading.Thread(target=use_until_it_fails, args=(s, w, own, y))
    thread.start()
    time.sleep(0.02)
    os.truncate(path, 0)
    thread.join()
    # Either a compute read missing pages, or the next one was refused before it began.
    try:
        print(nn.tnn_download(s, own).tolist())
    except MappedFileError as error:
        assert "became shorter" in str(error)
        write()
        raises(lambda: nn.tnn_download(s, own), "base.bin")
        print([1.0, 2.0, 3.0, 4.0])
    """
    assert run(script) == "[1.0, 2.0, 3.0, 4.0]\n"


ENABLE, ATTACH, CLOSE = "faulthandler.enable()", "one = attached()", "attached()[0].close()"


@pytest.mark.parametrize(
    ("steps", "reports"),
    [((ATTACH,), 0), ((CLOSE,), 0), ((ENABLE, ATTACH), 1), ((ENABLE, CLOSE), 1), ((ATTACH, ENABLE), 1),
     ((ATTACH, ENABLE, "nn.tnn_compute(one[0])"), 1), ((ATTACH, ENABLE, "one[0].close()"), 1)],
)  # fmt: skip
def test_another_bus_error_still_ends_the_process(steps: tuple[str, ...], reports: int) -> None:
    """Python's faulthandler reports the error once, whether it was enabled before or after a file was attached."""
    script = "\n".join([*steps, "read_beyond_the_end_of_another_file()", "print('survived')"])
    done = run_python(PRELUDE + MAPPED + script)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")
    assert done.stderr.count("Fatal Python error: Bus error") == reports


def test_a_handler_of_the_caller_gets_other_signals_and_comes_back_when_all_files_are_detached() -> None:
    script = """
    got = []
    signal.signal(signal.SIGBUS, lambda number, frame: got.append(number))
    s, *_ = attached()
    os.kill(os.getpid(), signal.SIGBUS)
    time.sleep(0.01)
    signal.raise_signal(signal.SIGBUS)
    s.close()
    os.kill(os.getpid(), signal.SIGBUS)
    signal.signal(signal.SIGBUS, signal.SIG_IGN)
    s, *_ = attached()
    os.kill(os.getpid(), signal.SIGBUS)
    s.close()
    print(len(got), signal.getsignal(signal.SIGBUS) == signal.SIG_IGN)
    """
    assert run(script) == "3 True\n"


def test_a_signal_that_another_process_sends_ends_the_process_as_before() -> None:
    done = run_python(PRELUDE + MAPPED + "one = attached()\nos.kill(os.getpid(), signal.SIGBUS)\nprint('survived')")
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")


def test_a_forked_child_survives_and_leaves_the_parent_its_mapping() -> None:
    script = """
    import gc
    s, w, own, y = attached()
    child = os.fork()
    if child == 0:
        try:
            nn.tnn_compute(s)
        except SessionError:
            s.close()
            del s, w, own, y
            gc.collect()
            os._exit(7 if computes(*attached()) else 1)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), computes(s, w, own, y))
    """
    assert run(script) == "7 True\n"


def test_a_daemon_thread_that_computes_at_the_end_of_the_interpreter_is_safe() -> None:
    script = """
    one = attached()
    threading.Thread(target=use_until_it_fails, args=one, daemon=True).start()
    time.sleep(0.05)
    print("end")
    """
    assert run(script) == "end\n"


def run(script: str, before: str = "") -> str:
    """Run the code of MAPPED and then a script, and return the output."""
    return run_with_toynn(f"import faulthandler\n{before}\n" + MAPPED + textwrap.dedent(script))
