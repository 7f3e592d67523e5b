"""Fuzz toynn.tinynn with a hypothesis state machine.

    python tools/fuzz/fuzz_machine.py [--seconds 60] [--batches N] [--seed S]

If a call crashes, hangs, returns a wrong number or raises an exception of another library, the script ends with exit
status 1. It prints the calls of the failing example, and the seed of its batch; `--seed S --batches 1` repeats the
batch. Unless the process crashed, hypothesis shrinks the example first.

Hypothesis chooses each call among all calls of the module, and chooses for each call one of several sessions (open,
closed, or with another graph). fuzz_rounds.py is faster and compares bytes between variants. Both scripts choose
arguments with tools/fuzz/fuzz_arguments.py.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import reprlib
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TextIO

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from fuzz_session import PLAIN, VARIANTS, Round, computes
from fuzz_watch import END, LIMIT, add_options, passed_on, watch
from toynn import Session, TinyNNError
from toynn import tinynn as nn
from toynn.tinynn import Tensor

EXAMPLES, STEPS = 20, 40  # number of examples per batch, and number of steps per example
MOST_SESSIONS = 4


def public_calls() -> dict[str, Callable[..., Any]]:
    """Return the public functions and classes of toynn.tinynn by name."""
    every = {name: getattr(nn, name) for name in nn.__all__ if callable(getattr(nn, name))}
    return {name: call for name, call in every.items() if name == call.__name__}  # aliases are left out


CALLS = public_calls()
# Valid values of arguments by name. They are chosen more often than other values.
LIKELY: dict[str, list[Any]] = {
    "kind": [0, 0, 1], "dtype": [nn.TNN_F32, nn.TNN_F16, nn.TNN_BF16], "mode": [0, 2], "i": [0, 1], "dim": [0, 1],
    "name": ["v8", "blk.0.attn_q.weight"], "n_threads": [None, 1, 2],
}  # fmt: skip
# A random.Random that hypothesis seeds. Hypothesis does not choose each number itself, because it prefers extreme
# values, which would make most calls fail.
PICKS = st.randoms(use_true_random=True)


class Played(Round):
    """A round on several sessions. It writes its calls to a journal, which still exists after a crash."""

    def __init__(self, journal: TextIO, counts: Counter[str]) -> None:
        self.journal, self.counts = journal, counts  # super().__init__ makes a call, which needs these attributes
        journal.seek(0)
        journal.truncate()
        super().__init__(0)
        self.sessions = [self.session, self.other]
        self.tensors_of: dict[Session, list[Tensor]] = {}
        self.operand: Any = None  # the last tensor argument of this call

    def switch_to(self, session: Session, *, foreign: bool = False) -> None:
        """Continue on another session, with its own tensors or, if foreign, with the previous session's tensors."""
        self.tensors_of[self.session] = self.tensors
        self.session = session
        if not foreign:
            self.tensors = self.tensors_of.get(session, [])

    def a_session(self) -> Any:
        if self.random.random() < 0.9:
            return self.session
        return self.random.choice([*self.sessions, None, 7, nn.Session.__new__(nn.Session)])

    def argument(self, annotation: str, name: str) -> Any:
        if name in LIKELY and self.random.random() < 0.6:
            return self.random.choice(LIKELY[name])
        return super().argument(annotation, name)

    def tensor(self) -> Any:
        self.operand = super().tensor()
        return self.operand

    def array(self, name: str) -> Any:
        """Return an array, preferably as long as the tensor for which it is used."""
        goes_with = getattr(self.step, name, self.operand)
        if not isinstance(goes_with, Tensor) or self.random.random() < 0.3:
            return super().array(name)
        tensors, self.tensors = self.tensors, [goes_with] * 4
        try:
            return super().array(name)
        finally:
            self.tensors = tensors

    def attempt(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        shown = ", ".join([*map(_shown, arguments), *(f"{name}={_shown(value)}" for name, value in options.items())])
        self.journal.write(f"{function.__name__}({shown})\n")
        self.journal.flush()
        result = super().attempt(function, *arguments, **options)
        refused = isinstance(result, TinyNNError)
        self.counts[f"{function.__name__} {'refused' if refused else 'done'}"] += 1
        if refused and not str(result):
            raise AssertionError(f"{function.__name__} raised {result!r} without a message")
        return result


def _shown(value: Any) -> str:
    return (
        f"<tensor {value.handle:#x}>" if isinstance(value, Tensor) and hasattr(value, "handle") else reprlib.repr(value)
    )


class SessionMachine(RuleBasedStateMachine):
    """Calls in any order. After each step, a separate session (the witness) must still compute correctly."""

    journal: TextIO
    counts: ClassVar[Counter[str]] = Counter()
    witness: Session | None = None

    def __init__(self) -> None:
        super().__init__()
        self.played = Played(self.journal, self.counts)

    @initialize(how=st.sampled_from(["plain", "fused", "empty"]), pick=PICKS)
    def begin(self, how: str, pick: random.Random) -> None:
        self._begin(how, pick)

    def _begin(self, how: str, pick: random.Random) -> None:
        self.played.random = pick
        if how == "plain":
            self.played.start()
        elif how == "fused":
            self.played.start_fused()

    @rule(names=st.lists(st.sampled_from(sorted(CALLS)), min_size=1, max_size=8), pick=PICKS)
    def calls(self, names: list[str], pick: random.Random) -> None:
        self.played.random = pick
        if self.played.session.closed and pick.random() < 0.8:
            self.another_session(pick)
        for name in names:
            result = self.played.call(CALLS[name])
            if isinstance(result, Session):
                self._keep(result)

    @rule(pick=PICKS)
    def an_operator_whose_operands_fit(self, pick: random.Random) -> None:
        self.played.random = pick
        self.played.grow()

    @rule(pick=PICKS)
    def a_whole_graph(self, pick: random.Random) -> None:
        self.played.random = pick
        self.played.variant = pick.choice([PLAIN, *VARIANTS])
        self.played.run_graph()

    @rule(pick=PICKS)
    def a_training_step(self, pick: random.Random) -> None:
        """Train the fused model, on its training graph or on the current graph."""
        played = self.played
        played.random = pick
        if played.step is None:
            return
        if pick.random() < 0.5:
            played.training_graph(played.step.loss)
            played.feed()
        alive = [t for t in played.tensors if isinstance(t, Tensor) and played.alive(t)]
        hps = [played.step.hp, *[t for t in alive if t.ne == (7, 1, 1, 1)][-2:]]
        for hp in hps if pick.random() < 0.3 else hps[:1]:
            played.train(replace(played.step, hp=hp))

    @rule(pick=PICKS)
    def uploaded_integers_are_downloaded(self, pick: random.Random) -> None:
        played, s = self.played, self.played.session
        for t in [t for t in played.tensors if isinstance(t, Tensor) and played.alive(t)]:
            if nn.tnn_tensor_dtype(t) == nn.TNN_I32 and math.prod(t.ne) < 1000:
                numbers = [pick.choice([0, 1, 2, -1, 2**31 - 1, -(2**31)]) for _ in range(math.prod(t.ne))]
                upload: Any = pick.choice([nn.tnn_upload_from_int_array, nn.upload_int_array])
                if not isinstance(played.attempt(upload, s, t, numbers), TinyNNError):
                    assert played.attempt(nn.tnn_download_to_int_array, s, t).tolist() == numbers

    @rule()
    def the_next_graph(self) -> None:
        """Start the next graph, with two inputs for the operators."""
        played, s = self.played, self.played.session
        if isinstance(played.attempt(nn.tnn_reset_for_rebuild, s), TinyNNError):
            played.attempt(nn.tnn_finalize_weights, s)
        for make in (nn.tnn_input_1d_i32, nn.tnn_input_1d_f32):
            made = played.attempt(make, s, 3)
            played.tensors += [made] if isinstance(made, Tensor) else []

    @rule(pick=PICKS)
    def another_session(self, pick: random.Random) -> None:
        """Switch to an open, a closed or a new session, sometimes with tensors of the previous session."""
        played = self.played
        if pick.random() < 0.5 or played.session.closed:
            self._keep(played.attempt(nn.tnn_session_new, n_threads=1))
            played.switch_to(played.sessions[-1])
            self._begin(pick.choice(["plain", "fused", "empty"]), pick)
        else:
            played.switch_to(pick.choice(played.sessions), foreign=pick.random() < 0.2)

    def _keep(self, session: Session) -> None:
        """Add a session. If there are too many sessions, close the oldest session."""
        played = self.played
        played.sessions.append(session)
        if len(played.sessions) > MOST_SESSIONS:
            played.sessions.pop(0).close()

    @invariant()
    def another_session_computes(self) -> None:
        if SessionMachine.witness is None:
            SessionMachine.witness = nn.tnn_session_new(n_threads=1)
            nn.tnn_finalize_weights(SessionMachine.witness)
        nn.tnn_reset_for_rebuild(SessionMachine.witness)
        computes(SessionMachine.witness)

    def teardown(self) -> None:
        for session in self.played.sessions:
            self.played.session = session
            self.played.finish()


def batches(first: int, most: int, seconds: float, journal: str, sabotage: str, shrink: bool) -> None:
    """Run batches one after the other, in the child. Print the seed before each batch."""
    if "ASAN_OPTIONS" not in os.environ:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, resource.getrlimit(resource.RLIMIT_AS)[1]))
    wanted = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
    )  # fmt: skip
    if sabotage:
        _sabotage(sabotage)
    done, end = 0, time.monotonic() + seconds
    with Path(journal).open("w", encoding="utf-8", errors="backslashreplace") as SessionMachine.journal:
        while done < most and (time.monotonic() < end or done == 0):
            print("seed", first + done, flush=True)
            run_state_machine_as_test(seed(first + done)(SessionMachine), settings=wanted)
            done += 1
    counts = SessionMachine.counts
    names = {key.split()[0] for key in counts}
    succeeded = {key.split()[0] for key in counts if key.endswith(" done")}
    refused = sum(n for key, n in counts.items() if key.endswith(" refused"))
    print(f"{done} batches of {EXAMPLES} examples from seed {first}: {counts.total()} calls of {len(names)} functions")
    print(f"and classes, {refused} of them refused")
    print("never called:", *sorted(set(CALLS) - names))
    print("never succeeded:", *sorted(names - succeeded))
    print(END)


