"""The operations of sweep_allocations.py: every kind of call that allocates, on models with a few hundred weights.

The function `act` of each operation can be called again after a MemoryError. It then continues with the first call that
has not succeeded yet, as the program of a user would.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from engines import realize, realized, weights_of
from operation import Operation
from session_calls import CALLS, OTHERS, STEPS, Desk, make
from toynn import AdamW, LlamaSeqEngine, RecipeOptions, Session, SmolLM2Config, Tensor
from toynn import tinynn as nn
from toynn.llm.engine import LlamaDecoder

T, B = 8, 2
CFG = SmolLM2Config.mha(40, 8, 2, 16, 2, 64, 10000.0, 1e-5)
IDS = np.arange(T * B, dtype=np.int32) % 40
TARGETS = (IDS + 1) % 40
LABELS = np.eye(40, dtype=np.float32)[TARGETS]
HP = AdamW(lr=0.01).hp(1)


# ---------------------------------------------------------------- sessions


class Declaring:
    """Declare weights, upload and download. Weights that already exist are not declared again."""

    def __init__(self) -> None:
        self.session = Session(n_threads=1)
        self.tensors: list[Tensor] = []
        self.finalized = False

    def act(self) -> bytes:
        s = self.session
        while len(self.tensors) < 1100:  # more tensors than fit in one ggml context or in the first table of handles
            self.tensors.append(nn.tnn_input_1d_f32_persistent(s, 4))
        if not self.finalized:
            nn.tnn_finalize_weights(s)
            self.finalized = True
        values = np.arange(4, dtype=np.float32)
        nn.upload_row_major(s, self.tensors[-1], values[None])
        return nn.tnn_download(s, self.tensors[-1]).tobytes() + str(nn.tnn_session_weights_nbytes(s)).encode()


class Mapped:
    """Attach a file, declare quantized weights in it, and compute with them."""

    def __init__(self) -> None:
        self.session = Session(n_threads=1)
        with tempfile.TemporaryFile() as file:
            file.write(bytes([0, 20, *range(32)]) * 100)  # blocks of Q8_0: a scale in f16, and 32 bytes
            file.flush()
            self.file = nn.MappedFile(file, "a file")
        self.tensors: list[Tensor] = []
        self.finalized = False

    def act(self) -> bytes:
        s = self.session
        if not self.tensors:
            nn.tnn_session_attach_weight_mmap(s, self.file)
        while len(self.tensors) < 300:  # more tensors than fit in the first table of handles
            self.tensors.append(nn.tnn_input_2d_persistent_mmap(s, 4, 64, 8, 34 * (len(self.tensors) % 90)))
        if not self.finalized:
            nn.tnn_finalize_weights(s)
            self.finalized = True
        nn.tnn_reset_for_rebuild(s)
        x = nn.tnn_input_2d_f32(s, 3, 64)
        both = nn.tnn_add(
            s, nn.tnn_matmul(s, self.tensors[0], x), nn.tnn_fused_linear(s, x, [self.tensors[1]], None, None)
        )
        nn.tnn_realize(s, both)
        nn.upload_row_major(s, x, np.ones((3, 64)))
        nn.tnn_compute(s)
        return nn.tnn_download(s, both).tobytes() + nn.tnn_download(s, self.tensors[299]).tobytes()


def session_act(_: object) -> bytes:
    with Session(n_threads=1) as s:
        return str(nn.tnn_session_n_threads(s)).encode()


def in_a_new_thread(act: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Return a function that runs the given function in a thread that has never called toynn."""

    def started(state: Any) -> bytes:
        results: list[bytes | MemoryError] = []

        def run() -> None:
            try:
                results.append(act(state))
            except MemoryError as error:
                results.append(error.with_traceback(None))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(results[0], MemoryError):
            raise results[0]
        return results[0]

    return started


