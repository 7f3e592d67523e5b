"""Wrong input raises an error that names the argument, and the process still works. Each case runs in a new process.

A case is a few lines of Python: lines that prepare the call, a line that must raise an error, and lines that check that
the process still works. For example, they check that a realized model still trains or is closed, and that a new model
can be created.
"""

# ruff: noqa: E501 (one case per line is easier to compare)

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

PRELUDE = """
import math
import numpy as np
from dataclasses import replace
from toynn import *
from toynn import tinynn as nn
from toynn.model.init_streams import make_stream

CFG = SmolLM2Config.mha(23, 12, 3, 20, 2, 16, 10000.0, 1e-5)
OPTS = RecipeOptions(t_seq=4, n_threads=1)
IDS, POSITIONS, LABELS, HP = [1, 2, 3, 4], range(4), labels.next_token([1, 2, 3, 4], 23, 4, 1), AdamW().hp(1)

def recipe(cfg=CFG, opts=OPTS):
    r = FromScratch()
    r.realize(cfg, opts)
    return r

def good(r, first=False):
    loss = r.step(IDS, POSITIONS, LABELS, HP, first)
    assert math.isfinite(loss), loss

def engine(**changes):
    e = LlamaSeqEngine()
    given = dict(t_seq=4, t_batch=1, weight_dtype=0, untied=False, qkv_bias=False, seed=0, init_scale=1.0)
    e.realize_for_random_init(CFG, **{**given, **changes})
    return e

def spoiled(array, at, value):
    array = np.array(array, dtype=np.float32)
    array[at] = value
    return array

def session():
    s = Session(n_threads=1)
    w = nn.tnn_input_2d_f32_persistent(s, 3, 4)
    b = nn.tnn_input_1d_f32_persistent(s, 4)
    ids = nn.tnn_input_1d_i32_persistent(s, 2)
    nn.tnn_finalize_weights(s)
    return s, w, b, ids

def check_session(s, w):
    if s.closed:
        return
    nn.tnn_reset_for_rebuild(s)
    out = nn.tnn_scale(s, w, 2.0)
    nn.tnn_set_output(out)
    nn.tnn_realize(s, out)
    nn.upload_row_major(s, w, np.ones((3, 4)))
    nn.tnn_compute(s)
    assert (nn.download_row_major(s, out, 3, 4) == 2).all()
"""


@dataclass
class Case:
    name: str
    setup: str
    wrong: str
    raises: str
    mentions: str
    after: str = "good(recipe(), True)"

    def script(self) -> str:
        return "\n".join(
            [
                PRELUDE,
                textwrap.dedent(self.setup),
                "try:",
                textwrap.indent(textwrap.dedent(self.wrong), "    "),
                "except Exception as error:",
                "    classes = [c.__name__ for c in type(error).__mro__]",
                '    print("raised " + ",".join(classes) + ": " + ascii(str(error)))',
                "else:",
                '    print("raised nothing")',
                textwrap.dedent(self.after),
                'print("still works")',
            ]
        )


STEP = "r = recipe(); good(r, True)"
STILL = "good(r)"


def step(name: str, arguments: str, raises: str, mentions: str) -> Case:
    """Return a case with a wrong step, on a recipe that has trained one step and must remain usable."""
    return Case(f"step: {name}", STEP, f"r.step({arguments})", raises, mentions, STILL)


def config(name: str, fields: str, raises: str, mentions: str) -> Case:
    return Case(f"config: {name}", "", f"recipe(replace(CFG, {fields}))", raises, mentions)


def option(name: str, fields: str, raises: str, mentions: str) -> Case:
    return Case(f"options: {name}", "", f"recipe(CFG, RecipeOptions({fields}))", raises, mentions)


def call(name: str, wrong: str, raises: str, mentions: str) -> Case:
    """Return a case with a wrong session call, on a session that must remain usable."""
    return Case(f"session: {name}", "s, w, b, ids = session()", wrong, raises, mentions, "check_session(s, w)")


