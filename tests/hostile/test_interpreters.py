"""When the interpreter ends, and in sub-interpreters, toynn works or raises an error, and never crashes."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from processes import run_with_toynn

pytestmark = pytest.mark.threads

SUB_INTERPRETER = """
    try:
        import _interpreters as interpreters  # CPython 3.13 and later
    except ImportError:
        import _xxsubinterpreters as interpreters
    import sys, warnings
    created = interpreters.create(ARGUMENTS)
    done = interpreters.run_string(created, '''if True:
        import sys
        sys.path[:] = PATH
        for _ in range(2):
            try:
                import toynn
            except ImportError as error:
                print("refused:", error, flush=True)
            else:
                print("imported", flush=True)
        print("numpy" in sys.modules, "_cffi_backend" in sys.modules, flush=True)
    '''.replace("PATH", repr(sys.path)))
    assert done is None, done
    interpreters.destroy(created)
    from toynn import FromScratch, RecipeOptions, SmolLM2Config
    FromScratch().realize(SmolLM2Config.tiny(), RecipeOptions(t_seq=4))
    print("works")
"""


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("first", ["", "import toynn"])
def test_a_sub_interpreter_cannot_import_toynn_and_the_main_interpreter_still_works(first: str, isolated: bool) -> None:
    """The test covers a sub-interpreter with its own or a shared GIL (as in mod_wsgi), before and after the import."""
    if sys.version_info >= (3, 13):
        arguments = "'isolated'" if isolated else "'legacy'"
    else:
        arguments = f"isolated={isolated}"
    script = first + textwrap.dedent(SUB_INTERPRETER)
    done = subprocess.run(
        [sys.executable, "-c", script.replace("ARGUMENTS", arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    once, again, modules, after = done.stdout.splitlines()
    assert once == again
    assert once.startswith("refused: toynn works in a process's main interpreter only")
    assert "processes instead" in once
    assert (modules, after) == ("False False", "works")


def test_the_interpreter_can_end_while_daemon_threads_compute() -> None:
    """When the interpreter ends, each thread is in the middle of a computation that uses ggml's threads."""
    for _ in range(3):
        run_with_toynn("""
            import sys, time
            CFG = SmolLM2Config.mha(300, 64, 4, 128, 2, 128, 1e4, 1e-5)
            ids, wanted, hp = [7] * 128, [9] * 128, AdamW().hp(1)

            layouts = ("fused", "per_head", "per_head")
            fused, per_head, forward = (realized(CFG, layout=layout, t_seq=128, n_threads=2) for layout in layouts)
            fused.build_training_step()
            per_head.build_training_step()
            decoder = LlamaDecoder(CFG, weights_of(fused), untied=False, n_threads=2, oversubscribe=True)
            recipe = FromScratch()
            recipe.realize(CFG, RecipeOptions(t_seq=4, layout="fused", n_threads=1))
            ring = [recipe, recipe.fs_t_loss]
            ring.append(ring)

            def decode():
                decoder.rewind()
                decoder.feed(ids[:100])

            computed = [0, 0, 0]
            def forever(i, work):
                try:
                    while True:
                        work()
                        computed[i] += 1
                except SessionError:
                    pass  # closed at the end of the interpreter

            for i, work in enumerate((lambda: fused.train_step(ids, wanted, hp), lambda: forward.forward(ids), decode)):
                threading.Thread(target=forever, args=(i, work), daemon=True).start()
            while min(computed) < 2:
                time.sleep(0.001)
            sys.exit(0)
        """)


def test_the_end_of_the_interpreter_does_not_wait_for_a_sleeping_thread_that_holds_a_session() -> None:
    run_with_toynn("""
        import time
        s, other = Session(n_threads=1), Session(n_threads=1)
        held = threading.Event()
        def hold():
            with s.exclusive():
                held.set()
                time.sleep(3600)
        threading.Thread(target=hold, daemon=True).start()
        held.wait()
    """)


def test_the_interpreter_can_end_while_threads_create_sessions() -> None:
    """All sessions are closed, although threads create new sessions.

    Python's weakref module may print its own errors.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent("""
            import sys, threading, time
            from toynn import Session, SessionError
            sys.setswitchinterval(1e-6)
            made = threading.Event()
            def loop():
                try:
                    while True:
                        few = [Session(n_threads=1) for _ in range(20)]
                        made.set()
                except SessionError:
                    pass  # "the interpreter is ending"
            for _ in range(4):
                threading.Thread(target=loop, daemon=True).start()
            many = [Session(n_threads=1) for _ in range(3000)]
            made.wait()
        """)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "toynn" not in done.stderr


def test_a_daemon_thread_cannot_create_a_session_while_the_interpreter_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent("""
            import atexit, threading
            late, printed = threading.Event(), threading.Event()
            @atexit.register
            def after():  # registered before toynn's own, so it runs after
                late.set()
                printed.wait(60)
            from toynn import Session, SessionError
            def wait():
                late.wait()
                try:
                    Session(n_threads=1)
                except SessionError as error:
                    print(error)
                printed.set()
            threading.Thread(target=wait, daemon=True).start()
        """)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a daemon thread cannot make a session while the interpreter is ending\n"
    assert done.stderr == ""


def test_an_exit_handler_that_runs_after_sessions_are_closed_gets_a_session_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent("""
            import atexit
            kept = []
            @atexit.register
            def late():  # registered before toynn's own, so it runs after
                from toynn import SessionError, Session, tinynn as nn
                try:
                    nn.tnn_compute(kept[0])
                except SessionError as error:
                    print(error)
                kept[0].close()
                with Session(n_threads=1) as s:
                    print(nn.tnn_session_n_threads(s))
                print(s.closed)
            import toynn
            kept.append(toynn.Session(n_threads=1))
        """)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["the session is closed; make a new one", "1", "True", ""]
    assert done.stderr == ""
