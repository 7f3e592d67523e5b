"""Write the seed inputs of the fuzz target, one file for each part of the session API.

    python tools/fuzz/write_seeds.py FOLDER

All calls of a seed succeed, which tests/hostile/test_fuzz_target.py checks. The fuzzers start from the seeds and
change them. The files are generated and not kept in git, because an input refers to a call by its position in
tinynn.h.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from encoder import COUNTING, HYPER_PARAMETERS, RANDOM, Handle, Program, integer
from read_header import HEADER, read_header

_ROPE = (10000.0, 1.0, 0.0, 1.0, 32.0, 1.0)  # the values of the arguments from freq_base to beta_slow
F16, Q4_0, BF16 = 1, 2, 30
PLAIN = read_header(HEADER.read_text(encoding="utf-8")).plain_operators


def _weight(p: Program, *ne: int, moments: bool = True) -> Handle:
    """Declare a parameter [ne0] or [ne0, ne1] and then its moments, in the order that call_sequences.c expects."""
    name = "tnn_input_1d_f32_persistent" if len(ne) == 1 else "tnn_input_2d_f32_persistent"
    w = p.call(name, *ne[::-1])
    if moments:
        p.call(name, *ne[::-1])
        p.call(name, *ne[::-1])
    p.call("tnn_set_param", w)
    return w


def _forward(p: Program, out: Handle) -> None:
    p.call("tnn_set_output", out)
    p.call("tnn_realize", out)
    p.raw("feed", bytes([RANDOM] * 40))
    p.call("tnn_compute")
    p.download(out)


def element_wise() -> Program:
    p = Program()
    w, g = p.call("tnn_input_2d_f32_persistent", 4, 8), p.call("tnn_input_1d_f32_persistent", 8)
    p.call("tnn_finalize_weights")
    p.upload(w, RANDOM)
    x = p.call("tnn_input_2d_f32", 4, 8)
    y = p.call("tnn_layer_norm", p.call("tnn_rms_norm", x, g, 1e-5), g, g, 1e-5)
    total = p.call("tnn_sum", y)
    for operator in PLAIN:
        operands = {"a": y, "b": w}
        made = p.call(operator.name, *(operands.get(one.name, 0.5) for one in operator.arguments[1:]))
        total = p.call("tnn_add", total, p.call("tnn_sum", made))
    _forward(p, total)
    return p


def shapes() -> Program:
    p = Program()
    p.call("tnn_finalize_weights")
    a, b = p.call("tnn_input_2d_f32", 4, 6), p.call("tnn_input_2d_f32", 4, 6)
    c = p.call("tnn_concat", a, b, 1)
    d = p.listed("tnn_concat_n", [a, b, a], b"", length_first=integer(0))
    e = p.call("tnn_matmul", p.call("tnn_transpose", d), p.call("tnn_cont_2d", c, 4, 12))
    f = p.call("tnn_reshape_3d", p.call("tnn_reshape_2d", e, 12, 18), 6, 6, 6)
    v = p.call("tnn_view_2d", d, 3, 2, 72, 12)
    w = p.call("tnn_view_1d", f, 6, 24)
    z = p.call("tnn_add", p.call("tnn_cont_2d", v, 6, 1), w)
    _forward(p, p.call("tnn_diag_mask_inf", p.call("tnn_reshape_2d", z, 3, 2), 1))
    return p


def attention() -> Program:
    p = Program()
    half = p.call("tnn_input_2d_persistent_typed", 4, 4, F16)
    table = p.call("tnn_input_2d_persistent_typed", 16, 8, BF16)
    p.call("tnn_finalize_weights")
    p.upload(table, RANDOM)
    ids, positions = p.call("tnn_input_1d_i32", 4), p.call("tnn_input_1d_i32_ctx", 4)
    x = p.call("tnn_reshape_3d", p.call("tnn_get_rows", table, ids), 4, 2, 4)
    factors = p.call("tnn_input_1d_f32", 2)
    q = p.call("tnn_rope_ext", x, positions, 4, *_ROPE, factors, 2, 0)
    k = p.call("tnn_rope_ext", x, positions, 2, *_ROPE, None, 0, 0)
    q, k = (p.call("tnn_reshape_3d", one, 4, 4, 2) for one in (q, k))
    scores = p.call("tnn_soft_max_ext", p.call("tnn_matmul", k, q), p.call("tnn_input_2d_f32", 4, 4), 0.5, 1.0)
    flash = p.call("tnn_flash_attn_ext", q, k, k, half, 0.5, 0.0, 0.0)
    flash = p.call("tnn_reshape_3d", flash, 4, 4, 2)
    _forward(p, p.call("tnn_mul", scores, p.call("tnn_cast", p.call("tnn_cast", flash, F16), 0)))
    return p


def rows() -> Program:
    p = Program()
    table, counts = p.call("tnn_input_3d_f32_persistent", 1, 6, 4), p.call("tnn_input_1d_i32_persistent", 6)
    p.call("tnn_finalize_weights")
    p.upload(counts, COUNTING, integers=True)
    p.download(counts, integers=True)
    ids, x = p.call("tnn_input_1d_i32", 3), p.call("tnn_input_2d_f32", 3, 4)
    written = p.call("tnn_set_rows", table, x, ids)
    copied = p.call(
        "tnn_cpy", p.call("tnn_scale", p.call("tnn_get_rows", written, ids), 2.0), p.call("tnn_input_2d_f32", 3, 4)
    )
    p.call("tnn_set_output", copied)
    p.call("tnn_realize", copied)
    p.upload(ids, COUNTING, integers=True)
    p.upload(x, RANDOM)
    p.raw("feed", bytes([RANDOM, COUNTING, COUNTING] + [RANDOM] * 8))
    p.call("tnn_compute")
    p.download(copied)
    return p


def experts() -> Program:
    p = Program()
    matrices, bias = p.call("tnn_input_3d_f32_persistent", 3, 5, 4), p.call("tnn_input_2d_f32_persistent", 3, 5)
    p.call("tnn_finalize_weights")
    p.upload(matrices, RANDOM)
    scores, x = p.call("tnn_input_2d_f32", 6, 3), p.call("tnn_input_2d_f32", 6, 4)
    best = p.call("tnn_top_k", scores, 2)
    y = p.call("tnn_mul_mat_id", matrices, p.call("tnn_reshape_3d", x, 4, 1, 6), best)
    y = p.call("tnn_add_id", y, bias, best)
    ordered = p.call("tnn_argsort", p.call("tnn_view_1d", scores, 3, 0), 1)
    picked = p.call("tnn_get_rows", bias, ordered)
    total = p.call("tnn_add", p.call("tnn_sum", y), p.call("tnn_sum", picked))
    _forward(p, total)
    return p


def convolutions() -> Program:
    p = Program()
    kernel, x = p.call("tnn_input_3d_f32_persistent", 2, 3, 3), p.call("tnn_input_3d_f32_persistent", 2, 5, 6)
    line = p.call("tnn_input_2d_f32_persistent", 3, 8)
    p.call("tnn_finalize_weights")
    patches = p.call("tnn_im2col", kernel, x, 2, 1, 1, 0, 1, 2, 1)
    a = p.call("tnn_conv_2d", kernel, x, 1, 1, 1, 1, 1, 1)
    b = p.call("tnn_conv_1d", kernel, line, 2, 1, 1)
    c = p.call("tnn_ssm_conv", p.call("tnn_reshape_2d", line, 6, 4), p.call("tnn_input_2d_f32", 4, 3))
    total = p.call("tnn_sum", patches)
    for one in (a, b, c):
        total = p.call("tnn_add", total, p.call("tnn_sum", one))
    _forward(p, total)
    return p


def recurrences() -> Program:
    p = Program()
    state, x = p.call("tnn_input_3d_f32_persistent", 4, 3, 5), p.call("tnn_input_3d_f32_persistent", 6, 4, 3)
    v, matrices = p.call("tnn_input_3d_f32_persistent", 5, 2, 6), p.call("tnn_input_3d_f32_persistent", 2, 6, 6)
    p.call("tnn_finalize_weights")
    dt, a, ids = p.call("tnn_input_2d_f32", 6, 4), p.call("tnn_input_2d_f32", 4, 1), p.call("tnn_input_1d_i32", 1)
    b = p.call("tnn_reshape_3d", p.call("tnn_input_2d_f32", 6, 10), 5, 2, 6)
    scanned = p.call("tnn_ssm_scan", state, x, dt, a, b, b, ids)
    g = p.call("tnn_reshape_3d", p.call("tnn_input_2d_f32", 5, 2), 1, 2, 5)
    ruled = p.call("tnn_gated_delta_net", v, v, v, g, g, matrices)
    total = p.call("tnn_add", p.call("tnn_sum", scanned), p.call("tnn_sum", ruled))
    p.call("tnn_set_output", total)
    p.call("tnn_realize", total)
    p.upload(ids, 0, integers=True)
    p.raw("feed", bytes([RANDOM] * 40))
    p.upload(ids, COUNTING, integers=True)
    p.call("tnn_compute")
    return p


def derivatives() -> Program:
    p = Program()
    x, y = p.call("tnn_input_2d_f32_persistent", 4, 6), p.call("tnn_input_2d_f32_persistent", 4, 6)
    p.call("tnn_finalize_weights")
    p.upload(x, RANDOM)
    p.upload(y, RANDOM)
    positions = p.call("tnn_input_1d_i32", 4)
    cube = p.call("tnn_reshape_3d", x, 6, 1, 4)
    made = [
        p.call("tnn_rms_norm_back", x, y, 1e-5),
        p.call("tnn_softmax_back", x, y),
        p.call("tnn_silu_back", x, y),
        p.call("tnn_rope_ext_back", cube, positions, 4, *_ROPE, None, 2, 0),
        p.call("tnn_get_rows_back", x, positions, y),
        p.call("tnn_swiglu_split", x, y),
        p.call("tnn_set_2d", x, p.call("tnn_input_2d_f32", 2, 3), 24, 8),
        p.call("tnn_cont_2d", p.call("tnn_permute", cube, 2, 0, 1, 3), 4, 6),
    ]
    total = p.call("tnn_sum", x)
    for one in made:
        total = p.call("tnn_add", total, p.call("tnn_sum", one))
    p.call("tnn_set_output", total)
    p.call("tnn_realize", total)
    p.raw("feed", bytes([RANDOM] * 40))
    p.upload(positions, COUNTING, integers=True)
    p.call("tnn_compute")
    return p


def without_scratch() -> Program:
    """Use only fused operators that need no scratch memory, so the scratch pointer is NULL."""
    p = Program()
    p.call("tnn_finalize_weights")
    x, g = p.call("tnn_input_2d_f32", 3, 6), p.call("tnn_input_1d_f32", 6)
    h = p.call("tnn_fused_rms_norm", x, g, 1e-5)
    _forward(p, p.call("tnn_add", p.call("tnn_fused_swiglu", h), p.call("tnn_fused_geglu", h)))
    p.reset()
    qkv, gamma = p.call("tnn_input_2d_f32", 3, 6), p.call("tnn_input_1d_f32", 2)
    _forward(p, p.call("tnn_fused_head_norm", qkv, gamma, gamma, 1, 1, 1e-5))
    return p


def _plain_loss(p: Program) -> Handle:
    w1, w2, g = _weight(p, 6, 8), _weight(p, 8, 5), _weight(p, 8)
    p.call("tnn_finalize_weights")
    for w in (w1, w2, g):
        p.upload(w, RANDOM)
    x, labels = p.call("tnn_input_2d_f32", 3, 6), p.call("tnn_input_2d_f32", 3, 5)
    h = p.call("tnn_silu", p.call("tnn_rms_norm", p.call("tnn_matmul", w1, x), g, 1e-5))
    return p.call("tnn_cross_entropy_loss", p.call("tnn_matmul", w2, h), labels)


def training() -> Program:
    p = Program()
    _plain_loss(p)
    p.raw("finish_backward", bytes([0, 2, *[RANDOM] * 40]))
    return p


def training_by_sgd() -> Program:
    p = Program()
    w, m, v = (p.call("tnn_input_2d_f32_persistent", 3, 4) for _ in range(3))
    p.call("tnn_set_param", w)
    p.call("tnn_set_param", m)
    p.call("tnn_finalize_weights")
    x = p.call("tnn_input_2d_f32", 2, 4)
    loss = p.call("tnn_sum", p.call("tnn_matmul", p.call("tnn_add", w, m), x))
    p.call("tnn_set_loss", loss)
    p.call("tnn_build_forward_only", loss)
    p.call("tnn_build_backward")
    grad, hp = p.call("tnn_tensor_grad", w), p.call("tnn_input_1d_f32", 2)
    p.call("tnn_set_output", grad)
    p.call("tnn_extend_backward_graph", p.call("tnn_opt_step_sgd", w, grad, hp))
    p.call("tnn_pin_all_graph_b_nodes")
    p.call("tnn_realize_backward")
    p.upload(x, RANDOM)
    p.upload(hp, HYPER_PARAMETERS)
    p.call("tnn_graph_reset_grads_only")
    p.call("tnn_compute_backward")
    p.download(grad)
    p.call("tnn_graph_reset")
    p.raw("tnn_compute_profiled", bytes([0]))
    p.call("tnn_zero_tensor", v)
    return p


def _fused_loss(
    p: Program,
    *,
    batch: int = 1,
    biases: bool = False,
    tied: bool = True,
    window: int = 0,
    part: int = 0,
    in_samples: bool = False,
    bf16: bool = False,
) -> tuple[Handle, ...]:
    """Build a model of one layer. Return ids, positions, targets and loss.

    in_samples: positions are also the starts of the samples. bf16: some products have bfloat16 operands.
    """
    d, d_head, heads, n_kv, d_ff, vocab, t_seq = 8, 4, 2, 1, 6, 9, 5
    table, gamma = _weight(p, d, vocab), _weight(p, d)
    q, k, v = (_weight(p, d, n * d_head) for n in (heads, n_kv, n_kv))
    bias = [_weight(p, n * d_head) for n in (heads, n_kv, n_kv)] if biases else []
    out, gate, up, down = (_weight(p, *ne) for ne in ((heads * d_head, d), (d, d_ff), (d, d_ff), (d_ff, d)))
    head = table if tied else _weight(p, d, vocab)
    for weight in (q, out, gate, head) if bf16 else ():
        p.call("tnn_tensor_set_bf16_products", weight)
    p.call("tnn_finalize_weights")
    ids, positions, targets = (p.call("tnn_input_1d_i32", t_seq * batch) for _ in range(3))
    x = p.call("tnn_get_rows", table, ids)
    if part:
        p.call("tnn_set_recompute", x)
    turn = p.call("tnn_fused_rope_table", positions, None, d_head, 10000.0, 1.0, 1.0)
    qkv = p.linear(p.call("tnn_fused_rms_norm", x, gamma, 1e-5), [q, k, v], bias)
    starts = positions if in_samples else None
    a = p.call("tnn_fused_attention", qkv, turn, heads, n_kv, t_seq, window, 0.0, starts)
    x = p.linear(a, [out], add=x)
    x = p.call("tnn_fused_add_product", x, p.call("tnn_fused_scale", x, 0.5), out, 0)
    h = p.call("tnn_fused_swiglu", p.linear(p.call("tnn_fused_rms_norm", x, gamma, 1e-5), [gate, up]))
    x = p.call("tnn_add", x, p.linear(h, [down]))
    if part:
        p.call("tnn_set_recompute", x)
        return ids, positions, targets, p.call("tnn_fused_output_loss", x, head, targets, -1, None, part)
    logits = p.linear(x, [head])
    return ids, positions, targets, p.call("tnn_fused_cross_entropy", logits, targets, -1, None)


def fused_training() -> Program:
    p = Program()
    p.call("tnn_session_set_windows", 2, 0)
    _fused_loss(p, batch=2, window=3)
    p.raw("finish_backward", bytes([0, 1, *[RANDOM] * 60]))
    return p


def fused_training_in_one_call() -> Program:
    """Call tnn_train_step, with a gradient norm that clips and with accumulated gradients."""
    p = Program()
    ids, positions, targets, loss = _fused_loss(p, biases=True, tied=False, part=2, in_samples=True, bf16=True)
    w, m, v = Handle(0, True), Handle(1, True), Handle(2, True)
    places = range(0, 39, 3)  # each weight is followed by its two moments
    p.call("tnn_set_z_loss", loss, 1e-5)
    p.call("tnn_set_output", loss)
    p.call("tnn_set_loss", loss)
    p.call("tnn_build_forward_only", loss)
    p.call("tnn_build_backward")
    grads = [p.call("tnn_tensor_grad", Handle(place, True)) for place in places]
    for grad in grads:
        p.call("tnn_set_output", grad)
    hp, clip = p.call("tnn_input_1d_f32", 7), p.call("tnn_input_1d_f32", 2)
    norm = p.listed("tnn_fused_grad_norm", grads[:7], p.tensor(clip))
    p.call("tnn_set_output", norm)
    p.call("tnn_extend_backward_graph", p.call("tnn_fused_adamw", w, grads[0], m, v, hp, norm, None, 0))
    q, momentum = Handle(places[2], True), Handle(places[2] + 1, True)
    hp_of_muon = p.call("tnn_view_1d", hp, 3, 0)
    p.call("tnn_extend_backward_graph", p.call("tnn_fused_muon", q, grads[2], momentum, hp_of_muon, norm, None, 0))
    p.call("tnn_realize_backward")
    p.call("tnn_reserve_batches", 3)
    p.upload(positions, COUNTING, integers=True)
    p.upload(clip, HYPER_PARAMETERS)
    p.train_step(ids, targets, hp, loss, norm, mode=1 | 4)
    p.train_step(ids, targets, hp, loss, None, mode=2 | 4)
    p.call("tnn_gradient_parts", w)
    p.call("tnn_gradient_place", w, 0)
    p.raw("tnn_download_window_sum", integer(0), integer(1), integer(0), integer(4), bytes([0]))
    p.begin_step(ids, targets, hp, loss, accumulate=0)
    p.call("tnn_continue_step", q)
    p.raw("tnn_download_window_sum", integer(0), integer(0), integer(0), integer(4), bytes([0]))
    p.call("tnn_continue_step", None)
    p.download(norm)
    return p


def preference() -> Program:
    p = Program()
    *_, loss = _fused_loss(p, batch=2)
    reference, settings = p.call("tnn_input_2d_f32", 2, 2), p.call("tnn_input_1d_f32", 3)
    out = p.call("tnn_fused_preference_loss", loss, reference, settings, 0)
    p.call("tnn_set_output", out)
    p.call("tnn_realize", out)
    p.raw("feed", bytes([RANDOM] * 40))
    # beta 0.1, label smoothing 0 and divisor 1, as places in the table NUMBERS of decoder.c
    p.raw("tnn_upload_from_float_array", p.tensor(settings), bytes([0, 240, 9, 0, 1]))
    p.call("tnn_compute")
    p.download(out)
    return p


def cached() -> Program:
    p = Program()
    caches = [p.call("tnn_input_2d_f32_persistent", 7, 8), p.call("tnn_kv_cache", 7, 8, F16)]
    w = p.call("tnn_input_2d_f32_persistent", 16, 6)
    p.call("tnn_finalize_weights")
    for cache in caches:
        x, positions, n_past = (
            p.call("tnn_input_2d_f32", 3, 6),
            p.call("tnn_input_1d_i32", 3),
            p.call("tnn_input_1d_i32", 1),
        )
        turn = p.call("tnn_fused_rope_table", positions, None, 4, 10000.0, 1.0, 1.0)
        y = p.call("tnn_fused_attention_cached", p.linear(x, [w]), turn, cache, n_past, 2, 1, 2, 0.5, 0, None)
        _forward(p, y)
        p.reset()
    p.call("tnn_resize_kv_caches", 9)
    return p


def rebuilt() -> Program:
    p = Program()
    w = p.call("tnn_input_2d_f32_persistent", 3, 4)
    p.raw("tnn_session_set_n_threads", bytes([1]))
    p.call("tnn_finalize_weights")
    for size in (2, 7):
        p.call("tnn_session_set_graph_capacity", 64)
        x = p.call("tnn_input_2d_f32", size, 4)
        y = p.call("tnn_matmul", w, x)
        p.raw("tnn_tensor_set_name", p.tensor(y), bytes([131]))
        _forward(p, y)
        p.raw("look")
        p.raw("tnn_compute_profiled", bytes([0]))
        p.reset()
    return p


def looked_at() -> Program:
    p = Program()
    w = p.call("tnn_input_2d_f32_persistent", 3, 4)
    p.call("tnn_finalize_weights")
    y = p.call("tnn_rms_norm", w, p.call("tnn_input_1d_f32", 4), 1e-5)
    p.raw("finish_forward", bytes([0, 1, *[RANDOM] * 8]))
    for what in ("ne0", "ne1", "ne2", "ne3", "nbytes", "nelements", "dtype", "flags", "name", "op", "op_name"):
        p.call(f"tnn_tensor_{what}", y)
    p.call("tnn_tensor_src", y, 0)
    p.call("tnn_graph_n_nodes")
    p.call("tnn_graph_node", 0)
    p.call("tnn_backend_name")
    for what in ("graph_capacity", "n_threads", "weights_nbytes", "compute_nbytes"):
        p.call(f"tnn_session_{what}")
    p.raw("tnn_last_error")
    p.raw("tnn_last_error_code")
    return p


def mapped() -> Program:
    p = Program()
    for mapping, name in ((0, 131), (1, 0), (0, 131)):
        p.raw("tnn_session_attach_weight_mmap", bytes([mapping, name]))
    w = p.call("tnn_input_2d_persistent_mmap", 6, 64, Q4_0, 36)
    p.call("tnn_tensor_set_interleaved", w, 2)
    p.call("tnn_input_3d_persistent_mmap", 2, 3, 32, F16, 128)
    p.call("tnn_input_1d_persistent_mmap", 64, 0, 4096)
    p.call("tnn_finalize_weights")
    ids = p.call("tnn_input_1d_i32", 3)
    p.call("tnn_realize", p.call("tnn_matmul", w, p.call("tnn_get_rows", w, ids)))
    p.upload(ids, COUNTING, integers=True)
    p.call("tnn_compute")
    return p


def two_forward_graphs() -> Program:
    """Compute two graphs in turn, twice each. The second graph shares a node with the first and writes a weight."""
    p = Program()
    factors = p.call("tnn_rope_freq_factors_alloc", 4)
    w, stack = p.call("tnn_input_1d_f32_persistent", 4), p.call("tnn_input_4d_f32_persistent", 2, 1, 2, 4)
    p.call("tnn_finalize_weights")
    x = p.call("tnn_input_1d_f32", 4)
    shared = p.call("tnn_add", w, x)
    p.call("tnn_add_to_graph", p.call("tnn_cpy", shared, factors))
    first = p.call("tnn_sum", p.call("tnn_mul", stack, w))
    p.call("tnn_set_output", first)
    p.call("tnn_realize", first)
    second = p.call("tnn_cpy", p.call("tnn_scale", shared, 0.5), w)
    p.call("tnn_realize_b", second)
    for switch, compute in (("tnn_switch_a", "tnn_compute"), ("tnn_switch_b", "tnn_compute_b")) * 2:
        p.call(switch)
        p.upload(x, RANDOM)
        p.call(compute)
    p.download(w)
    return p


def without_a_session() -> Program:
    p = Program()
    for what in (
        "ggml_version",
        "ggml_commit",
        "profile",
        "compiler",
        "build_type",
        "build_options",
        "cpu_features",
        "cpu_missing",
    ):
        p.call(f"tnn_{what}")
    p.call("tnn_gemm_kernel")
    p.raw("tnn_gemm_kernel_at", integer(0))
    p.raw("tnn_row_size", integer(8), integer(64))
    p.raw("tnn_session_new_on", integer(0), integer(0))
    p.raw("tnn_gemm_use_kernel", bytes([128]))
    p.call("tnn_available_cores")
    p.call("tnn_available_memory")
    for dtype in (0, 1, 2, 8, 12, 16, 30):
        for what in ("size", "nbytes"):
            p.call(f"tnn_type_block_{what}", dtype)
        p.raw("tnn_type_name", integer(dtype))
        p.raw("tnn_dequantize", integer(dtype), bytes([3, 0, RANDOM]))
        p.raw("tnn_quantize", integer(dtype), bytes([3, 0, RANDOM]))
    for kind in (0, 1):
        p.raw("tnn_random_seed", bytes([0]), integer(kind), integer(7))
        p.raw("tnn_random_gaussian", integer(kind), bytes([0, 9, 0]), bytes(range(8)), bytes([1]))
    p.raw("tnn_slice_adamw", bytes([0, 9, *[RANDOM] * 5, 1]))
    p.raw("tnn_slice_round", bytes([0, 9, 0, 3, 0, 1, RANDOM]), integer(7), integer(2))
    p.raw("tnn_slice_squares", bytes([0, 200, 0, 3, 0, 60, RANDOM]))
    return p


def two_sessions() -> Program:
    p = Program()
    p.call("tnn_input_1d_f32_persistent", 4)
    p.raw("use_session", bytes([1]))
    p.raw("tnn_session_free", bytes([1]))
    p.raw("tnn_session_new", bytes([1]), integer(0))
    p.raw("tnn_session_new", bytes([2]), integer(0))
    p.raw("use_session", bytes([2]))
    p.raw("tnn_session_free", bytes([0]))
    return p


SEEDS: list[Callable[[], Program]] = [
    element_wise,
    shapes,
    attention,
    rows,
    experts,
    convolutions,
    recurrences,
    derivatives,
    without_scratch,
    training,
    training_by_sgd,
    fused_training,
    fused_training_in_one_call,
    preference,
    cached,
    rebuilt,
    looked_at,
    mapped,
    two_forward_graphs,
    without_a_session,
    two_sessions,
]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        (folder / seed.__name__).write_bytes(bytes(seed()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
