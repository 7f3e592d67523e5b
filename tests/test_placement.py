"""Where the tensors of a graph lie: sharing memory changes no number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from toynn import Session, Tensor
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
        w = nn.tnn_input_2d_f32_persistent(s, COLS, ROWS)
        nn.tnn_finalize_weights(s)
        nn.upload_row_major(s, w, VALUES)
        a = nn.tnn_scale(s, w, 1.0)
        if keep:
            nn.tnn_set_output(s, a)
        out = build(s, a)
        nn.tnn_realize(s, out)
        nn.tnn_compute(s)
        return nn.download_row_major(s, out, ROWS, COLS)


@pytest.mark.parametrize("name", ON_A_VIEW_OF_ITSELF)
def test_a_node_that_reads_a_view_of_its_operand_does_not_overwrite_it(name: str) -> None:
    build = ON_A_VIEW_OF_ITSELF[name]
    np.testing.assert_array_equal(computed(build, keep=False), computed(build, keep=True))
