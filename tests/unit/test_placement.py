"""Memory shared by the tensors of a graph does not change results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from toynn import Session, Tensor, TinyNNValueError
from toynn import tinynn as nn

ROWS, COLS = 4, 4
VALUES = np.arange(1.0, 17.0, dtype=np.float32).reshape(ROWS, COLS)

ON_A_VIEW_OF_ITSELF: dict[str, Callable[[Session, Tensor], Tensor]] = {
    "add": lambda s, a: nn.tnn_add(s, a, nn.tnn_view_1d(s, a, COLS, 0)),
    "sub": lambda s, a: nn.tnn_sub(s, a, nn.tnn_view_1d(s, a, COLS, 0)),
    "mul": lambda s, a: nn.tnn_mul(s, a, nn.tnn_view_1d(s, a, COLS, 4)),
    "soft_max_ext": lambda s, a: nn.tnn_soft_max_ext(s, a, nn.tnn_view_2d(s, a, COLS, ROWS, 4 * COLS, 0), 0.5, 0.0),
    "add to itself": lambda s, a: nn.tnn_add(s, a, a),
}


def computed(build: Callable[[Session, Tensor], Tensor], keep: bool) -> np.ndarray:
    with Session(n_threads=1) as s:
        w = nn.tnn_input_2d_f32_persistent(s, ROWS, COLS)
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, w, VALUES)
        a = nn.tnn_scale(s, w, 1.0)
        if keep:
            nn.tnn_set_output(a)
        out = build(s, a)
        nn.tnn_realize(s, out)
        nn.tnn_compute(s)
        return nn.download_row_major(s, out, ROWS, COLS)


@pytest.mark.parametrize("name", ON_A_VIEW_OF_ITSELF)
def test_a_node_does_not_overwrite_an_operand_it_reads_through_a_view(name: str) -> None:
    build = ON_A_VIEW_OF_ITSELF[name]
    np.testing.assert_array_equal(computed(build, keep=False), computed(build, keep=True))


def test_an_operator_never_writes_to_memory_it_reads() -> None:
    """If an operator wrote there, one of its threads could read a value that another thread has already overwritten."""
    with Session(n_threads=1) as s:
        w, m, v = (nn.tnn_input_1d_f32_persistent(s, 64) for _ in range(3))
        hp, cache = nn.tnn_input_1d_f32_persistent(s, 7), nn.tnn_input_2d_f32_persistent(s, 6, 8)
        nn.tnn_set_param(w)
        nn.tnn_finalize_weights(s)
        grad = nn.tnn_scale(s, w, 1.0)
        for name, arguments in (
            ("hp", (w, grad, m, v, nn.tnn_view_1d(s, w, 7, 0))),
            ("hp", (w, grad, m, v, nn.tnn_view_1d(s, m, 7, 4))),
            ("hp", (w, grad, m, v, nn.tnn_view_1d(s, v, 7, 4))),
            ("grad", (w, nn.tnn_view_1d(s, w, 64, 0), m, v, hp)),
            ("grad", (w, nn.tnn_view_1d(s, m, 64, 0), m, v, hp)),
            ("m", (w, grad, w, v, hp)),
            ("v", (w, grad, m, m, hp)),
        ):
            with pytest.raises(TinyNNValueError, match=f": {name} must not share memory with"):
                nn.tnn_opt_step_adamw(s, *arguments)
        with pytest.raises(TinyNNValueError, match=": hp must not share memory with"):
            nn.tnn_opt_step_sgd(s, w, grad, nn.tnn_view_1d(s, w, 2, 0))
        nn.tnn_opt_step_adamw(s, w, grad, m, v, hp)

        n_past, turn, qkv = nn.tnn_input_1d_i32(s, 1), nn.tnn_input_2d_f32(s, 2, 4), nn.tnn_input_2d_f32(s, 2, 12)
        inside = nn.tnn_reshape_2d(s, nn.tnn_view_1d(s, cache, 24, 0), 12, 2)
        with pytest.raises(TinyNNValueError, match=": qkv must not share memory with"):
            nn.tnn_fused_attention_cached(s, inside, turn, cache, n_past, 1, 1)
        inside = nn.tnn_reshape_2d(s, nn.tnn_view_1d(s, cache, 8, 0), 4, 2)
        with pytest.raises(TinyNNValueError, match=": rope_table must not share memory with"):
            nn.tnn_fused_attention_cached(s, qkv, inside, cache, n_past, 1, 1)
        nn.tnn_fused_attention_cached(s, qkv, turn, cache, n_past, 1, 1)