class Chain:
    """A graph of ggml's own operators. Calls that succeeded are not repeated."""

    def __init__(self, kind: str, n_threads: int) -> None:
        self.kind = kind
        s = self.session = Session(n_threads=n_threads, oversubscribe=True)
        self.w = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.m = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.v = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        nn.tnn_set_param(self.w)
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, self.w, np.arange(16, dtype=np.float32).reshape(4, 4) / 16)
        self.made: dict[str, Any] = {}

    def once(self, name: str, call: Callable[[], Any]) -> Any:
        if name not in self.made:
            self.made[name] = call()
        return self.made[name]

    def act(self) -> bytes:
        s = self.session
        x = self.w
        for i in range(300):  # more tensors than fit in the first table of handles, and in the stack of tnn__expand
            x = self.once(f"x{i}", partial(nn.tnn_scale, s, x, 1.0))
        out = self.once("sum", lambda: nn.tnn_sum(s, x))
        if self.kind == "forward":
            self.once("realize", lambda: nn.tnn_realize(s, out))
            nn.tnn_compute(s)
            return nn.tnn_download(s, out).tobytes() + str(nn.tnn_session_compute_nbytes(s)).encode()
        self.once("output", lambda: nn.tnn_set_output(out))
        self.once("loss", lambda: nn.tnn_set_loss(out))
        self.once("forward", lambda: nn.tnn_build_forward_only(s, out))
        self.once("backward", lambda: nn.tnn_build_backward(s))
        hp = self.once("hp", lambda: nn.tnn_input_1d_f32(s, 7))
        grad = self.once("grad", lambda: nn.tnn_tensor_grad(s, self.w))
        step = self.once("step", lambda: nn.tnn_opt_step_adamw(s, self.w, grad, self.m, self.v, hp))
        self.once("extend", lambda: nn.tnn_extend_backward_graph(s, step))
        self.once("realize", lambda: nn.tnn_realize_backward(s))
        nn.upload_row_major(s, hp, HP)
        self.once("reset", lambda: nn.tnn_graph_reset(s))
        self.once("compute", lambda: nn.tnn_compute_backward(s))
        both = nn.tnn_download(s, out), nn.tnn_download(s, self.w)
        return b"".join(a.tobytes() for a in both) + str(nn.tnn_session_compute_nbytes(s)).encode()


class Rows(Chain):
    """Operators that allocate memory when they are called or computed."""

    def __init__(self) -> None:
        super().__init__("rows", 1)
        self.ids = nn.tnn_input_1d_i32(self.session, 400)  # sorting 400 ids allocates memory

    def act(self) -> bytes:
        s = self.session
        halves = [self.w, self.m, self.v, self.w] * 25
        table = self.once("concat", lambda: nn.tnn_concat_n(s, halves, 1))  # ne=[4, 400]
        values = self.once("scale", lambda: nn.tnn_scale(s, table, 3.0))
        out = self.once("set", lambda: nn.tnn_set_rows(s, table, values, self.ids))
        self.once("realize", lambda: nn.tnn_realize(s, out))
        nn.upload_int_array(s, self.ids, np.arange(400, dtype=np.int32)[::-1])
        nn.tnn_compute(s)
        return nn.tnn_download(s, out).tobytes()


class Calling:
    """Make each call of session_calls.py with valid arguments, so that a new call is tested here too."""

    def __init__(self) -> None:
        self.plain, self.trained = Desk(), Desk()
        self.trained.train()
        calls = [(self.plain, call) for call in (*CALLS.values(), *OTHERS.values())]
        calls += [(self.trained, call) for call in STEPS.values()]
        self.made = [(desk, *call(desk)) for desk, call in calls]
        self.results: list[str] = []

    def act(self) -> bytes:
        for desk, function, arguments in self.made[len(self.results) :]:
            result = make(function, desk.s, arguments)
            self.results.append(f"{function.__name__} {result.ne if isinstance(result, Tensor) else result}")
        return "\n".join(self.results).encode()

    def close(self) -> None:
        self.plain.s.close()
        self.trained.s.close()


# ---------------------------------------------------------------- engines


SIZES: dict[str, Any] = {"t_seq": T, "t_batch": B, "qkv_bias": True}


def weights(engine: LlamaSeqEngine) -> bytes:
    return b"".join(engine.download_weight(name).tobytes() for name in engine.weights)


def opened(layout: str, n_threads: int, dtype: int = 0) -> Callable[[], LlamaSeqEngine]:
    def make() -> LlamaSeqEngine:
        return realized(CFG, layout=layout, n_threads=n_threads, weight_dtype=dtype, **SIZES)

    return make


