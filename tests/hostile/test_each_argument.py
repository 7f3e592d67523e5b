"""Every session call handles extreme and wrong values of each argument.

A call either succeeds or raises one of toynn's errors, which names the call, and the session remains usable. The values
that replace an argument are generated, so new calls and checks are covered without a new test. Other tests check the
messages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from fuzz_session import functions
from session_calls import CALLS, OTHERS, STEPS, Call, Desk, attempt, make, takes_session
from toynn import SessionError, Tensor
from toynn import tinynn as nn

pytestmark = pytest.mark.quick

INTEGERS = [-(2**31), -1, 0, 1, 2, 3, 4, 5, 8, 9, 16, 2**28, 2**31 - 1]
FLOATS = [math.nan, math.inf, -math.inf, -1.0, 0.0, 0.5, 2.0]


# Calls that this file does not test: calls without a tensor argument, calls on the whole graph, and variants of tested
# calls. Other tests cover them.
ELSEWHERE = {
    "tnn_input_1d_f32", "tnn_input_1d_f32_persistent", "tnn_input_1d_i32", "tnn_input_1d_i32_ctx",
    "tnn_input_1d_i32_persistent", "tnn_input_2d_f32", "tnn_input_2d_f32_persistent", "tnn_input_2d_persistent_typed",
    "tnn_input_3d_f32_persistent", "tnn_input_4d_f32_persistent", "tnn_rope_freq_factors_alloc", "tnn_backend_name",
    "tnn_session_attach_weight_mmap", "tnn_input_1d_persistent_mmap", "tnn_input_2d_persistent_mmap",
    "tnn_input_3d_persistent_mmap", "tnn_finalize_weights", "tnn_last_error", "tnn_last_error_code",
    "tnn_session_compute_nbytes", "tnn_session_graph_capacity", "tnn_session_n_threads",
    "tnn_session_set_graph_capacity", "tnn_session_set_n_threads", "tnn_session_set_windows",
    "tnn_session_weights_nbytes", "tnn_reserve_batches", "tnn_kv_cache", "tnn_resize_kv_caches",
    "tnn_download_window_sum", "tnn_gradient_parts", "tnn_gradient_place",
    "tnn_graph_n_nodes", "tnn_graph_node", "tnn_graph_reset", "tnn_graph_reset_grads_only", "tnn_reset_for_rebuild",
    "tnn_pin_all_graph_b_nodes", "tnn_build_backward", "tnn_compute", "tnn_compute_backward", "tnn_compute_profiled",
    "tnn_realize_backward", "tnn_train_step", "tnn_begin_step", "tnn_continue_step",
    "tnn_switch_a", "tnn_switch_b", "tnn_compute_b",
    # These calls accept a tensor only once.
    "tnn_build_forward_only", "tnn_realize", "tnn_realize_b", "tnn_add_to_graph",
    "tnn_tensor_name", "tnn_tensor_ne0", "tnn_tensor_ne1", "tnn_tensor_ne2", "tnn_tensor_ne3",
    "tnn_download_to_int_array", "download_row_major", "download_to_mat", "download_matmul",
    "upload_int_array", "upload_row_major", "upload_transposed",
}  # fmt: skip


def test_every_session_call_is_tested_here_or_listed_as_tested_elsewhere() -> None:
    """A new call needs a line in CALLS, STEPS or OTHERS of session_calls.py, or in ELSEWHERE with a reason."""
    desk, trained = Desk(), Desk()
    with desk.s, trained.s:
        trained.train()
        here = {call(desk)[0].__name__ for call in [*CALLS.values(), *OTHERS.values()]}
        here |= {call(trained)[0].__name__ for call in STEPS.values()}
    assert here.isdisjoint(ELSEWHERE)
    assert here | ELSEWHERE == {function.__name__ for function in functions()}


def instead_of(argument: Any, strange: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield a description and a value for each replacement of an argument. In a list, each item is replaced."""
    if isinstance(argument, float):
        yield from ((str(value), value) for value in FLOATS)
    elif isinstance(argument, int):
        yield from ((str(value), value) for value in INTEGERS)
    elif isinstance(argument, str):
        yield from (("long", "x" * 63), ("too long", "x" * 64))
    elif isinstance(argument, list) and isinstance(argument[0], Tensor):
        yield "empty", []
        yield "long", [argument[0]] * 5000
        for i in range(len(argument)):
            for what, value in strange:
                yield f"[{i}] {what}", [*argument[:i], value, *argument[i + 1 :]]
    elif isinstance(argument, list):
        yield from (("shorter", argument[:-1]), ("empty", []))
    else:
        yield from strange


