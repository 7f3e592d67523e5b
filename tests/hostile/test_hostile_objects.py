"""Arguments whose methods raise or misbehave: the errors are toynn's own and name the argument."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engines import realized, weights_of
from processes import run_with_toynn
from toynn import (
    AdamW,
    RecipeOptions,
    Session,
    SessionError,
    SmolLM2Config,
    Tensor,
    TinyNNError,
    TinyNNMemoryError,
    TinyNNTypeError,
    TinyNNValueError,
    TrainingBatch,
    labels,
)
from toynn import tinynn as nn
from toynn.data import WindowBatcher
from toynn.llm import layouts
from toynn.llm.engine import LlamaDecoder
from toynn.text.sampling import Sampling, choices, generate

CFG = SmolLM2Config.mha(23, 12, 3, 20, 2, 16, 10000.0, 1e-5)


class RaisingArray:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise self.error


class RaisingIndex:
    def __index__(self) -> int:
        raise ZeroDivisionError("index")


class RaisingInt(int):
    def __int__(self) -> int:
        raise ZeroDivisionError("int")


class RaisingFloat(float):
    def __float__(self) -> float:
        raise ZeroDivisionError("float")


class RaisingSequence:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> int:
        raise ZeroDivisionError("item")


class EndlessSequence:
    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, i: int) -> int:
        return 1


@pytest.fixture
def s() -> Any:
    with Session(n_threads=1) as session:
        yield session


@pytest.fixture
def w(s: Session) -> Tensor:
    tensor = nn.tnn_input_2d_f32_persistent(s, 3, 4)
    nn.tnn_finalize_weights(s)
    return tensor


def itself() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


TAKES_AN_ARRAY: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "TrainingBatch.fill": ("seq_ids", lambda value: TrainingBatch(10, 4).fill(value)),
    "TrainingBatch.fill, m_hp": ("m_hp", lambda value: TrainingBatch(10, 4).fill([1, 2, 3, 4], value)),
    "labels.targets": ("seq_ids", lambda value: labels.targets(value, 10, 4, 1)),
    "choices": ("logits", lambda value: choices(value, Sampling())),
}


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("z"), RuntimeError("r"), MemoryError("m"), TypeError("t"), ValueError("v"), OSError("o"),
     AttributeError("a"), RecursionError("x"), StopIteration("s")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_an_exception_in_an_array_argument_is_the_cause_of_an_error_that_names_it(
    s: Session, w: Tensor, error: BaseException
) -> None:
    calls = {
        **TAKES_AN_ARRAY,
        "upload float": ("data", lambda value: nn.tnn_upload_from_float_array(s, w, value)),
        "upload int": ("data", lambda value: nn.tnn_upload_from_int_array(s, w, value)),
        "upload rows": ("m", lambda value: nn.upload_row_major(s, w, value)),
    }
    for call, (name, function) in calls.items():
        with pytest.raises(TinyNNError, match=f"^{name}") as raised:
            function(RaisingArray(error))
        assert raised.value.__cause__ is error, call
        assert isinstance(raised.value, MemoryError) == isinstance(error, MemoryError), call


def test_a_keyboard_interrupt_in_an_array_argument_is_raised(s: Session, w: Tensor) -> None:
    with pytest.raises(KeyboardInterrupt):
        nn.tnn_upload_from_float_array(s, w, RaisingArray(KeyboardInterrupt()))
    nn.tnn_upload_from_float_array(s, w, np.ones(12))


@pytest.mark.parametrize(
    "value", [RaisingSequence(), EndlessSequence(), itself(), "abc", {1}, [[1], [1, 2]], [object()]]
)
def test_the_error_for_a_value_that_is_not_an_array_names_the_argument(s: Session, w: Tensor, value: Any) -> None:
    for name, function in TAKES_AN_ARRAY.values():
        with pytest.raises(TinyNNError, match=f"^{name}"):
            function(value)
    with pytest.raises(TinyNNError, match=r"^data"):
        nn.tnn_upload_from_float_array(s, w, value)


def test_an_int_subclass_is_accepted_and_other_objects_are_refused_by_name(s: Session, w: Tensor) -> None:
    assert nn.tnn_input_1d_f32(s, RaisingInt(5)).ne == (5, 1, 1, 1)
    with pytest.raises(TinyNNTypeError, match=r"^factor"):
        nn.tnn_scale(s, w, RaisingFloat(2.0))
    with pytest.raises(TinyNNTypeError, match=r"^lr"):
        AdamW(lr=RaisingFloat(2.0))
    with pytest.raises(TinyNNTypeError, match=r"^lr"):
        AdamW(lr=np.ma.masked)  # type: ignore[arg-type]
    with pytest.raises(TinyNNTypeError, match=r"^t_seq"):
        RecipeOptions(t_seq=RaisingIndex()).validate()  # type: ignore[arg-type]
    with pytest.raises(TinyNNTypeError, match=r"^t_seq"):
        RecipeOptions(t_seq=[10**5000]).validate()  # type: ignore[arg-type]
    with pytest.raises(TinyNNTypeError, match=r"^vocab"):
        labels.targets([1, 2, 3, 4], RaisingIndex(), 4, 1)  # type: ignore[arg-type]


def test_an_upload_whose_array_closes_the_session_is_refused() -> None:
    class Closing:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            session.close()
            return np.ones((3, 4), dtype=np.float32)

    for upload in (nn.tnn_upload_from_float_array, nn.upload_row_major):
        session = Session(n_threads=1)
        w = nn.tnn_input_2d_f32_persistent(session, 3, 4)
        nn.tnn_finalize_weights(session)
        with pytest.raises(SessionError, match="closed"):
            upload(session, w, Closing())


def test_a_dtype_changed_during_the_call_does_not_change_the_checked_length() -> None:
    """During the call, an array of four int32 becomes sixteen int8. C must still read only four integers."""
    with Session(n_threads=1) as s:
        table, head, m, v = (nn.tnn_input_2d_f32_persistent(s, 4, 1) for _ in range(4))
        nn.tnn_set_param(table)
        nn.tnn_finalize_weights(s)
        ids, targets, hp = nn.tnn_input_1d_i32(s, 16), nn.tnn_input_1d_i32(s, 16), nn.tnn_input_1d_f32(s, 7)
        logits = nn.tnn_fused_linear(s, nn.tnn_get_rows(s, table, ids), [head])
        loss = nn.tnn_fused_cross_entropy(s, logits, targets, -1)
        nn.tnn_set_output(loss)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)
        step = nn.tnn_fused_adamw(s, table, nn.tnn_tensor_grad(s, table), m, v, hp)
        nn.tnn_extend_backward_graph(s, step)
        nn.tnn_realize_backward(s)
        four = np.zeros(4, dtype=np.int32)

        class Changing:
            def __array__(self, *_: object, **__: object) -> np.ndarray:
                setattr(four, "dtype", np.int8)  # noqa: B010  # mypy and numpy's stubs know it as read-only
                return np.zeros(16, dtype=np.int32)

        tensors = nn.TrainStep(ids, targets, hp, loss)
        with pytest.raises(TinyNNValueError, match="targets must hold 4 numbers, as many as ids, got 16"):
            nn.tnn_train_step(s, tensors, four, Changing(), np.zeros(7))


def test_overridden_methods_of_a_str_subclass_have_no_effect(s: Session, w: Tensor) -> None:
    class Loud(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

        def __contains__(self, part: object) -> bool:
            raise ZeroDivisionError

        def encode(self, *_: object) -> Any:
            return 3

        def __repr__(self) -> str:
            raise ZeroDivisionError

    class Meta(type):
        def no_name(cls) -> str:
            raise ZeroDivisionError

        locals()["__name__"] = property(no_name)

    class Nameless(metaclass=Meta):
        pass

    nn.tnn_tensor_set_name(w, Loud("w"))
    assert w.name == "w"
    with pytest.raises(TinyNNValueError, match=r"^name must not contain a NUL"):
        nn.tnn_tensor_set_name(w, Loud("a\0b"))
    with pytest.raises(TinyNNValueError, match=r"^name must be one of"):
        nn.tnn_gemm_use_kernel(Loud("v9"))
    with pytest.raises(TinyNNTypeError, match=r"^factor must be a number"):
        nn.tnn_scale(s, w, Nameless())  # type: ignore[arg-type]


def test_a_tensor_is_immutable(w: Tensor) -> None:
    for name, value in (("handle", "x"), ("handle", 2**70), ("session", None)):
        with pytest.raises(TinyNNTypeError, match=name):
            setattr(w, name, value)
    with pytest.raises(TinyNNTypeError, match="handle"):
        del w.handle
    assert copy.copy(w) == w


def test_a_list_that_raises_and_an_uninitialised_tensor_are_refused_by_name(s: Session, w: Tensor) -> None:
    class Endless(list[Tensor]):
        def __iter__(self) -> Any:
            raise ZeroDivisionError("iter")

    with pytest.raises(TinyNNTypeError, match=r"^parts .*ZeroDivisionError"):
        nn.tnn_concat_n(s, Endless([w]), 0)
    with pytest.raises(TinyNNTypeError, match=r"^weights .*ZeroDivisionError"):
        nn.tnn_fused_linear(s, w, Endless([w]))
    with pytest.raises(SessionError, match=r"^a is a tensor of another session"):
        nn.tnn_scale(s, Tensor.__new__(Tensor), 1.0)


@pytest.mark.parametrize(
    ("name", "value"), [("state", "x"), ("state", 2**70), ("state", -1), ("kind", 2), ("kind", 2**40)]
)
def test_a_random_stream_with_an_invalid_state_is_refused_by_name(name: str, value: Any) -> None:
    stream = nn.tnn_random_seed(nn.TNN_RANDOM_LCG31, 0)
    setattr(stream, name, value)
    with pytest.raises(TinyNNError, match=f"^stream.{name}"):
        nn.tnn_random_gaussian(stream, 1.0, 4)
    with pytest.raises(TinyNNValueError, match=r"^kind must be 0"):
        nn.tnn_random_seed(2, 0)


def test_more_memory_than_the_machine_has_is_refused_before_it_is_allocated() -> None:
    """Linux would let numpy allocate this memory, and would kill the process when numpy fills the memory."""
    much = nn.tnn_available_memory() + (1 << 30)
    with pytest.raises(TinyNNMemoryError, match=r"^n: .* are available"):
        nn.tnn_random_gaussian(nn.tnn_random_seed(0, 0), 1.0, much // 4)
    with pytest.raises(TinyNNMemoryError, match=r"^vocab: .* are available"):
        labels.next_token(np.zeros(1024, dtype=np.int64), min(much // 4096, 2**31 - 1), 1024, 1)
    if much // 8 < 2**31:
        with pytest.raises(TinyNNMemoryError, match=r"^context: .* are available"):
            TrainingBatch(10, much // 8)


def test_the_error_for_memory_that_the_system_refuses_names_the_argument() -> None:
    out = run_with_toynn("""
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
        from toynn.data import WindowBatcher
        for call in (
            lambda: labels.next_token([0] * 1024, 100_000, 1024, 1),
            lambda: TrainingBatch(10, 1 << 26),
            lambda: nn.tnn_random_gaussian(nn.tnn_random_seed(0, 0), 1.0, 1 << 27),
            lambda: WindowBatcher(np.zeros(1 << 27, dtype=np.uint8)[:1 << 26], 1, 0).batch(0, 1),
        ):
            try:
                call()
            except TinyNNMemoryError as error:
                print(str(error).split(":")[0])
    """)
    assert out.split() == ["vocab", "context", "n", "t_seq"]


@pytest.mark.parametrize("convert", [layouts.to_fused, layouts.to_per_head])
def test_wrong_weights_and_configurations_are_refused_by_name(convert: Any) -> None:
    for wrong in (None, 3, "abc", [("a", 1)], {3: np.ones(2)}):
        with pytest.raises(TinyNNTypeError, match="weights"):
            convert(wrong, CFG)
    with pytest.raises(TinyNNTypeError, match=r"^cfg"):
        convert({}, None)
    endless = "blk.0.attn_q.head_" + "9" * 5000 + ".weight"
    assert endless in layouts.to_fused({endless: np.ones(1, dtype=np.float32)}, CFG)


# ---- generation ----


def decoder() -> LlamaDecoder:
    with realized(CFG) as engine:
        weights = weights_of(engine)
    return LlamaDecoder(CFG, weights, untied=False, n_threads=1)


def test_errors_of_generate_name_the_argument() -> None:
    with decoder() as d:
        for wrong, name in (
            ((None, [1], Sampling(), 3), "decoder"),
            ((d, [1], None, 3), "sampling"),
            ((d, [1], Sampling(), 3, None), "stop"),
            ((d, [1], Sampling(), 3, 3), "stop"),
            ((d, [1], Sampling(), 3, [[1]]), "a token of stop"),
        ):
            with pytest.raises(TinyNNTypeError, match=f"^{name}"):
                list(generate(*wrong))
        for arguments, error in (
            ({"rolling": 1}, TinyNNTypeError),
            ({"keep": 1.0}, TinyNNTypeError),
            ({"keep": -1}, TinyNNValueError),
            ({"never": "abc"}, TinyNNTypeError),
            ({"never": [0.5]}, TinyNNTypeError),
            ({"never": None}, TinyNNTypeError),
        ):
            (name,) = arguments
            with pytest.raises(error, match=f"^{name}"):
                list(generate(d, [1], Sampling(), 3, **arguments))
        assert d.n_past == 0


@pytest.mark.parametrize("weights", [None, 3, [], "abc"])
def test_weights_for_a_decoder_that_are_not_a_mapping_are_refused_by_name(weights: Any) -> None:
    with pytest.raises(TinyNNTypeError, match=r"^weights"):
        LlamaDecoder(CFG, weights, untied=False)


def test_a_decoder_with_too_many_layers_is_refused_at_once() -> None:
    with pytest.raises(TinyNNValueError, match=r"^n_layers"):
        LlamaDecoder(SmolLM2Config.mha(23, 12, 3, 20, 5000, 16, 10000.0, 1e-5), {}, untied=False)


def test_calls_on_a_closed_decoder_raise_a_session_error() -> None:
    d = decoder()
    d.close()
    for call in (lambda: d.feed([1]), lambda: d.score([1, 2]), d.rewind, lambda: list(generate(d, [1], Sampling(), 3))):
        with pytest.raises(SessionError, match="closed"):
            call()
    d.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("logits", [[1.0, 2.0, -1e300, -math.inf], [1e308, -1e308]])
def test_a_temperature_near_zero_chooses_the_most_likely_token_without_a_warning(logits: list[float]) -> None:
    tokens, p = choices(logits, Sampling(temperature=1e-45, top_k=0, top_p=1.0, min_p=0.0))
    assert p[0] == 1.0
    assert tokens[0] == int(np.argmax(logits))


# ---- windows ----


@pytest.mark.parametrize("tokens", [None, [1, 2, 3], "abc"])
def test_tokens_that_are_not_an_array_are_refused_by_name(tokens: Any) -> None:
    with pytest.raises(TinyNNTypeError, match=r"^tokens"):
        WindowBatcher(tokens, 1, 0)


@pytest.mark.parametrize("wrong", [2**31, 2**40, -1])
def test_a_window_with_an_invalid_token_is_refused(wrong: int) -> None:
    with pytest.raises(TinyNNValueError, match=f"^tokens .*{wrong}"):
        WindowBatcher(np.array([wrong, 1, 2, 3]), 3, 0).window(0)


def test_a_batch_beyond_31_bits_is_refused() -> None:
    with pytest.raises(TinyNNValueError, match=r"^n \* t_seq must be at most 2147483647"):
        WindowBatcher(np.arange(10, dtype=np.uint16), 3, 0).batch(0, 2**31 - 1)