def trained(layout: str, n_threads: int, **options: Any) -> Callable[[], LlamaSeqEngine]:
    """Return a function that makes a realized training graph.

    The graph has not computed yet, so it has no threads and no scratch memory.
    """

    def make() -> LlamaSeqEngine:
        engine = opened(layout, n_threads)()
        engine.build_training_step(**options)
        return engine

    return make


def realize_act(layout: str) -> Callable[[LlamaSeqEngine], bytes]:
    def act(engine: LlamaSeqEngine) -> bytes:
        if not engine.realized:
            realize(engine, CFG, layout=layout, **SIZES)
        return weights(engine)

    return act


def finetune_act(state: tuple[LlamaSeqEngine, dict[str, Any]]) -> bytes:
    engine, given = state
    if not engine.realized:
        engine.realize(CFG, RecipeOptions(T, B, qkv_bias=True, n_threads=1, layout="fused"), given)
    return weights(engine)


def build_act(**options: Any) -> Callable[[LlamaSeqEngine], bytes]:
    def act(engine: LlamaSeqEngine) -> bytes:
        engine.build_training_step(**options)
        return f"{nn.tnn_session_compute_nbytes(engine.sess)} {nn.tnn_graph_n_nodes(engine.sess)}".encode()

    return act


def fused_step_act(clip: bool = False) -> Callable[[LlamaSeqEngine], bytes]:
    def act(engine: LlamaSeqEngine) -> bytes:
        given: dict[str, Any] = {"max_norm": 0.5} if clip else {}
        return repr(engine.train_step(IDS, TARGETS, HP, reset_moments=True, **given)).encode() + weights(engine)

    return act


def batches_act(engine: LlamaSeqEngine) -> bytes:
    """Take a step of three batches. The first two store sums for the next batch."""
    results = [
        engine.train_step(IDS, TARGETS, HP, reset_moments=i == 0, accumulate=i > 0, update=i == 2, loss_divisor=30.0)
        for i in range(3)
    ]
    return repr(results).encode() + weights(engine)


def per_head_step_act(engine: LlamaSeqEngine) -> bytes:
    s = engine.sess
    loss, (labels, hp) = engine.training_loss, (engine.made_labels, engine.made_hp)  # type: ignore[attr-defined]
    assert loss is not None
    nn.upload_int_array(s, engine.t_seq_token_ids, IDS)
    nn.upload_int_array(s, engine.t_seq_positions, np.tile(np.arange(T, dtype=np.int32), B))
    nn.upload_row_major(s, labels, LABELS)
    nn.upload_row_major(s, hp, HP)
    nn.tnn_graph_reset(s)
    nn.tnn_compute_backward(s)
    return nn.tnn_download(s, loss).tobytes() + weights(engine)


def per_head_trained(n_threads: int) -> Callable[[], LlamaSeqEngine]:
    class Engine(LlamaSeqEngine):
        made_labels: Tensor
        made_hp: Tensor

    def make() -> LlamaSeqEngine:
        engine = Engine()
        realize(engine, CFG, layout="per_head", n_threads=n_threads, **SIZES)
        _, engine.made_labels, engine.made_hp = engine.build_training_step()
        return engine

    return make


def profile_act(engine: LlamaSeqEngine) -> bytes:
    engine.train_step(IDS, TARGETS, HP, reset_moments=True, update=False)
    nn.tnn_graph_reset(engine.sess)
    seconds = nn.tnn_compute_profiled(engine.sess)
    return str(len(seconds)).encode() + weights(engine)


def more_threads_act(engine: LlamaSeqEngine) -> bytes:
    nn.tnn_session_set_n_threads(engine.sess, 3, oversubscribe=True)
    return engine.forward(IDS).tobytes()


def move_act(engine: LlamaSeqEngine) -> bytes:
    for name in engine.weights:
        engine.upload_weight(name, engine.download_weight(name))
    return weights(engine)


# ---------------------------------------------------------------- decoders


def decoder_weights() -> dict[str, Any]:
    with opened("fused", 1)() as engine:
        return weights_of(engine)


