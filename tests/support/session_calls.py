"""A table of the calls of the session API, with valid arguments for each call.

Tests replace one argument at a time, or make an allocation of a call fail. A new operator needs one line in CALLS. A
plain operator needs no line; `is_plain` in tools/read_header.py defines which operators are plain.
"""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Callable
from typing import Any

from read_header import HEADER, read_header
from read_header import Call as HeaderCall
from toynn import Session, Tensor, TinyNNError
from toynn import tinynn as nn

Q4_0 = 2  # ggml's number of this type


def blocks() -> nn.MappedFile:
    """Return a mapped file of zeros."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(4096))
        file.flush()
        return nn.MappedFile(file, "blocks")


class Desk:
    """A session to which operators can be appended, with tensors of many kinds as their operands."""

    def __init__(self, capacity: int = 512) -> None:
        self.s = s = Session(n_threads=1)
        nn.tnn_session_set_graph_capacity(s, capacity)
        self.m = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.m2 = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.m3 = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.fourth = nn.tnn_input_2d_f32_persistent(s, 4, 4)
        self.wide = nn.tnn_input_2d_f32_persistent(s, 4, 12)  # q, k and v together: 2 + 2*2 heads of size 2
        self.cache = nn.tnn_input_2d_f32_persistent(s, 16, 8)
        self.half_cache = nn.tnn_kv_cache(s, 16, 8, nn.TNN_F16)
        self.table = nn.tnn_input_2d_f32_persistent(s, 4, 2)
        self.small = nn.tnn_input_2d_f32_persistent(s, 2, 8)
        self.square = nn.tnn_input_2d_f32_persistent(s, 2, 2)
        self.v = nn.tnn_input_1d_f32_persistent(s, 4)
        self.one = nn.tnn_input_1d_f32_persistent(s, 1)
        self.two = nn.tnn_input_1d_f32_persistent(s, 2)
        self.three = nn.tnn_input_1d_f32_persistent(s, 3)
        self.sequences = nn.tnn_input_2d_f32_persistent(s, 2, 2)
        self.hp = nn.tnn_input_1d_f32_persistent(s, 7)
        self.cube = nn.tnn_input_3d_f32_persistent(s, 4, 2, 4)
        self.half = nn.tnn_input_2d_persistent_typed(s, 4, 4, nn.TNN_F16)
        self.bf16_m, self.bf16_v = (nn.tnn_input_2d_persistent_typed(s, 4, 4, nn.TNN_BF16) for _ in range(2))
        self.ids = nn.tnn_input_1d_i32_persistent(s, 4)
        self.id = nn.tnn_input_1d_i32_persistent(s, 1)
        nn.tnn_session_attach_weight_mmap(s, blocks())
        self.mapped = nn.tnn_input_2d_persistent_mmap(s, 4, 4, nn.TNN_F32, 0)
        self.stored = nn.tnn_input_2d_persistent_mmap(s, 4, 32, Q4_0, 0)
        self.rows_of_32 = nn.tnn_input_2d_f32_persistent(s, 4, 32)
        nn.tnn_set_param(self.m)
        nn.tnn_finalize_weights(s)

    def train(self) -> None:
        """Build the backward graph of a fused graph."""
        s = self.s
        loss = nn.tnn_fused_cross_entropy(s, nn.tnn_fused_linear(s, self.m2, [self.m]), self.ids, -1)
        nn.tnn_set_loss(loss)
        nn.tnn_build_forward_only(s, loss)
        nn.tnn_build_backward(s)

    def row_loss(self) -> Tensor:
        """Return a cross entropy over four rows."""
        return nn.tnn_fused_cross_entropy(self.s, self.m, self.ids, -1)

    def grad(self) -> Tensor:
        return nn.tnn_tensor_grad(self.s, self.m)

    def strange(self) -> list[tuple[str, Tensor]]:
        """Return tensors that are almost never valid operands.

        No memory is allocated for them, even if they are huge.
        """
        s = self.s
        foreign = Session(n_threads=1)
        other = nn.tnn_input_2d_f32_persistent(foreign, 4, 4)
        nn.tnn_finalize_weights(foreign)
        nn.tnn_input_1d_f32(s, 1)
        stale = nn.tnn_scale(s, self.m, 1.0)
        nn.tnn_reset_for_rebuild(s)
        made = nn.tnn_scale(s, self.m, 1.0)
        row_of_cubes = nn.tnn_concat(s, self.cube, self.cube, 3)
        inside = nn.tnn_tensor_src(nn.tnn_tensor_src(row_of_cubes, 0) or made, 0) or made
        return [
            ("of another session", other),
            ("of a dropped graph", stale),
            ("a number of no tensor", Tensor(s, self.m.handle + 1000)),
            ("a number before the first", Tensor(s, self.m.handle - 1)),
            ("zero", Tensor(s, 0)),
            ("an operator's own memory", inside),
            *((f"its own {name}", t) for name, t in vars(self).items() if isinstance(t, Tensor)),
            ("f16", self.half),
            ("i32", self.ids),
            ("i32, one", self.id),
            ("i32, many", nn.tnn_input_1d_i32(s, 9)),
            ("i32, a matrix", nn.tnn_view_2d(s, self.ids, 2, 2, 8, 0)),
            ("i32, strided", nn.tnn_view_2d(s, self.ids, 1, 2, 8, 0)),
            ("f32, strided", nn.tnn_view_2d(s, self.m, 2, 4, 16, 0)),
            ("f16, strided", nn.tnn_view_2d(s, self.half, 2, 4, 8, 0)),
            ("a view of its memory", nn.tnn_view_2d(s, self.m, 4, 4, 16, 0)),
            ("made by an operator", made),
            ("one number", self.one),
            ("another vector", nn.tnn_input_1d_f32(s, 3)),
            ("another matrix", nn.tnn_input_2d_f32(s, 5, 3)),
            ("more rows", nn.tnn_input_2d_f32(s, 5, 4)),
            ("fewer rows", nn.tnn_input_2d_f32(s, 2, 4)),
            ("more columns", nn.tnn_input_2d_f32(s, 4, 6)),
            ("three dimensions", self.cube),
            ("three other dimensions", nn.tnn_reshape_3d(s, self.cube, 4, 4, 2)),
            ("four dimensions", row_of_cubes),
            ("four dimensions of three", nn.tnn_concat_n(s, [self.cube] * 3, 3)),
            ("f16, three dimensions", nn.tnn_reshape_3d(s, self.half, 4, 2, 2)),
            ("f16, another matrix", nn.tnn_cast(s, nn.tnn_input_2d_f32(s, 4, 5), nn.TNN_F16)),
            ("f16, four dimensions", nn.tnn_cast(s, row_of_cubes, nn.TNN_F16)),
            ("bf16", nn.tnn_cast(s, self.m, nn.TNN_BF16)),
            ("seven of its m3", nn.tnn_view_1d(s, self.m3, 7, 0)),
            ("two of its m", nn.tnn_view_1d(s, self.m, 2, 0)),
            ("huge, a vector", nn.tnn_input_1d_f32(s, 2**31 - 1)),
            ("huge, in rows of four", nn.tnn_input_2d_f32(s, 2**28, 4)),
            ("huge, four rows", nn.tnn_input_2d_f32(s, 4, 2**28)),
            ("huge, i32", nn.tnn_input_1d_i32(s, 2**31 - 1)),
        ]


def all_positional(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes all arguments by position, with the keyword arguments of the original at the end."""
    keywords = [name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY]

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        split = len(arguments) - len(keywords)
        return function(*arguments[:split], **dict(zip(keywords, arguments[split:], strict=True)))

    return call