def _sabotage(what: str) -> None:
    """Make a call abort, raise, or return a wrong number, to test that the fuzzer detects such faults."""
    honest = nn.tnn_scale

    def tnn_silu(s: Session, a: Tensor) -> None:
        if what == "abort":
            os.abort()
        raise ZeroDivisionError

    def tnn_scale(s: Session, a: Tensor, factor: float) -> Tensor:
        return honest(s, a, 3.0)

    if what == "wrong":
        nn.tnn_scale = tnn_scale
    else:
        CALLS["tnn_silu"] = tnn_silu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, "batch", patience=300)
    parser.add_argument("--child", default="", metavar="JOURNAL", help=argparse.SUPPRESS)
    parser.add_argument("--sabotage", default="", help=argparse.SUPPRESS)
    parser.add_argument("--as-found", action="store_true", help="Do not shrink a failing example.")
    options = parser.parse_args()
    if options.child:
        shrink = not options.as_found
        batches(options.seed, options.most, options.seconds, options.child, options.sabotage, shrink)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "calls"
        arguments = [str(journal), *passed_on(options, "batch"), "--sabotage", options.sabotage]
        arguments += ["--as-found"] if options.as_found else []
        outcome = watch(__file__, arguments, options.patience)
        print(outcome.output)
        if not outcome.succeeded:
            print("The calls of the last example:", journal.read_text(encoding="utf-8"), sep="\n")
            print(f"To repeat the batch: {sys.executable} {__file__} --seed {outcome.seed} --batches 1")
    return 0 if outcome.succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