CASES = [
    # ---- inputs of a step ----
    step("an id above the vocabulary", "[1, 2, 3, 23], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids[3] is 23"),
    step("a negative id", "[1, 2, -1, 4], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids[2] is -1"),
    step("an id beyond int32", "[1, 2, 2**40, 4], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids"),
    step("an id beyond int64", "[1, 2, 2**70, 4], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids"),
    step("too few ids", "[1, 2, 3], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids"),
    step("no ids", "[], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids"),
    step("ids in two dimensions", "[[1, 2, 3, 4]], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids"),
    step("ids of floats", "[1.0, 2.0, 3.0, 4.0], POSITIONS, LABELS, HP, False", "TypeError", "seq_ids"),
    step("ids of bools", "[True] * 4, POSITIONS, LABELS, HP, False", "TypeError", "seq_ids"),
    step("ids None", "None, POSITIONS, LABELS, HP, False", "TypeError", "seq_ids"),
    step("ids a str", "'1234', POSITIONS, LABELS, HP, False", "TypeError", "seq_ids"),
    step("ragged ids", "[[1], [2, 3], 4], POSITIONS, LABELS, HP, False", "ValueError", "seq_ids"),
    step("a position at ctx", "IDS, [0, 1, 2, 16], LABELS, HP, False", "ValueError", "positions[3] is 16"),
    step("a negative position", "IDS, [-1, 0, 1, 2], LABELS, HP, False", "ValueError", "positions[0] is -1"),
    step("too many positions", "IDS, range(5), LABELS, HP, False", "ValueError", "positions"),
    step("labels with a row too few", "IDS, POSITIONS, LABELS[:3], HP, False", "ValueError", "m_labels"),
    step("labels transposed", "IDS, POSITIONS, LABELS.T, HP, False", "ValueError", "m_labels"),
    step("labels flat", "IDS, POSITIONS, LABELS.ravel(), HP, False", "ValueError", "m_labels"),
    step("NaN in labels", "IDS, POSITIONS, spoiled(LABELS, (2, 3), np.nan), HP, False", "ValueError", "m_labels"),
    step("infinity in labels", "IDS, POSITIONS, spoiled(LABELS, (2, 3), np.inf), HP, False", "ValueError", "m_labels"),
    step("a negative label", "IDS, POSITIONS, spoiled(LABELS, (2, 3), -1), HP, False", "ValueError", "m_labels"),
    step("complex labels", "IDS, POSITIONS, LABELS.astype(complex), HP, False", "TypeError", "m_labels"),
    step("labels of objects", "IDS, POSITIONS, LABELS.astype(object), HP, False", "TypeError", "m_labels"),
    step("labels beyond f32", "IDS, POSITIONS, LABELS.astype(float) * 1e300, HP, False", "ValueError", "m_labels"),
    step("hp flat", "IDS, POSITIONS, LABELS, HP[0], False", "ValueError", "m_hp"),
    step("six hyperparameters", "IDS, POSITIONS, LABELS, HP[:, :6], False", "ValueError", "m_hp"),
    step("lr NaN", "IDS, POSITIONS, LABELS, spoiled(HP, (0, 0), np.nan), False", "ValueError", "m_hp: lr"),
    step("beta1 = 1", "IDS, POSITIONS, LABELS, spoiled(HP, (0, 1), 1), False", "ValueError", "m_hp: beta1"),
    step("beta2 below 0", "IDS, POSITIONS, LABELS, spoiled(HP, (0, 2), -0.1), False", "ValueError", "m_hp: beta2"),
    step("eps = 0", "IDS, POSITIONS, LABELS, spoiled(HP, (0, 3), 0), False", "ValueError", "m_hp: eps"),
    step("infinite weight decay", "IDS, POSITIONS, LABELS, spoiled(HP, (0, 4), np.inf), False", "ValueError", "m_hp: weight_decay"),
    step("s6 below 0", "IDS, POSITIONS, LABELS, spoiled(HP, (0, 6), -1), False", "ValueError", "m_hp: s6"),
    step("is_first an int", "IDS, POSITIONS, LABELS, HP, 1", "TypeError", "is_first"),
    Case(
        "threads that cannot be started",
        """
        import resource
        r = recipe(); s = r.fs_cache.sess
        nn.tnn_session_set_n_threads(s, 400, True)
        in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        unlimited = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, unlimited[1]))
        """,
        "good(r, True)",
        "MemoryError",
        "n_threads = 400",
        "resource.setrlimit(resource.RLIMIT_AS, unlimited); nn.tnn_session_set_n_threads(s, 1); good(r, True)",
    ),
    # ---- calls in a wrong order ----
    Case("step before realize", "r = FromScratch()", "good(r, True)", "SessionError", "realize", "r.realize(CFG, OPTS); good(r, True)"),
    Case("step after close", STEP + "; r.close()", "good(r)", "SessionError", "realize", "r.realize(CFG, OPTS); good(r, True)"),
    Case("realize twice", STEP, "r.realize(CFG, OPTS)", "SessionError", "realized", STILL),
    Case("step after forward", STEP + "; r.fs_cache.forward(IDS)", "good(r)", "SessionError", "build_training_step", "r.build_training_step(); good(r)"),
    Case("engine realized twice", "e = engine()", "e.realize_for_random_init(CFG, 4, 1, 0, False, False, 0, 1.0)", "SessionError", "realized", "e.forward(IDS)"),
    Case("engine before realize", "e = LlamaSeqEngine()", "e.forward(IDS)", "SessionError", "realize_for_random_init"),
    Case("forward with a wrong id", "e = engine()", "e.forward([1, 2, 3, 99])", "ValueError", "seq_ids[3] is 99", "e.forward(IDS)"),
    Case("forward with a wrong position", "e = engine()", "e.forward(IDS, [0, 1, 2, 99])", "ValueError", "positions[3] is 99", "e.forward(IDS)"),
    # ---- models ----
    config("n_kv does not divide n_heads", "n_heads=4, n_kv=3, head_dim=4", "ValueError", "n_kv"),
    config("odd head_dim", "head_dim=5", "ValueError", "head_dim"),
    config("an empty vocabulary", "vocab=0", "ValueError", "vocab"),
    config("d_model a float", "d_model=12.0", "TypeError", "d_model"),
    config("n_layers negative", "n_layers=-1", "ValueError", "n_layers"),
    config("rms_eps NaN", "rms_eps=math.nan", "ValueError", "rms_eps"),
    config("rope_base infinite", "rope_base=math.inf", "ValueError", "rope_base"),
    config("sizes beyond 32 bits", "d_model=2**31 - 2, head_dim=4", "ValueError", "2^31"),
    config("sizes beyond 64 bits", "d_model=2**70", "ValueError", "d_model"),
    config("more memory than the machine has", "d_model=2**15, d_ff=2**15, n_layers=2**9", "MemoryError", "need"),
    config("a donor without untied", "donor_d_in=8", "ValueError", "donor_d_in"),
    Case("cfg of another type", "", "recipe({'vocab': 3})", "TypeError", "cfg"),
    Case("opts of another type", "", "recipe(CFG, {'t_seq': 3})", "TypeError", "opts"),
    option("t_seq unset", "", "ValueError", "t_seq"),
    option("t_seq above ctx", "t_seq=17", "ValueError", "t_seq"),
    option("t_seq negative", "t_seq=-4", "ValueError", "t_seq"),
    option("t_batch 0", "t_seq=4, t_batch=0", "ValueError", "t_batch"),
    option("a batch whose mask is too large", "t_seq=16, t_batch=2**20", "ValueError", "2^31"),
    option("a batch beyond 31 bits", "t_seq=16, t_batch=2**30", "ValueError", "t_batch"),
    option("weight_dtype unknown", "t_seq=4, weight_dtype=2", "ValueError", "weight_dtype"),
    option("weight_dtype F16 in the fused layout", "t_seq=4, weight_dtype=1, layout='fused'", "ValueError", "F32 only"),
    option("untied an int", "t_seq=4, untied=1", "TypeError", "untied"),
    option("seed a float", "t_seq=4, seed=0.5", "TypeError", "seed"),
    option("seed beyond int64", "t_seq=4, seed=2**63", "ValueError", "seed"),
    option("init_scale NaN", "t_seq=4, init_scale=math.nan", "ValueError", "init_scale"),
    option("embedding_std 0", "t_seq=4, embedding_std=0", "ValueError", "embedding_std"),
    option("init_stream unknown", "t_seq=4, init_stream='mt19937'", "ValueError", "init_stream"),
    option("n_threads 0", "t_seq=4, n_threads=0", "ValueError", "n_threads"),
    option("n_threads above the cores", "t_seq=4, n_threads=100000", "ValueError", "n_threads"),
    Case("engine: t_seq a str", "", "engine(t_seq='4')", "TypeError", "t_seq"),
    Case("engine: init_scale 0", "", "engine(init_scale=0)", "ValueError", "init_scale"),
    Case("an unknown stream", "", "make_stream('x', 0)", "ValueError", "init_stream"),
    Case("a stream of too many numbers", "", "make_stream('lcg31', 0).gaussian(2**60, 1.0)", "MemoryError", "n"),
    Case("a stream of a negative count", "", "make_stream('lcg31', 0).gaussian(-1, 1.0)", "ValueError", "n"),
    Case("a stream with a NaN spread", "", "make_stream('lcg31', 0).gaussian(1, math.nan)", "ValueError", "std"),
    # ---- sessions ----
    Case("kind unknown", "", "Session(kind=1)", "ValueError", "kind"),
    Case("kind a bool", "", "Session(kind=True)", "TypeError", "kind"),
    Case("n_threads above 512, oversubscribed", "", "Session(n_threads=513, oversubscribe=True)", "ValueError", "n"),
    Case("oversubscribe an int", "", "Session(oversubscribe=1)", "TypeError", "oversubscribe"),
    call("use after close", "s.close(); nn.tnn_silu(s, w)", "SessionError", "closed"),
    call("a handle of another session", "nn.tnn_add(s, w, session()[1])", "SessionError", "b "),
    call("a stale handle", "x = nn.tnn_silu(s, w); nn.tnn_reset_for_rebuild(s); nn.tnn_add(s, w, x)", "SessionError", "b "),
    call("a number for a tensor", "nn.tnn_add(s, w, 3)", "TypeError", "b must be a Tensor"),
    call("None for a tensor", "nn.tnn_add(s, None, w)", "TypeError", "a must be a Tensor"),
    call("a forged handle", "nn.tnn_add(s, w, Tensor(s, 12345678901))", "SessionError", "b "),
    call("a handle of 0", "nn.tnn_add(s, w, Tensor(s, 0))", "TypeError", "b "),
    call("declaring after finalize", "nn.tnn_input_1d_f32_persistent(s, 4)", "SessionError", "tnn_input_1d_f32_persistent"),
    call("finalize twice", "nn.tnn_finalize_weights(s)", "SessionError", "tnn_finalize_weights"),
    call("a size of 0", "nn.tnn_input_1d_f32(s, 0)", "ValueError", "n "),
    call("a negative size", "nn.tnn_input_2d_f32(s, -1, 4)", "ValueError", "rows"),
    call("a size beyond int64", "nn.tnn_input_1d_f32(s, 2**63)", "ValueError", "n "),
    call("sizes whose product overflows", "nn.tnn_input_2d_f32(s, 2**62, 2**62)", "ValueError", "cols"),
    call("a size that is a float", "nn.tnn_input_1d_f32(s, 4.0)", "TypeError", "n "),
    call("a size that is a bool", "nn.tnn_input_1d_f32(s, True)", "TypeError", "n "),
    call("a matrix product of different shapes", "nn.tnn_matmul(s, w, nn.tnn_transpose(s, w))", "ValueError", "a "),
    call("an addition of different shapes", "nn.tnn_add(s, b, w)", "ValueError", "b "),
    call("an addition of ids", "nn.tnn_add(s, ids, ids)", "TypeError", "a "),
    call("a factor that is NaN", "nn.tnn_scale(s, w, math.nan)", "ValueError", "factor"),
    call("a factor beyond f32", "nn.tnn_scale(s, w, 1e39)", "ValueError", "factor"),
    call("a factor beyond f64", "nn.tnn_scale(s, w, 10**400)", "ValueError", "factor"),
    call("a factor that is complex", "nn.tnn_scale(s, w, 1j)", "TypeError", "factor"),
    call("eps negative", "nn.tnn_rms_norm(s, w, b, -1.0)", "ValueError", "eps"),
    call("gamma of another size", "nn.tnn_rms_norm(s, nn.tnn_transpose(s, w), b, 1e-5)", "ValueError", "gamma"),
    call("ids that are floats", "nn.tnn_get_rows(s, w, b)", "TypeError", "ids"),
    call("a reshape to another size", "nn.tnn_reshape_2d(s, w, 5, 3)", "ValueError", "15"),
    call("a reshape that overflows", "nn.tnn_reshape_3d(s, w, 2**40, 2**40, 2**40)", "ValueError", "ne0"),
    call("a view that ends outside", "nn.tnn_view_1d(s, w, 12, 4)", "ValueError", "offset"),
    call("a view at a negative offset", "nn.tnn_view_1d(s, w, 2, -4)", "ValueError", "offset"),
    call("a view with an unaligned stride", "nn.tnn_view_2d(s, w, 2, 2, 7, 0)", "ValueError", "nb1"),
    call("a concat along a wrong dimension", "nn.tnn_concat(s, w, w, 7)", "ValueError", "dim"),
    call("a concat of nothing", "nn.tnn_concat_n(s, [], 0)", "ValueError", "n = 0"),
    call("a concat of a number", "nn.tnn_concat_n(s, [w, 3], 0)", "TypeError", "parts[1]"),
    call("a cast to an unknown dtype", "nn.tnn_cast(s, w, 8)", "TypeError", "dtype"),
    call("rope of odd rows", "nn.tnn_rope_ext(s, nn.tnn_reshape_3d(s, w, 3, 2, 2), ids, 2, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0)", "ValueError", "ne0 must be even"),
    call("gradient of rope of odd rows", "nn.tnn_rope_ext_back(s, nn.tnn_reshape_3d(s, w, 3, 2, 2), ids, 2, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0)", "ValueError", "ne0 must be even"),
    call("rope over an odd part", "nn.tnn_rope_ext(s, nn.tnn_reshape_3d(s, w, 2, 3, 2), ids, 1, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0)", "ValueError", "n_dims"),
    call("rope in an unknown mode", "nn.tnn_rope_ext(s, nn.tnn_reshape_3d(s, w, 2, 3, 2), ids, 2, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0, mode=8)", "ValueError", "mode"),
    call("a loss with labels of another shape", "nn.tnn_cross_entropy_loss(s, w, nn.tnn_transpose(s, w))", "ValueError", "labels"),
    call("a loss that is not a scalar", "nn.tnn_set_loss(nn.tnn_silu(s, w))", "ValueError", "t "),
    call("ids as a parameter", "nn.tnn_set_param(ids)", "TypeError", "t "),
    call("a name with NUL", "nn.tnn_tensor_set_name(w, 'a\\0b')", "ValueError", "name"),
    call("a name too long", "nn.tnn_tensor_set_name(w, 'x' * 64)", "ValueError", "name"),
    call("a name of a lone surrogate", "nn.tnn_tensor_set_name(w, chr(0xD800))", "ValueError", "name"),
    call("a name of bytes", "nn.tnn_tensor_set_name(w, b'x')", "TypeError", "name"),
    call("a capacity of 0", "nn.tnn_session_set_graph_capacity(s, 0)", "ValueError", "n_nodes"),
    call("a capacity beyond the limit", "nn.tnn_session_set_graph_capacity(s, 2**40)", "ValueError", "n_nodes"),
    call("a graph over its capacity", "nn.tnn_session_set_graph_capacity(s, 8)\nfor _ in range(9): nn.tnn_silu(s, w)", "SessionError", "tnn_session_set_graph_capacity"),
    call("compute before realize", "nn.tnn_compute(s)", "SessionError", "tnn_realize"),
    call("backward before forward", "nn.tnn_build_backward(s)", "SessionError", "tnn_build_forward_only"),
    call("an input never uploaded", "x = nn.tnn_input_2d_f32(s, 2, 4); o = nn.tnn_matmul(s, w, x); nn.tnn_realize(s, o); nn.tnn_compute(s)", "SessionError", "never uploaded"),
    call("an id outside its table", "nn.upload_int_array(s, ids, [0, 3]); o = nn.tnn_get_rows(s, w, ids); nn.tnn_realize(s, o); nn.tnn_compute(s)", "ValueError", "ids"),
    call("a negative id", "nn.upload_int_array(s, ids, [0, -1]); o = nn.tnn_get_rows(s, w, ids); nn.tnn_realize(s, o); nn.tnn_compute(s)", "ValueError", "ids"),
    call("realize twice", "o = nn.tnn_silu(s, w); nn.tnn_realize(s, o); nn.tnn_realize(s, o)", "SessionError", "tnn_realize"),
    call("download of a tensor that is not an output", "x = nn.tnn_silu(s, w); o = nn.tnn_silu(s, x); nn.tnn_realize(s, o); nn.tnn_compute(s); nn.tnn_download(s, x)", "SessionError", "tnn_set_output"),
    call("download before compute", "o = nn.tnn_silu(s, w); nn.tnn_set_output(o); nn.tnn_realize(s, o); nn.tnn_download(s, o)", "SessionError", "t "),
    call("download of unallocated memory", "nn.tnn_download(s, nn.tnn_silu(s, w))", "SessionError", "t "),
    call("download of ids as floats", "nn.tnn_download(s, ids)", "TypeError", "t "),
    call("download with other rows", "nn.download_row_major(s, w, 4, 4)", "ValueError", "rows"),
    call("download with other columns", "nn.download_row_major(s, w, 3, 3)", "ValueError", "cols"),
    call("upload of a transposed matrix", "nn.upload_row_major(s, w, np.ones((4, 3)))", "ValueError", "m must have shape (3, 4)"),
    call("upload of complex numbers", "nn.upload_row_major(s, w, np.ones((3, 4), dtype=complex))", "TypeError", "m "),
    call("upload of numbers beyond f32", "nn.upload_row_major(s, w, np.full((3, 4), 1e39))", "ValueError", "m "),
    call("upload of a matrix as ids", "nn.upload_int_array(s, w, np.ones((3, 4), dtype=int))", "TypeError", "t "),
    call("upload of ids as a matrix", "nn.upload_row_major(s, ids, np.ones((1, 2)))", "TypeError", "t "),
    call("upload of too many ids", "nn.upload_int_array(s, ids, [1, 2, 3])", "ValueError", "t "),
    call("upload of ids beyond int32", "nn.upload_int_array(s, ids, [1, 2**31])", "ValueError", "ids"),
    call("upload of too few numbers", "nn.tnn_upload_from_float_array(s, w, [1.0])", "ValueError", "t "),
    call("a backward through an operator without a derivative", "nn.tnn_set_param(w); l = nn.tnn_sum(s, nn.tnn_tanh(s, w)); nn.tnn_set_loss(l); nn.tnn_build_forward_only(s, l); nn.tnn_build_backward(s)", "ValueError", "parameter"),
    call("a backward without parameters", "l = nn.tnn_sum(s, w); nn.tnn_set_loss(l); nn.tnn_build_forward_only(s, l); nn.tnn_build_backward(s)", "SessionError", "tnn_set_param"),
    call("a backward that reaches only a tensor overwritten by a copy", "nn.tnn_set_param(w); x = nn.tnn_input_2d_f32(s, 3, 4); l = nn.tnn_sum(s, nn.tnn_cpy(s, x, w)); nn.tnn_set_loss(l); nn.tnn_build_forward_only(s, l); nn.tnn_build_backward(s); nn.tnn_realize_backward(s); nn.upload_row_major(s, x, np.ones((3, 4))); nn.tnn_graph_reset(s); nn.tnn_compute_backward(s)", "TinyNNError", "param"),
    call("a backward through both sides of a copy", "nn.tnn_set_param(w); l = nn.tnn_sum(s, nn.tnn_cpy(s, nn.tnn_scale(s, w, 2.0), w)); nn.tnn_set_loss(l); nn.tnn_build_forward_only(s, l); nn.tnn_build_backward(s)", "TinyNNError", "param"),
    call("a gradient without a backward", "nn.tnn_set_param(w); nn.tnn_tensor_grad(s, w)", "SessionError", "tnn_build_backward"),
    Case("a training step that skips every upload", "r = recipe(); s = r.fs_cache.sess", "nn.tnn_graph_reset(s); nn.tnn_compute_backward(s)", "SessionError", "never uploaded", "good(r, True)"),
    Case("a training step that skips the labels", "r = recipe(); s = r.fs_cache.sess", "nn.tnn_graph_reset(s); nn.upload_row_major(s, r.fs_t_hp, HP); nn.upload_int_array(s, r.fs_cache.t_seq_positions, POSITIONS); nn.tnn_compute_backward(s)", "SessionError", "labels", "good(r, True)"),
    Case("a training step without a reset", STEP + "; s = r.fs_cache.sess", "nn.tnn_compute_backward(s)", "SessionError", "tnn_graph_reset", STILL),
    Case("a handle of the training graph after forward", STEP + "; s = r.fs_cache.sess; t = r.fs_t_hp; r.fs_cache.forward(IDS)", "nn.upload_row_major(s, t, HP)", "SessionError", "t ", "r.build_training_step(); good(r)"),
    call("an optimizer step for a tensor that is not a parameter", "nn.tnn_opt_step_sgd(s, w, nn.tnn_silu(s, w), nn.tnn_input_1d_f32(s, 2))", "ValueError", "w "),
    call("a wrong number of hyperparameters", "nn.tnn_set_param(w); nn.tnn_opt_step_sgd(s, w, nn.tnn_silu(s, w), nn.tnn_input_1d_f32(s, 7))", "ValueError", "hp "),
    call("rows set twice", "nn.upload_int_array(s, ids, [1, 1]); x = nn.tnn_input_2d_f32(s, 2, 4); o = nn.tnn_set_rows(s, w, x, ids); nn.tnn_realize(s, o); nn.upload_row_major(s, x, np.ones((2, 4))); nn.tnn_compute(s)", "ValueError", "row 1 twice"),
    call("a copy onto itself", "nn.tnn_cpy(s, w, w)", "ValueError", "a "),
    call("a mask of another shape", "nn.tnn_soft_max_ext(s, w, b, 1.0, 0.0)", "ValueError", "mask"),
    call("a negative n_past", "nn.tnn_diag_mask_inf(s, w, -1)", "ValueError", "n_past"),
    call("n_past beyond int32", "nn.tnn_diag_mask_inf(s, w, 2**31)", "ValueError", "n_past"),
    call("attention with keys of another shape", "q = nn.tnn_reshape_3d(s, w, 4, 3, 1); nn.tnn_flash_attn_ext(s, q, nn.tnn_reshape_3d(s, w, 3, 4, 1), q, None, 1.0, 0.0, 0.0)", "ValueError", "k "),
    call("a node without a graph", "nn.tnn_graph_node(s, 0)", "ValueError", "i = 0"),
    call("an operand out of range", "nn.tnn_tensor_src(w, 10)", "ValueError", "i = 10"),
]  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.quick] if i % 25 == 0 else []) for i, case in enumerate(CASES)],
    ids=lambda case: case.name,
)
def test_wrong_input_raises_an_error_that_names_the_argument_and_the_process_still_works(case: Case) -> None:
    run = subprocess.run(
        [sys.executable, "-c", case.script()], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    raised, _, after = run.stdout.strip().rpartition("\n")
    assert after == "still works"
    classes, _, message = raised.removeprefix("raised ").partition(": ")
    assert case.raises in classes.split(","), raised
    assert case.mentions in message, raised