Call = Callable[[Desk], tuple[Callable[..., Any], list[Any]]]

CALLS: dict[str, Call] = {
    "matmul of cubes": lambda d: (nn.tnn_matmul, [d.cube, d.cube]),
    "matmul of halves": lambda d: (nn.tnn_matmul, [d.half, d.m]),
    "matmul of stored blocks": lambda d: (nn.tnn_matmul, [d.stored, d.rows_of_32]),
    "get_rows of stored blocks": lambda d: (nn.tnn_get_rows, [d.stored, d.ids]),
    "fused_linear of stored blocks": lambda d: (nn.tnn_fused_linear, [d.rows_of_32, [d.stored, d.stored], None, None]),
    "add": lambda d: (nn.tnn_add, [d.m, d.v]),
    "rms_norm": lambda d: (nn.tnn_rms_norm, [d.m, d.v, 1e-5]),
    "layer_norm": lambda d: (nn.tnn_layer_norm, [d.m, d.v, d.v, 1e-5]),
    "soft_max_ext": lambda d: (nn.tnn_soft_max_ext, [d.m, d.m2, 0.5, 0.0]),
    "soft_max_ext with ALiBi": lambda d: (nn.tnn_soft_max_ext, [d.m, d.m2, 0.5, 8.0]),
    "soft_max_ext without a mask": lambda d: (nn.tnn_soft_max_ext, [d.m, None, 0.5, 0.0]),
    "soft_max_ext of cubes": lambda d: (nn.tnn_soft_max_ext, [d.cube, d.cube, 0.5, 0.0]),
    "diag_mask_inf": lambda d: (nn.tnn_diag_mask_inf, [d.m, 0]),
    "rope_ext": lambda d: (nn.tnn_rope_ext, [d.cube, d.ids, 4, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0, None]),
    "rope_ext, YaRN": lambda d: (
        all_positional(nn.tnn_rope_ext),
        [d.cube, d.ids, 4, 1e4, 1.0, 1.0, 1.0, 32.0, 1.0, d.two, 0, 64],
    ),
    "flash_attn_ext": lambda d: (nn.tnn_flash_attn_ext, [d.cube, d.cube, d.cube, None, 0.5, 0.0, 0.0]),
    "flash_attn_ext, masked": lambda d: (
        nn.tnn_flash_attn_ext,
        [d.cube, d.cube, d.cube, nn.tnn_cast(d.s, nn.tnn_view_2d(d.s, d.m, 2, 4, 8, 0), nn.TNN_F16), 0.5, 1.0, 0.0],
    ),
    "get_rows": lambda d: (nn.tnn_get_rows, [d.m, d.ids]),
    "set_rows": lambda d: (nn.tnn_set_rows, [d.m, d.m2, d.ids]),
    "concat": lambda d: (nn.tnn_concat, [d.m, d.m2, 0]),
    "cont_2d": lambda d: (nn.tnn_cont_2d, [d.m, 2, 8]),
    "reshape_2d": lambda d: (nn.tnn_reshape_2d, [d.m, 2, 8]),
    "reshape_3d": lambda d: (nn.tnn_reshape_3d, [d.m, 2, 2, 4]),
    "view_1d": lambda d: (nn.tnn_view_1d, [d.m, 3, 4]),
    "view_2d": lambda d: (nn.tnn_view_2d, [d.m, 2, 2, 16, 4]),
    "cast": lambda d: (nn.tnn_cast, [d.m, nn.TNN_F16]),
    "cross_entropy_loss": lambda d: (nn.tnn_cross_entropy_loss, [d.m, d.m2]),
    "opt_step_adamw": lambda d: (nn.tnn_opt_step_adamw, [d.m, nn.tnn_scale(d.s, d.m, 1.0), d.m2, d.m3, d.hp]),
    "opt_step_sgd": lambda d: (nn.tnn_opt_step_sgd, [d.m, d.m2, d.two]),
    "fused_rms_norm": lambda d: (nn.tnn_fused_rms_norm, [d.m, d.v, 1e-5]),
    "fused_head_norm": lambda d: (nn.tnn_fused_head_norm, [d.wide, d.two, d.two, 2, 2, 1e-5]),
    "fused_rope_table": lambda d: (nn.tnn_fused_rope_table, [d.ids, None, 2, 1e4, 1.0, 1.0]),
    "fused_rope_table with factors": lambda d: (nn.tnn_fused_rope_table, [d.ids, d.one, 2, 1e4, 1.0, 1.0]),
    "fused_attention": lambda d: (all_positional(nn.tnn_fused_attention), [d.wide, d.table, 2, 2, 4, 3, 0.5, None]),
    "fused_attention with starts": lambda d: (
        all_positional(nn.tnn_fused_attention),
        [d.wide, d.table, 2, 2, 4, 3, 0.5, d.ids],
    ),
    "fused_attention_cached": lambda d: (
        all_positional(nn.tnn_fused_attention_cached),
        [d.wide, d.table, d.cache, d.id, 2, 2, 3, 0.5, 0, None],
    ),
    "fused_attention_cached of sequences": lambda d: (
        all_positional(nn.tnn_fused_attention_cached),
        [d.wide, d.table, d.half_cache, d.ids, 2, 2, 3, 0.5, 4, d.ids],
    ),
    "fused_swiglu": lambda d: (nn.tnn_fused_swiglu, [d.m]),
    "fused_geglu": lambda d: (nn.tnn_fused_geglu, [d.m]),
    "fused_cross_entropy": lambda d: (nn.tnn_fused_cross_entropy, [d.m, d.ids, -1, None]),
    "fused_cross_entropy with a divisor": lambda d: (nn.tnn_fused_cross_entropy, [d.m, d.ids, -1, d.one]),
    "fused_preference_loss": lambda d: (
        all_positional(nn.tnn_fused_preference_loss),
        [d.row_loss(), d.sequences, d.three, 0],
    ),
    "fused_output_loss": lambda d: (nn.tnn_fused_output_loss, [d.m, d.m2, d.ids, -1, d.one, 3]),
    "fused_linear": lambda d: (nn.tnn_fused_linear, [d.m, [d.m2, d.m3], [d.v, d.v], None]),
    "fused_linear with an addend": lambda d: (nn.tnn_fused_linear, [d.m, [d.m2], None, d.m3]),
    "fused_add_product": lambda d: (nn.tnn_fused_add_product, [d.wide, d.m, d.m2, 2]),
    "fused_scale": lambda d: (nn.tnn_fused_scale, [d.m, 0.5]),
    "swiglu_split": lambda d: (nn.tnn_swiglu_split, [d.m, d.m2]),
    "repeat of a row": lambda d: (nn.tnn_repeat, [d.v, d.m]),
    "permute": lambda d: (nn.tnn_permute, [d.cube, 1, 0, 2, 3]),
    "set_2d": lambda d: (nn.tnn_set_2d, [d.m, d.square, 16, 4]),
    "argsort": lambda d: (nn.tnn_argsort, [d.cube, 1]),
    "top_k": lambda d: (nn.tnn_top_k, [d.m, 2]),
    "mul_mat_id": lambda d: (nn.tnn_mul_mat_id, [d.cube, d.cube, nn.tnn_top_k(d.s, d.m, 2)]),
    "add_id": lambda d: (nn.tnn_add_id, [d.cube, d.m, nn.tnn_top_k(d.s, d.m, 2)]),
    "im2col": lambda d: (nn.tnn_im2col, [d.square, d.m, 1, 2, 0, 1, 2, 1, 1]),
    "im2col in one dimension": lambda d: (nn.tnn_im2col, [d.m, d.m2, 1, 0, 1, 0, 1, 0, 0]),
    "conv_1d": lambda d: (nn.tnn_conv_1d, [d.cube, nn.tnn_reshape_2d(d.s, d.m, 8, 2), 1, 1, 1]),
    "conv_2d": lambda d: (nn.tnn_conv_2d, [d.half, d.m2, 1, 1, 0, 0, 1, 1]),
    "ssm_conv": lambda d: (nn.tnn_ssm_conv, [d.m, nn.tnn_reshape_2d(d.s, d.small, 4, 4)]),
    "ssm_scan": lambda d: (
        nn.tnn_ssm_scan,
        [
            d.cube,
            nn.tnn_reshape_3d(d.s, d.small, 2, 4, 2),
            nn.tnn_reshape_2d(d.s, d.table, 4, 2),
            d.m,
            nn.tnn_reshape_3d(d.s, d.table, 4, 1, 2),
            nn.tnn_reshape_3d(d.s, d.table, 4, 1, 2),
            d.id,
        ],
    ),
    "gated_delta_net": lambda d: (
        nn.tnn_gated_delta_net,
        [
            d.v,
            d.v,
            nn.tnn_reshape_3d(d.s, d.m, 4, 4, 1),
            nn.tnn_reshape_2d(d.s, d.v, 1, 4),
            nn.tnn_reshape_2d(d.s, d.v, 1, 4),
            nn.tnn_concat_n(d.s, [nn.tnn_reshape_3d(d.s, d.m, 4, 4, 1)] * 4, 2),
        ],
    ),
    "rms_norm_back": lambda d: (nn.tnn_rms_norm_back, [d.m, d.m2, 1e-5]),
    "softmax_back": lambda d: (nn.tnn_softmax_back, [d.m, d.m2]),
    "silu_back": lambda d: (nn.tnn_silu_back, [d.m, d.m2]),
    "rope_ext_back": lambda d: (
        all_positional(nn.tnn_rope_ext_back),
        [d.cube, d.ids, 4, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0, d.two, 2, 0],
    ),
    "get_rows_back": lambda d: (nn.tnn_get_rows_back, [d.m, d.ids, d.m2]),
    "concat_n": lambda d: (nn.tnn_concat_n, [[d.m, d.m2, d.m3], 1]),
}


