"""Further names of session calls, from the Ruby project toy, so that its scripts can be ported line by line."""

from __future__ import annotations

from toynn.tinynn.calls.declare import tnn_input_1d_i32, tnn_input_2d_f32
from toynn.tinynn.calls.forward import tnn_compute, tnn_realize
from toynn.tinynn.calls.operators import tnn_add, tnn_gelu, tnn_matmul, tnn_rms_norm, tnn_scale, tnn_softmax
from toynn.tinynn.session_calls import tnn_session_free, tnn_session_new

__all__ = [
    "alloc_1d_i32",
    "alloc_2d",
    "build_add",
    "build_gelu",
    "build_matmul",
    "build_rms_norm",
    "build_scale",
    "build_softmax",
    "compute",
    "persistent_free",
    "persistent_new",
    "realize",
]

persistent_new = tnn_session_new
persistent_free = tnn_session_free
alloc_2d = tnn_input_2d_f32
alloc_1d_i32 = tnn_input_1d_i32
build_matmul = tnn_matmul
build_add = tnn_add
build_gelu = tnn_gelu
build_softmax = tnn_softmax
build_scale = tnn_scale
build_rms_norm = tnn_rms_norm
realize = tnn_realize
compute = tnn_compute