def refusals(desk: Desk, name: str, call: Call, strange: list[tuple[str, Tensor]]) -> list[str]:
    """Return the messages of the errors that the call raises when each argument is replaced."""
    function, arguments = call(desk)
    make(function, desk.s, arguments)
    messages: list[str] = []
    for i, argument in enumerate(arguments):
        for what, value in instead_of(argument, strange):
            message = attempt(function, desk.s, [*arguments[:i], value, *arguments[i + 1 :]])
            ours = message == "" or "tnn_" in message or "another session" in message or "must be a list" in message
            assert ours or not isinstance(value, Tensor), f"{name}, argument {i} {what}: {message}"
            messages += [message] if message else []
    return messages


@pytest.mark.parametrize("name", [*CALLS, *OTHERS])
def test_a_call_with_a_replaced_argument_succeeds_or_raises_an_error_that_names_it(name: str) -> None:
    desk = Desk()
    with desk.s as s:
        call = {**CALLS, **OTHERS}[name]
        messages = refusals(desk, name, call, desk.strange())
        # in Python these calls take no session, so they accept a tensor of another session
        of_tensor = not takes_session(call(desk)[0])
        assert len(messages) >= (4 if of_tensor else 5)
        assert nn.tnn_tensor_ne0(nn.tnn_scale(s, desk.m, 2.0)) == 4


@pytest.mark.parametrize("name", STEPS)
def test_an_optimizer_call_with_a_replaced_argument_succeeds_or_raises_an_error_that_names_it(name: str) -> None:
    desk = Desk()
    with desk.s as s:
        strange = desk.strange()
        desk.train()
        strange += [("the loss's node", nn.tnn_graph_node(s, nn.tnn_graph_n_nodes(s) - 1)), ("a gradient", desk.grad())]
        messages = refusals(desk, name, STEPS[name], strange)
        assert len(messages) >= 5
        assert nn.tnn_tensor_ne0(nn.tnn_scale(s, desk.m, 2.0)) == 4


@pytest.mark.parametrize("name", CALLS)
def test_an_operator_is_refused_in_a_full_graph_and_after_realize(name: str) -> None:
    desk = Desk()
    with desk.s as s:
        function, arguments = CALLS[name](desk)
        while (message := attempt(nn.tnn_scale, s, [desk.m, 1.0])) == "":
            pass
        assert "the graph is full" in message
        with pytest.raises(SessionError, match=rf"{function.__name__}: the graph is full: it has \d+ tensors and"):
            function(s, *arguments)
        nn.tnn_reset_for_rebuild(s)
        function, arguments = CALLS[name](desk)
        nn.tnn_realize(s, nn.tnn_scale(s, desk.m, 1.0))
        nn.tnn_realize_b(s, nn.tnn_scale(s, desk.m, 2.0))
        with pytest.raises(SessionError, match=f"{function.__name__}: nodes can be appended only before"):
            function(s, *arguments)


@pytest.mark.parametrize("name", ["fused_grad_norm", "fused_adamw", "fused_muon"])
def test_an_optimizer_step_is_refused_in_a_full_graph(name: str) -> None:
    desk = Desk()
    with desk.s as s:
        desk.train()
        function, arguments = STEPS[name](desk)
        while attempt(nn.tnn_scale, s, [desk.m, 1.0]) == "":
            pass
        with pytest.raises(SessionError, match=f"{function.__name__}: the graph is full"):
            function(s, *arguments)