class Reading:
    """A decoder, which is opened when it is first used."""

    def __init__(self, n_threads: int, given: dict[str, Any]) -> None:
        self.n_threads = n_threads
        self.given = given
        self.decoder: LlamaDecoder | None = None

    def open(self) -> LlamaDecoder:
        if self.decoder is None:
            self.decoder = LlamaDecoder(
                CFG, self.given, untied=False, qkv_bias=True, n_threads=self.n_threads, oversubscribe=True
            )
        return self.decoder

    @classmethod
    def new(cls, n_threads: int, given: dict[str, Any]) -> Reading:
        reading = cls(n_threads, given)
        reading.open()
        return reading

    def feed(self) -> bytes:
        decoder = self.open()
        decoder.rewind(min(decoder.n_past, 5))
        if decoder.n_past < 5:
            decoder.rewind(0)
            decoder.feed(IDS[:5])
        return decoder.feed(IDS[5:6]).tobytes() + decoder.feed(IDS[6:9]).tobytes()

    def score(self) -> bytes:
        return self.open().score(IDS).tobytes()

    def close(self) -> None:
        if self.decoder is not None:
            self.decoder.close()


def close(state: Any) -> None:
    state.close()


def close_session(state: Any) -> None:
    state.session.close()


def operations() -> dict[str, Operation]:
    given = decoder_weights()
    found = {
        "session": Operation(lambda: None, session_act, lambda _: None),
        "session in a new thread": Operation(lambda: None, in_a_new_thread(session_act), lambda _: None),
        "concat and set_rows": Operation(Rows, Rows.act, close_session),
        "each call as it should be": Operation(Calling, Calling.act, Calling.close),
        "declare, upload, download": Operation(Declaring, Declaring.act, close_session),
        "attach a file and compute": Operation(Mapped, Mapped.act, close_session),
        "finetune from given weights": Operation(
            lambda: (LlamaSeqEngine(), given), finetune_act, lambda state: state[0].close()
        ),
        "half weights, forward": Operation(opened("per_head", 1, 1), lambda e: e.forward(IDS).tobytes(), close),
        "half weights, build": Operation(opened("per_head", 1, 30), build_act(), close),
        "step with clipping": Operation(trained("fused", 1, clip=True), fused_step_act(clip=True), close),
        "step of three batches": Operation(trained("fused", 1, keep_gradients=True), batches_act, close),
        "profile": Operation(trained("fused", 2), profile_act, close),
        "more threads": Operation(opened("fused", 2), more_threads_act, close),
        "upload and download of weights": Operation(opened("per_head", 1), move_act, close),
        "mean loss": Operation(opened("fused", 1), lambda e: repr(e.mean_loss(IDS, TARGETS)).encode(), close),
        "decoder, open": Operation(lambda: Reading(1, given), Reading.feed, close),
    }
    for n in (1, 2):
        threads = f"{n} thread" + "s" * (n > 1)
        for kind in ("forward", "training"):
            found[f"{kind} chain, {threads}"] = Operation(partial(Chain, kind, n), Chain.act, close_session)
        found[f"fused step, {threads}"] = Operation(trained("fused", n), fused_step_act(), close)
        found[f"per_head step, {threads}"] = Operation(per_head_trained(n), per_head_step_act, close)
        found[f"fused step in a new thread, {threads}"] = Operation(
            trained("fused", n), in_a_new_thread(fused_step_act()), close
        )
        found[f"decoder, feed, {threads}"] = Operation(partial(Reading.new, n, given), Reading.feed, close)
        found[f"decoder, score, {threads}"] = Operation(partial(Reading.new, n, given), Reading.score, close)
    for layout in ("per_head", "fused"):
        found[f"realize {layout}"] = Operation(LlamaSeqEngine, realize_act(layout), close)
        found[f"build {layout}"] = Operation(opened(layout, 1), build_act(), close)
        found[f"build {layout}, pinned"] = Operation(opened(layout, 1), build_act(pin=True), close)
        found[f"forward {layout}"] = Operation(opened(layout, 2), lambda e: e.forward(IDS).tobytes(), close)
    return found


OPERATIONS = operations()
