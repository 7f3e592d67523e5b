/* ops/experts.c - matrices and rows that ids select, for mixtures of experts. Sorting is in kernels/sort.c. */
#include "ops/operands.h"
#include "ops/rules.h"

tnn_tensor tnn_mul_mat_id(tnn_session * s, tnn_tensor matrices, tnn_tensor b, tnn_tensor ids) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * w = tnn__tensor(s, "matrices", matrices);
    struct ggml_tensor * x = w != NULL ? tnn__f32_operand(s, "b", b) : NULL;
    struct ggml_tensor * i = x != NULL ? tnn__ids_operand(s, "ids", ids, w->ne[2]) : NULL;
    if (i == NULL || !tnn__want_matrix_type(s, "matrices", w) || !tnn__want_contiguous(s, "matrices", w)
        || !tnn__want_matrix(s, "ids", i)) {
        return 0;
    }
    if (w->ne[3] != 1 || x->ne[3] != 1 || w->ne[0] != x->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "matrices has shape %s and b has shape %s; they must be [k, m, n_experts] and [k, n, T]", tnn__shape(w),
                  tnn__shape(x));
        return 0;
    }
    if (i->ne[1] != x->ne[2] || i->ne[0] % x->ne[1] != 0) {
        tnn__fail(s, TNN_E_VALUE, "ids has shape %s, but it must be [a multiple of %lld, %lld] for b of shape %s", tnn__shape(i),
                  (long long) x->ne[1], (long long) x->ne[2], tnn__shape(x));
        return 0;
    }
    const int64_t n_ids = ggml_nelements(i);
    /* ggml makes a table with n_ids places for each expert. */
    if (w->ne[1] > TNN_MAX_ELEMENTS / n_ids || w->ne[2] > TNN_MAX_ELEMENTS / n_ids) {
        tnn__fail_elements(s, "the result, or the table of ids by expert,");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_mul_mat_id(s->ctx_c, w, x, i)) : 0;
}

tnn_tensor tnn_add_id(tnn_session * s, tnn_tensor a, tnn_tensor b, tnn_tensor ids) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    struct ggml_tensor * y = x != NULL ? tnn__rows_operand(s, "b", b) : NULL;
    struct ggml_tensor * i = y != NULL ? tnn__ids_operand(s, "ids", ids, y->ne[1]) : NULL;
    if (i == NULL || !tnn__want_matrix(s, "ids", i)) {
        return 0;
    }
    if (x->ne[3] != 1 || y->ne[0] != x->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "the tensor a has shape %s and the tensor b has shape %s; they must be [d, n, T] and [d, n_experts]",
                  tnn__shape(x), tnn__shape(y));
        return 0;
    }
    if (i->ne[0] != x->ne[1] || i->ne[1] != x->ne[2]) {
        tnn__fail(s, TNN_E_VALUE, "ids has shape %s, but it must be [%lld, %lld] for the tensor a of shape %s", tnn__shape(i),
                  (long long) x->ne[1], (long long) x->ne[2], tnn__shape(x));
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_add_id(s->ctx_c, x, y, i)) : 0;
}

static int check_mul_mat_id(tnn_session * s, const struct ggml_tensor * node) {
    return tnn__check_ids(s, node->src[2], node->src[0], node->src[0]->ne[2]);
}

static int check_add_id(tnn_session * s, const struct ggml_tensor * node) {
    return tnn__check_ids(s, node->src[2], node->src[1], node->src[1]->ne[1]);
}

const struct tnn_op_rule tnn__experts_rules[] = {
    { .op = GGML_OP_MUL_MAT_ID, .check = check_mul_mat_id },
    { .op = GGML_OP_ADD_ID, .check = check_add_id },
    { .op = GGML_OP_NONE },
};