def _plain(call: HeaderCall) -> Call:
    """Return the call of a plain operator, with tensors that are matrices of one shape."""
    function = getattr(nn, call.name)
    names = [one.name for one in call.arguments[1:]]
    return lambda d: (function, [{"a": d.m, "b": d.m2}.get(name, 0.5) for name in names])


CALLS |= {
    call.name.removeprefix("tnn_"): _plain(call)
    for call in read_header(HEADER.read_text(encoding="utf-8")).plain_operators
    if call.name.removeprefix("tnn_") not in CALLS
}
# Operators that are appended after the backward graph of a fused graph is built.
STEPS: dict[str, Call] = {
    "fused_grad_norm": lambda d: (nn.tnn_fused_grad_norm, [[d.grad(), d.grad()], d.two]),
    "fused_adamw": lambda d: (nn.tnn_fused_adamw, [d.m, d.grad(), d.m3, d.fourth, d.hp, None]),
    "fused_adamw, clipped": lambda d: (
        nn.tnn_fused_adamw,
        [d.m, d.grad(), d.m3, d.fourth, d.hp, nn.tnn_fused_grad_norm(d.s, [d.grad()], d.two)],
    ),
    "fused_adamw, bf16": lambda d: (
        all_positional(nn.tnn_fused_adamw),
        [d.m, d.grad(), d.bf16_m, d.bf16_v, d.hp, None, d.id, 5],
    ),
    "fused_muon": lambda d: (nn.tnn_fused_muon, [d.m, d.grad(), d.m3, nn.tnn_view_1d(d.s, d.hp, 3, 0), None]),
    "fused_muon, clipped": lambda d: (
        nn.tnn_fused_muon,
        [d.m, d.grad(), d.m3, nn.tnn_view_1d(d.s, d.hp, 3, 0), nn.tnn_fused_grad_norm(d.s, [d.grad()], d.two)],
    ),
    "fused_muon, bf16": lambda d: (
        all_positional(nn.tnn_fused_muon),
        [d.m, d.grad(), d.bf16_m, nn.tnn_view_1d(d.s, d.hp, 3, 0), None, d.id, 5],
    ),
    "tensor_grad": lambda d: (nn.tnn_tensor_grad, [d.m]),
    "extend_backward_graph": lambda d: (nn.tnn_extend_backward_graph, [nn.tnn_scale(d.s, d.grad(), 1.0)]),
}

