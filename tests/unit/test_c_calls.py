"""The C calls of csrc/tinynn.h with arguments that the Python functions never pass, because they refuse them."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from processes import run_with_toynn
from toynn.tinynn.native import ffi, lib, text

OF_A_SESSION = [
    name
    for name in dir(lib)
    if name.startswith("tnn_")
    and ffi.typeof(getattr(lib, name)).kind == "function"
    and (arguments := ffi.typeof(getattr(lib, name)).args)
    and arguments[0] is ffi.typeof("tnn_session *")
    and name not in ("tnn_session_free", "tnn_last_error", "tnn_last_error_code")  # these calls accept NULL
]


@pytest.fixture
def session() -> Iterator[Any]:
    pointer = lib.tnn_session_new(0)
    yield pointer
    lib.tnn_session_free(pointer)


def nothing(kind: Any) -> Any:
    return ffi.NULL if kind.kind == "pointer" else 0


def test_the_calls_with_a_session_are_found_in_the_header() -> None:
    assert len(OF_A_SESSION) > 90


@pytest.mark.parametrize("name", OF_A_SESSION)
def test_a_null_session_is_refused(name: str) -> None:
    function = getattr(lib, name)
    kind = ffi.typeof(function)
    result = function(ffi.NULL, *[nothing(argument) for argument in kind.args[1:]])
    assert lib.tnn_last_error_code(ffi.NULL) == lib.TNN_E_STATE
    assert text(lib.tnn_last_error(ffi.NULL)) == f"{name}: session is NULL; create one with tnn_session_new"
    if kind.result is ffi.typeof("tnn_tensor"):  # the result may be an int64_t, in which an error is 0 or negative
        assert result <= 0
    elif kind.result.kind == "pointer":
        assert result == ffi.NULL
    else:
        assert result == lib.TNN_E_STATE


def test_freeing_a_null_session_does_nothing() -> None:
    lib.tnn_session_free(ffi.NULL)
    assert lib.tnn_session_new(1) == ffi.NULL
    assert text(lib.tnn_last_error(ffi.NULL)) == "tnn_session_new: kind = 1 is unknown; 0 (CPU) is the only backend"


def refused(session: Any, says: str) -> None:
    assert lib.tnn_last_error_code(session) == lib.TNN_E_VALUE
    assert says in text(lib.tnn_last_error(session))


def test_a_mapping_that_is_not_the_start_of_a_page_is_refused(session: Any) -> None:
    page = mmap.PAGESIZE
    start = ffi.from_buffer("char[]", mmap.mmap(-1, 3 * page))
    for address, size in ((ffi.NULL, page), (start + 1, page), (start, 0), (start, -1), (start, 2**63 - 1)):
        assert lib.tnn_session_attach_weight_mmap(session, address, size, -1, b"a") == lib.TNN_E_VALUE
    refused(session, "size = 9223372036854775807 must be")
    other = lib.tnn_session_new(0)
    assert lib.tnn_session_attach_weight_mmap(other, start, page, -1, ffi.NULL) == lib.TNN_OK
    assert lib.tnn_input_1d_persistent_mmap(other, page, lib.TNN_F32, 0) == 0
    refused(other, "the tensor ends beyond the attached file")
    lib.tnn_session_free(other)


def test_a_descriptor_that_is_closed_or_of_a_shorter_file_is_refused(session: Any, tmp_path: Path) -> None:
    start = ffi.from_buffer("char[]", mmap.mmap(-1, mmap.PAGESIZE))
    with (tmp_path / "short").open("w+b") as file:
        for descriptor, says in ((10_000, "descriptor"), (file.fileno(), "has 0 bytes, fewer than size")):
            assert lib.tnn_session_attach_weight_mmap(session, start, 10, descriptor, b"short") == lib.TNN_E_FILE
            assert says in text(lib.tnn_last_error(session)) and "short" in text(lib.tnn_last_error(session))


def test_stored_numbers_that_do_not_fit_their_type_are_refused() -> None:
    data, out = ffi.new("uint8_t[]", 34), ffi.new("float[]", 32)
    assert lib.tnn_dequantize(8, data, 34, out, 32) == lib.TNN_OK
    for arguments in (
        (8, ffi.NULL, 34, out, 32), (8, data, 34, ffi.NULL, 32), (8, data, 33, out, 32), (8, data, 34, out, 31),
        (8, data, 34, out, -32), (8, data, -34, out, -32), (9, data, 36, out, 32), (-1, data, 34, out, 32),
        (43, data, 34, out, 32), (8, data, 34, out, 64),
    ):  # fmt: skip
        assert lib.tnn_dequantize(*arguments) == lib.TNN_E_VALUE


def test_numbers_that_do_not_fit_the_stored_type_are_refused() -> None:
    data, out = ffi.new("float[]", 32), ffi.new("uint8_t[]", 34)
    assert lib.tnn_quantize(8, data, 32, out, 34) == lib.TNN_OK
    for arguments in (
        (8, ffi.NULL, 32, out, 34), (8, data, 32, ffi.NULL, 34), (8, data, 32, out, 33), (8, data, 31, out, 34),
        (8, data, -32, out, 34), (8, data, -32, out, -34), (9, data, 32, out, 36), (-1, data, 32, out, 34),
        (43, data, 32, out, 34), (8, data, 64, out, 34),
    ):  # fmt: skip
        assert lib.tnn_quantize(*arguments) == lib.TNN_E_VALUE


def test_null_data_is_refused(session: Any) -> None:
    f32 = lib.tnn_input_1d_f32_persistent(session, 2)
    i32 = lib.tnn_input_1d_i32_persistent(session, 2)
    lib.tnn_finalize_weights(session)
    for call, t in (
        (lib.tnn_upload_from_float_array, f32),
        (lib.tnn_upload_from_int_array, i32),
        (lib.tnn_download, f32),
        (lib.tnn_download_to_int_array, i32),
    ):
        assert call(session, t, ffi.NULL, 2) == lib.TNN_E_VALUE
        refused(session, "data must not be NULL")
    for call, t, kind in ((lib.tnn_download, f32, "float[]"), (lib.tnn_download_to_int_array, i32, "int32_t[]")):
        assert call(session, t, ffi.new(kind, 3), 3) == lib.TNN_E_VALUE
        refused(session, "n = 3 must be 2, the number of elements")


def test_a_null_list_or_name_is_refused(session: Any) -> None:
    w = lib.tnn_input_2d_f32_persistent(session, 4, 4)
    lib.tnn_set_param(session, w)
    lib.tnn_finalize_weights(session)
    two = lib.tnn_input_1d_f32(session, 2)
    ids = lib.tnn_input_1d_i32(session, 4)
    assert lib.tnn_fused_linear(session, w, ffi.NULL, ffi.NULL, 1, 0) == 0
    refused(session, "weights must not be NULL")
    assert lib.tnn_concat_n(session, ffi.NULL, 1, 0) == 0
    refused(session, "parts must not be NULL")
    assert lib.tnn_tensor_set_name(session, w, ffi.NULL) == lib.TNN_E_VALUE
    refused(session, "name must be a string")
    one = ffi.new("tnn_tensor[]", [w])
    loss = lib.tnn_fused_cross_entropy(session, lib.tnn_fused_linear(session, w, one, ffi.NULL, 1, 0), ids, -1, 0)
    lib.tnn_set_loss(session, loss)
    lib.tnn_build_forward_only(session, loss)
    lib.tnn_build_backward(session)
    assert lib.tnn_fused_grad_norm(session, ffi.NULL, 1, two) == 0
    refused(session, "grads must not be NULL")


def test_a_profile_without_an_output_array_is_refused(session: Any) -> None:
    w = lib.tnn_input_1d_f32_persistent(session, 4)
    lib.tnn_finalize_weights(session)
    lib.tnn_realize(session, lib.tnn_scale(session, w, 2.0))
    assert lib.tnn_compute_profiled(session, ffi.NULL, 1) == lib.TNN_E_VALUE
    refused(session, "seconds must not be NULL")
    assert lib.tnn_compute_profiled(session, ffi.new("double[]", 2), 2) == lib.TNN_E_VALUE
    refused(session, "n = 2 must be the number of nodes, 1")
    assert lib.tnn_compute_profiled(session, ffi.new("double[]", 1), 1) == lib.TNN_OK


class Training:
    """A training graph with one weight, built with C calls. The input has the same number of rows as the weight."""

    def __init__(self, session: Any, outputs: bool = True, loss_is_output: bool = False) -> None:
        self.s = session
        self.w, self.m, self.v = (lib.tnn_input_2d_f32_persistent(session, 4, 4) for _ in range(3))
        self.ids = lib.tnn_input_1d_i32_persistent(session, 4)
        lib.tnn_set_param(session, self.w)
        lib.tnn_finalize_weights(session)
        self.targets = lib.tnn_input_1d_i32(session, 4)
        self.hp, self.clip = lib.tnn_input_1d_f32(session, 7), lib.tnn_input_1d_f32(session, 2)
        self.unused = lib.tnn_input_1d_f32(session, 7)  # this tensor is in no graph, so it never gets memory
        rows = lib.tnn_get_rows(session, self.w, self.ids)
        product = lib.tnn_fused_linear(session, rows, ffi.new("tnn_tensor[]", [self.w]), ffi.NULL, 1, 0)
        self.loss = lib.tnn_fused_cross_entropy(session, product, self.targets, -1, 0)
        self.other_loss = lib.tnn_fused_cross_entropy(session, self.m, self.targets, -1, 0)
        lib.tnn_set_loss(session, self.loss)
        lib.tnn_set_loss(session, self.other_loss)  # this tensor is not in the graph
        lib.tnn_build_forward_only(session, self.loss)
        lib.tnn_build_backward(session)
        grads = ffi.new("tnn_tensor[]", [lib.tnn_tensor_grad(session, self.w)])
        self.norm = lib.tnn_fused_grad_norm(session, grads, 1, self.clip)
        self.forgotten_norm = lib.tnn_fused_grad_norm(session, grads, 1, self.clip)
        lib.tnn_set_output(session, self.forgotten_norm)
        step = lib.tnn_fused_adamw(session, self.w, grads[0], self.m, self.v, self.hp, self.norm, 0, 0)
        lib.tnn_extend_backward_graph(session, step)
        for output in (self.loss, self.norm, self.m, rows, product) if outputs else ():
            lib.tnn_set_output(session, output)
        if loss_is_output:
            lib.tnn_set_output(session, self.loss)
        self.rows, self.product = rows, product
        assert lib.tnn_realize_backward(session) == lib.TNN_OK
        lib.tnn_upload_from_float_array(session, self.clip, ffi.new("float[]", [0.0, 1.0]), 2)

    def step(self, **changes: Any) -> int:
        """Call tnn_train_step with valid arguments, except for the given arguments and fields of the tnn_step."""
        fields = {"ids": self.ids, "targets": self.targets, "hp": self.hp, "loss": self.loss, "norm": self.norm}
        step = ffi.new("tnn_step *", {**fields, **{k[2:]: v for k, v in changes.items() if k.startswith("t_")}})
        given: dict[str, Any] = {
            "step": step,
            "ids": ffi.new("int32_t[]", [0, 1, 2, 3]), "targets": ffi.new("int32_t[]", [1, 2, 3, -1]), "n": 4,
            "hp": ffi.new("float[]", [1e-2, 0.9, 0.95, 1e-8, 0.0, 1.0, 1.0]), "n_hp": 7, "mode": 1,
            "loss": ffi.new("float *"), "norm": ffi.new("float *"),
        }  # fmt: skip
        given.update({k: v for k, v in changes.items() if not k.startswith("t_")})
        if "accumulate" not in changes:
            return int(lib.tnn_train_step(self.s, *given.values()))
        names = ("step", "ids", "targets", "n", "hp", "n_hp", "accumulate")
        return int(lib.tnn_begin_step(self.s, *(given[name] for name in names)))

    def weight(self) -> bytes:
        data = ffi.new("float[]", 16)
        assert lib.tnn_download(self.s, self.w, data, 16) == lib.TNN_OK
        return bytes(ffi.buffer(data))


def test_a_step_with_a_wrong_argument_changes_nothing(session: Any) -> None:
    training = Training(session)
    values = ffi.new("float[]", [0.1 * i for i in range(16)])
    lib.tnn_upload_from_float_array(session, training.w, values, 16)
    before = training.weight()
    for name in ("step", "ids", "targets", "hp", "loss"):
        assert training.step(**{name: ffi.NULL}) == lib.TNN_E_VALUE
        refused(session, "must not be NULL")
    for mode in (8, -1):
        assert training.step(mode=mode) == lib.TNN_E_VALUE
        refused(session, f"mode = {mode} has unknown bits")
    assert training.step(norm=ffi.NULL) == lib.TNN_E_VALUE
    refused(session, "norm must not be NULL")
    for field, wrong in (
        ("ids", training.w), ("ids", training.hp), ("targets", training.hp), ("hp", training.ids),
        ("hp", training.unused), ("hp", training.clip), ("ids", training.loss), ("loss", training.w),
        ("loss", training.other_loss), ("loss", training.norm), ("norm", training.loss),
        ("norm", training.forgotten_norm), ("norm", training.m), ("norm", training.rows), ("norm", training.product),
    ):  # fmt: skip
        assert training.step(**{f"t_{field}": wrong}) == lib.TNN_E_VALUE, field
        refused(session, f"step.{field}")
    for field in ("ids", "targets", "hp", "loss", "norm"):
        assert training.step(**{f"t_{field}": -5}) == lib.TNN_E_TYPE
        assert f"step.{field} = -5 is not a tensor handle" in text(lib.tnn_last_error(session))
    assert training.step(n=3) == lib.TNN_E_VALUE
    assert training.step(n_hp=6) == lib.TNN_E_VALUE
    assert training.step(mode=2) == lib.TNN_E_STATE  # accumulation is refused, because gradients are not kept
    assert training.step(ids=ffi.new("int32_t[]", [0, 1, 2, 4])) == lib.TNN_E_VALUE
    refused(session, "[3] = 4 must be the number of a row")
    assert training.step(targets=ffi.new("int32_t[]", [-1] * 4)) == lib.TNN_E_VALUE
    refused(session, "at least one must be a token")
    assert training.weight() == before
    assert training.step() == lib.TNN_OK
    assert training.weight() != before
    assert training.step(t_norm=0, norm=ffi.NULL, mode=0) == lib.TNN_OK


def test_a_session_without_the_first_window_of_a_step_only_computes_gradients(session: Any) -> None:
    assert lib.tnn_session_set_windows(session, 1, 2) == lib.TNN_OK
    training = Training(session)
    assert training.step(mode=1) == lib.TNN_E_STATE
    assert "mode = 1 cannot update the weights" in text(lib.tnn_last_error(session))
    assert training.step(mode=lib.TNN_STEP_NO_UPDATE) == lib.TNN_E_STATE
    assert "the first window of this session is 2, so each gradient must be" in text(lib.tnn_last_error(session))


def test_a_batch_in_parts_with_a_wrong_argument_is_refused(session: Any) -> None:
    assert lib.tnn_continue_step(session, 0) == lib.TNN_E_STATE
    training = Training(session)
    assert lib.tnn_continue_step(session, 0) == lib.TNN_E_STATE
    assert training.step(mode=2) == lib.TNN_E_STATE
    for name in ("step", "ids", "targets", "hp"):
        assert training.step(accumulate=0, **{name: ffi.NULL}) == lib.TNN_E_VALUE
        refused(session, "step, ids, targets and hp must not be NULL")
    assert training.step(accumulate=0) == lib.TNN_E_STATE
    assert "each gradient must be flagged with tnn_set_output" in text(lib.tnn_last_error(session))
    for t in (0, training.w):
        assert lib.tnn_continue_step(session, t) == lib.TNN_E_STATE
        assert "no batch has been begun; call tnn_begin_step first" in text(lib.tnn_last_error(session))


def test_a_step_reads_only_outputs(session: Any) -> None:
    training = Training(session, outputs=False)
    assert training.step() == lib.TNN_E_STATE
    assert "must be flagged with tnn_set_output" in text(lib.tnn_last_error(session))


def test_a_step_reads_a_norm_only_if_it_is_an_output(session: Any) -> None:
    training = Training(session, outputs=False, loss_is_output=True)
    assert training.step() == lib.TNN_E_STATE
    assert "step.norm must be flagged with tnn_set_output" in text(lib.tnn_last_error(session))
    assert training.step(t_norm=0, norm=ffi.NULL) == lib.TNN_OK


def test_an_unknown_stream_and_null_pointers_are_refused() -> None:
    state, data = ffi.new("uint64_t *"), ffi.new("float[]", 3)
    for kind in (lib.TNN_RANDOM_LCG31, lib.TNN_RANDOM_XORSHIFT64):
        assert lib.tnn_random_seed(kind, 7, state) == lib.TNN_OK
        assert lib.tnn_random_gaussian(kind, state, 1.0, data, 3) == lib.TNN_OK
        assert lib.tnn_random_gaussian(kind, ffi.NULL, 1.0, data, 3) == lib.TNN_E_VALUE
        assert lib.tnn_random_gaussian(kind, state, 1.0, ffi.NULL, 3) == lib.TNN_E_VALUE
        assert lib.tnn_random_gaussian(kind, state, 1.0, data, -1) == lib.TNN_E_VALUE
        assert lib.tnn_random_gaussian(kind, state, float("nan"), data, 3) == lib.TNN_E_VALUE
        assert lib.tnn_random_seed(kind, 7, ffi.NULL) == lib.TNN_E_VALUE
    assert lib.tnn_random_seed(2, 7, state) == lib.TNN_E_VALUE
    assert lib.tnn_random_gaussian(2, state, 1.0, data, 3) == lib.TNN_E_VALUE
    assert lib.tnn_gemm_use_kernel(ffi.NULL) == lib.TNN_E_VALUE
    assert lib.tnn_gemm_use_kernel(b"none such") == lib.TNN_E_VALUE


def test_wrong_arguments_of_slices_are_refused() -> None:
    hp, sums = ffi.new("float[]", 7), ffi.new("double[]", 64)

    def adamw(slices: Sequence[Any], n: int = 8, hp: Any = hp) -> int:
        w, m, v, g = slices
        return lib.tnn_slice_adamw(w, m, v, g, n, hp, 1.0)

    slices = [ffi.new("float[]", 8) for _ in range(4)]
    assert adamw(slices) == lib.TNN_OK
    assert adamw(slices, -1) == adamw(slices, 8, ffi.NULL) == lib.TNN_E_VALUE
    for i in range(4):
        assert adamw([*slices[:i], ffi.NULL, *slices[i + 1 :]]) == lib.TNN_E_VALUE
    g = slices[0]
    assert lib.tnn_slice_squares(g, 8, 64, 8, 16, sums) == lib.TNN_OK
    for n, size, first, end in [
        (7, 64, 8, 16),
        (8, 64, -1, 7),
        (8, 64, 57, 65),
        (-8, 64, 16, 8),
        (8, -64, 8, 16),
        (8, 2**40, 8, 16),
    ]:
        assert lib.tnn_slice_squares(g, n, size, first, end, sums) == lib.TNN_E_VALUE
    assert lib.tnn_slice_round(g, 8, 1, 1, 2**31 - 9, 1) == lib.TNN_OK
    for values, n, first, second in [
        (ffi.NULL, 8, 0, 0),
        (g, -1, 0, 0),
        (g, 8, -1, 0),
        (g, 8, 2**31 - 8, 0),
        (g, 8, 0, 2),
    ]:
        assert lib.tnn_slice_round(values, n, 1, 1, first, second) == lib.TNN_E_VALUE
    assert lib.tnn_slice_squares(ffi.NULL, 8, 64, 8, 16, sums) == lib.TNN_E_VALUE
    assert lib.tnn_slice_squares(g, 8, 64, 8, 16, ffi.NULL) == lib.TNN_E_VALUE


@pytest.mark.parametrize("seed", [0, 7, -1, -104729, -104730, -(2**40), -(2**63), 2**63 - 1])
def test_a_stream_starts_as_exact_integer_arithmetic_says_for_any_seed(seed: int) -> None:
    """A new stream has the state ((seed + 104729) * 2654435761) mod (2^31 - 1), and then drops eight draws."""
    state = ffi.new("uint64_t *")
    assert lib.tnn_random_seed(lib.TNN_RANDOM_LCG31, seed, state) == lib.TNN_OK
    s = (seed + 104729) * 2654435761 % (2**31 - 1) or seed + 104729
    for _ in range(8):
        s = (s * 1103515245 + 12345) % 2**31
    assert state[0] == s


def test_an_unknown_tensor_type_is_refused_even_without_a_session(session: Any) -> None:
    assert lib.tnn_input_2d_persistent_typed(session, 4, 4, 2) == 0
    assert lib.tnn_last_error_code(session) == lib.TNN_E_TYPE
    assert lib.tnn_input_2d_persistent_typed(ffi.NULL, 4, 4, 2) == 0
    assert lib.tnn_last_error_code(ffi.NULL) == lib.TNN_E_STATE


def test_a_session_without_weights_can_compute_graphs(session: Any) -> None:
    assert lib.tnn_finalize_weights(session) == lib.TNN_OK
    x = lib.tnn_input_1d_f32(session, 2)
    y = lib.tnn_scale(session, x, 3.0)
    assert lib.tnn_realize(session, y) == lib.TNN_OK
    assert lib.tnn_upload_from_float_array(session, x, ffi.new("float[]", [1.0, 2.0]), 2) == lib.TNN_OK
    assert lib.tnn_compute(session) == lib.TNN_OK
    out = ffi.new("float[]", 2)
    assert lib.tnn_download(session, y, out, 2) == lib.TNN_OK
    assert list(out) == [3.0, 6.0]


def test_a_session_can_be_rebuilt_at_most_four_million_times(session: Any) -> None:
    """The number of a generation has 22 bits.

    With one more rebuild, handles of the first graph would be valid again.
    """
    lib.tnn_finalize_weights(session)
    rebuild = lib.tnn_reset_for_rebuild
    for _ in range(2**22 - 2):
        rebuild(session)
    assert lib.tnn_last_error_code(session) == lib.TNN_OK
    first = lib.tnn_input_1d_f32(session, 4)
    assert first > 0
    assert rebuild(session) == lib.TNN_E_STATE
    assert "was rebuilt 4194303 times, which is the limit" in text(lib.tnn_last_error(session))
    assert lib.tnn_scale(session, first, 2.0) > 0


def test_the_c_code_refuses_a_session_in_a_forked_child_and_can_free_it() -> None:
    """The Python functions check the process id themselves, so this test calls C directly.

    The child must exit normally.
    """
    out = run_with_toynn("""
        import sys
        from toynn.tinynn.native import ffi, lib, text
        s = lib.tnn_session_new(0)
        lib.tnn_session_set_n_threads(s, 2, 1)
        w = lib.tnn_input_1d_f32_persistent(s, 4)
        lib.tnn_finalize_weights(s)
        lib.tnn_realize(s, lib.tnn_scale(s, w, 2.0))
        assert lib.tnn_compute(s) == lib.TNN_OK
        pid = os.fork()
        assert lib.tnn_compute(s) == (lib.TNN_OK if pid else lib.TNN_E_STATE)
        if pid == 0:
            print(text(lib.tnn_last_error(s)))
            lib.tnn_session_free(s)
            sys.exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        lib.tnn_session_free(s)
    """)
    assert out == "tnn_compute: this session belongs to the parent process; after fork() create a new session\n"


def test_the_options_of_the_build_are_separated_by_one_space_each() -> None:
    """In an earlier version there were two spaces in a row if the profile, such as aarch64, added no options."""
    options = text(lib.tnn_build_options())
    assert options == " ".join(options.split())
