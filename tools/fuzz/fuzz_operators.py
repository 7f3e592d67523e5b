"""Choose a call of a ggml operator with operands whose shapes fit each other, for a fuzz round."""

# ruff: noqa: E501 (related operators on one line are easier to compare)

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from typing import Any

from toynn import tinynn as nn

LARGEST = 10**5  # number of elements of the largest array that a round creates itself


@functools.wraps(nn.tnn_rope_ext)
def rope_of_neighbours(*arguments: Any) -> nn.Tensor:
    return nn.tnn_rope_ext(*arguments, mode=0)


def fitting_call(pick: random.Random, known: Sequence[tuple[nn.Tensor, tuple[int, ...], int]]) -> tuple[Any, ...]:
    """Return a function, followed by its arguments. The first argument, the session, is left out.

    known: tensors with their ne and dtype, at least one of them f32.
    """
    floats = [(t, ne) for t, ne, dtype in known if dtype == nn.TNN_F32]

    def late(some: list[Any]) -> Any:
        """Return a random item of the list, usually one of the last three, which are the newest tensors.

        The memory of an operand that no later node reads is reused. New operands test this case.
        """
        return pick.choice(some[-3:] if pick.random() < 0.6 else some)

    a, ne = late(floats)
    n, rows = math.prod(ne), math.prod(ne[1:])
    alike = late([t for t, other in floats if other == ne])
    repeats = late([t for t, other in floats if all(x % y == 0 for x, y in zip(ne, other, strict=True))])
    factor = late([t for t, other in floats if other[0] == ne[0] and other[2:] == ne[2:]])
    column = late([t for t, other in floats if other == (ne[0], 1, 1, 1)] or [a])
    same_size = late([t for t, other in floats if math.prod(other) == n])
    ids = pick.choice([t for t, _, dtype in known if dtype == nn.TNN_I32] or [a])
    row, wide = pick.randrange(rows), pick.randint(1, ne[0])
    # the operands of tnn_out_prod must have the same ne1
    square = late([t for t, other in floats if other[1] == ne[1]] or [a])
    kernel = late([t for t, other in floats if other[2] == ne[2] and other[0] <= ne[0] and other[1] <= ne[1]] or [a])
    matrices = late([t for t, other in floats if other[0] == ne[0] and other[3] == 1] or [a])
    scalar = late([t for t, other in floats if other == (1, 1, 1, 1)] or [a])
    one_id = pick.choice([t for t, other, dtype in known if dtype == nn.TNN_I32 and other == (1, 1, 1, 1)] or [ids])
    row_ids = pick.choice(
        [t for t, other, dtype in known if dtype == nn.TNN_I32 and other == (ne[1], 1, 1, 1)] or [ids]
    )
    k = pick.randint(1, ne[0])
    # RoPE rotates pairs of elements, and needs a position for each matrix of its operand
    pairs, shape = late([(t, other) for t, other in floats if other[0] % 2 == 0] or [(a, ne)])
    positions = pick.choice(
        [t for t, other, dtype in known if dtype == nn.TNN_I32 and other == (shape[2], 1, 1, 1)] or [ids]
    )
    unary = [
        nn.tnn_exp,
        nn.tnn_neg,
        nn.tnn_softplus,
        nn.tnn_sigmoid,
        nn.tnn_detach,
        nn.tnn_silu,
        nn.tnn_gelu,
        nn.tnn_tanh,
        nn.tnn_sqrt,
        nn.tnn_softmax,
        nn.tnn_sum,
        nn.tnn_sum_rows,
        nn.tnn_transpose,
    ]
    choices: list[tuple[Any, ...]] = [
        *[(function, a) for function in unary],
        *[(function, a, repeats) for function in (nn.tnn_add, nn.tnn_sub, nn.tnn_mul) * 3],
        (nn.tnn_div, a, repeats), (nn.tnn_repeat, repeats, a), (nn.tnn_scale_bias, a, 0.5, -1.0), (nn.tnn_l2_norm, a, 1e-6),
        (nn.tnn_swiglu_split, a, alike), (nn.tnn_out_prod, a, square), (nn.tnn_permute, a, *pick.sample(range(4), 4)),
        (nn.tnn_set_2d, alike, same_size, ne[0] * 4, 0), (nn.tnn_set_2d, alike, column, ne[0] * 4, row * ne[0] * 4),
        (nn.tnn_argsort, a, pick.choice([0, 1])), (nn.tnn_top_k, a, k), (nn.tnn_mul_mat_id, matrices, a, ids), (nn.tnn_add_id, a, factor, ids),
        (nn.tnn_im2col, kernel, a, 1, 1, pick.choice([0, 1]), 0, 1, 1, 1), (nn.tnn_conv_2d, kernel, a, 1, 1, 0, 0, 1, 1),
        (nn.tnn_conv_1d, square, a, 1, 0, 1), (nn.tnn_ssm_conv, a, square), (nn.tnn_rms_norm_back, a, alike, 1e-5),
        (nn.tnn_softmax_back, a, alike), (nn.tnn_silu_back, a, alike), (nn.tnn_get_rows_back, a, ids, factor),
        (nn.tnn_rope_ext_back, pairs, positions, shape[0], 1e4, 1.0, 0.0, 1.0, 32.0, 1.0),
        (nn.tnn_gated_delta_net, a, a, a, alike, column, alike), (nn.tnn_ssm_scan, *[scalar] * 6, one_id), (nn.tnn_ssm_scan, a, a, a, a, alike, alike, ids),
        (nn.tnn_scale, a, pick.choice([2.0, -0.5, 0.0])),
        (nn.tnn_matmul, a, factor), (nn.tnn_matmul, factor, a),
        (nn.tnn_rms_norm, a, column, 1e-5), (nn.tnn_layer_norm, a, column, column, 1e-5),
        (nn.tnn_fused_rms_norm, a, column, 1e-5), (pick.choice([nn.tnn_fused_swiglu, nn.tnn_fused_geglu]), a), (nn.tnn_fused_linear, a, [factor]),
        (nn.tnn_fused_scale, a, 2.0), (nn.tnn_fused_add_product, alike, a, factor, 0),
        (nn.tnn_soft_max_ext, a, alike, 0.5, pick.choice([0.0, 0.0, 1.0])), (nn.tnn_diag_mask_inf, a, pick.choice([0, 1, 2**31 - 1])),
        (nn.tnn_concat, a, alike, pick.randrange(3)), (nn.tnn_concat_n, [a, alike, a], pick.randrange(3)),
        (nn.tnn_view_1d, a, ne[0], row * ne[0] * 4), (nn.tnn_view_1d, a, wide, (n - wide) * 4),
        (nn.tnn_view_2d, a, wide, rows, ne[0] * 4, 0), (nn.tnn_view_2d, a, wide, rows - row, ne[0] * 4, (row * ne[0] + ne[0] - wide) * 4),
        (nn.tnn_cont_2d, a, rows, ne[0]), (nn.tnn_reshape_2d, a, rows, ne[0]), (nn.tnn_reshape_3d, a, ne[0], 1, rows),
        (nn.tnn_cpy, a, same_size), (nn.tnn_cast, a, pick.choice([nn.TNN_F16, nn.TNN_BF16])),
        (nn.tnn_get_rows, a, ids), (nn.tnn_set_rows, alike, a, row_ids),
        (pick.choice([nn.tnn_rope_ext, rope_of_neighbours]), pairs, positions, pick.randint(1, max(1, shape[0] // 2)) * 2, 1e4, 1.0, 0.0, 1.0, 32.0, 1.0, None if pick.random() < 0.5 else column),
        (nn.tnn_cross_entropy_loss, a, alike), (nn.tnn_fused_cross_entropy, a, ids, -1),
        (nn.tnn_fused_output_loss, a, factor, ids, -1, None, pick.randint(1, rows)),
        (nn.tnn_flash_attn_ext, a, alike, alike, None, 0.5, 0.0, 0.0),
    ]  # fmt: skip
    return pick.choice(choices)