# Calls that do not append nodes to the graph.
OTHERS: dict[str, Call] = {
    "set_param": lambda d: (nn.tnn_set_param, [d.m]),
    "set_loss": lambda d: (nn.tnn_set_loss, [nn.tnn_sum(d.s, d.m)]),
    "set_output": lambda d: (nn.tnn_set_output, [d.m]),
    "tensor_set_bf16_products": lambda d: (nn.tnn_tensor_set_bf16_products, [d.m]),
    "set_z_loss": lambda d: (nn.tnn_set_z_loss, [d.row_loss(), 0.1]),
    "set_recompute": lambda d: (nn.tnn_set_recompute, [nn.tnn_sum(d.s, d.m)]),
    "tensor_nbytes": lambda d: (nn.tnn_tensor_nbytes, [d.m]),
    "tensor_nelements": lambda d: (nn.tnn_tensor_nelements, [d.m]),
    "tensor_dtype": lambda d: (nn.tnn_tensor_dtype, [d.m]),
    "tensor_flags": lambda d: (nn.tnn_tensor_flags, [d.m]),
    "tensor_op": lambda d: (nn.tnn_tensor_op, [d.m]),
    "tensor_op_name": lambda d: (nn.tnn_tensor_op_name, [d.m]),
    "tensor_set_interleaved": lambda d: (nn.tnn_tensor_set_interleaved, [d.stored, 2]),
    "tensor_set_name": lambda d: (nn.tnn_tensor_set_name, [d.m, "a name"]),
    "tensor_src": lambda d: (nn.tnn_tensor_src, [nn.tnn_sum(d.s, d.m), 0]),
    "zero_tensor": lambda d: (nn.tnn_zero_tensor, [d.m]),
    "download": lambda d: (nn.tnn_download, [d.m]),
    "upload_from_float_array": lambda d: (nn.tnn_upload_from_float_array, [d.v, [1.0, 2.0, 3.0, 4.0]]),
    "upload_from_int_array": lambda d: (nn.tnn_upload_from_int_array, [d.ids, [1, 2, 3, 0]]),
}


def takes_session(function: Callable[..., Any]) -> bool:
    """Return whether the first argument is a session. Calls that inspect one tensor take only the tensor."""
    return "s" in inspect.signature(function).parameters


def make(function: Callable[..., Any], s: Session, arguments: list[Any]) -> Any:
    """Make a call, with the session if it takes one."""
    return function(s, *arguments) if takes_session(function) else function(*arguments)


def attempt(function: Callable[..., Any], s: Session, arguments: list[Any]) -> str:
    """Make a call, and return its error message, or "" if there is none."""
    try:
        make(function, s, arguments)
    except TinyNNError as error:
        return str(error)
    return ""
