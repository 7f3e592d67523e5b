/* ops/layout.c - operators that repeat, permute and replace elements. */
#include "ops/operands.h"
#include "ops/rules.h"

tnn_tensor tnn_repeat(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    struct ggml_tensor * y = x != NULL ? tnn__tensor(s, "b", b) : NULL;
    if (y == NULL) {
        return 0;
    }
    if (!ggml_can_repeat(x, y)) {
        tnn__fail(s, TNN_E_VALUE, "the tensor a has shape %s, which cannot be repeated to the shape of b, %s", tnn__shape(x), tnn__shape(y));
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_repeat(s->ctx_c, x, y)) : 0;
}

/* As for tnn_transpose, a reshape before the view makes the gradient contiguous. */
tnn_tensor tnn_permute(tnn_session * s, tnn_tensor a, int32_t axis0, int32_t axis1, int32_t axis2, int32_t axis3) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    const int32_t axes[GGML_MAX_DIMS] = { axis0, axis1, axis2, axis3 };
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !tnn__want_float_type(s, "a", t) || !tnn__want_contiguous(s, "a", t)) {
        return 0;
    }
    uint32_t found = 0;
    for (int i = 0; i < GGML_MAX_DIMS; i++) {
        if (axes[i] < 0 || axes[i] >= GGML_MAX_DIMS || (found & TNN_OPERAND(axes[i])) != 0) {
            tnn__fail(s, TNN_E_VALUE, "axis%d = %d must be between 0 and 3 and differ from the other axes", i, (int) axes[i]);
            return 0;
        }
        found |= TNN_OPERAND(axes[i]);
    }
    if (ggml_nbytes(t) > INT32_MAX) { /* ggml keeps the strides in int */
        tnn__fail(s, TNN_E_VALUE, "the tensor a, of shape %s, is larger than 2 GiB, ggml's limit for permuting; use a smaller tensor",
                  tnn__shape(t));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 2)) {
        return 0;
    }
    struct ggml_tensor * same = ggml_reshape_4d(s->ctx_c, t, t->ne[0], t->ne[1], t->ne[2], t->ne[3]);
    return tnn__appended(s, 2, ggml_permute(s->ctx_c, same, axis0, axis1, axis2, axis3));
}

#define MAX_SET_OFFSET (INT64_C(1) << 30) /* ggml_set aborts at an offset of 2^30 bytes or more */

tnn_tensor tnn_set_2d(tnn_session * s, tnn_tensor a, tnn_tensor b, int64_t nb1, int64_t offset) {
    const int64_t size = (int64_t) sizeof(float);
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    struct ggml_tensor * y = x != NULL ? tnn__rows_operand(s, "b", b) : NULL;
    if (y == NULL) {
        return 0;
    }
    const int64_t all = ggml_nelements(x) * size, row = y->ne[0] * size;
    if (all > INT32_MAX) {
        tnn__fail(s, TNN_E_VALUE, "the tensor a, of shape %s, is larger than 2 GiB, ggml's limit for SET; use a smaller tensor", tnn__shape(x));
        return 0;
    }
    if (nb1 < row || nb1 % size != 0 || nb1 > all) {
        tnn__fail(s, TNN_E_VALUE, "nb1 = %lld must be a multiple of 4, at least %lld (the size of a row of b) and at most %lld (the size of the tensor a)",
                  (long long) nb1, (long long) row, (long long) all);
        return 0;
    }
    if (offset < 0 || offset % size != 0 || offset >= all || offset >= MAX_SET_OFFSET) {
        tnn__fail(s, TNN_E_VALUE, "offset = %lld must be a multiple of 4, at least 0, below %lld (the size of the tensor a) and below 2^30",
                  (long long) offset, (long long) all);
        return 0;
    }
    if (all - offset < row || y->ne[1] - 1 > (all - offset - row) / nb1) {
        tnn__fail(s, TNN_E_VALUE, "the tensor b, of shape %s, would end beyond the tensor a, of shape %s: nb1 = %lld, offset = %lld",
                  tnn__shape(y), tnn__shape(x), (long long) nb1, (long long) offset);
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_set_2d(s->ctx_c, x, y, (size_t) nb1, (size_t) offset)) : 0;
}

const struct tnn_op_rule tnn__layout_rules[] = { /* the rule for SET is in shape.c */
    { .op = GGML_OP_REPEAT, .differentiable = true },
    { .op = GGML_OP_PERMUTE, .differentiable = true },
    { .op = GGML_OP_NONE },
};
