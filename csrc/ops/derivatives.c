/* ops/derivatives.c - operators that compute the backward passes of ggml's operators. tnn_rope_ext_back is in
 * attention.c. */
#include "ops/operands.h"
#include "ops/rules.h"

tnn_tensor tnn_rms_norm_back(tnn_session * s, tnn_tensor dy, tnn_tensor x, float eps) {
    struct ggml_tensor * d = tnn__enter(s, __func__) ? tnn__f32_operand(s, "dy", dy) : NULL;
    struct ggml_tensor * t = d != NULL ? tnn__like_operand(s, "x", x, d, "dy") : NULL;
    if (t == NULL || !tnn__want_eps(s, eps) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_rms_norm_back(s->ctx_c, d, t, eps));
}

tnn_tensor tnn_softmax_back(tnn_session * s, tnn_tensor dy, tnn_tensor y) {
    struct ggml_tensor * d = tnn__enter(s, __func__) ? tnn__f32_operand(s, "dy", dy) : NULL;
    struct ggml_tensor * t = d != NULL ? tnn__like_operand(s, "y", y, d, "dy") : NULL;
    return t != NULL && tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_soft_max_ext_back(s->ctx_c, d, t, 1.0f, 0.0f)) : 0;
}

tnn_tensor tnn_silu_back(tnn_session * s, tnn_tensor x, tnn_tensor dy) {
    struct ggml_tensor * t = tnn__enter(s, __func__) ? tnn__f32_operand(s, "x", x) : NULL;
    struct ggml_tensor * d = t != NULL ? tnn__like_operand(s, "dy", dy, t, "x") : NULL;
    return d != NULL && tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_silu_back(s->ctx_c, d, t)) : 0;
}

tnn_tensor tnn_get_rows_back(tnn_session * s, tnn_tensor dy, tnn_tensor ids, tnn_tensor table) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * d = tnn__rows_operand(s, "dy", dy);
    struct ggml_tensor * t = d != NULL ? tnn__tensor(s, "table", table) : NULL;
    if (t == NULL || !tnn__want_matrix(s, "table", t)) {
        return 0;
    }
    if (t->ne[0] != d->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "table has shape %s, but its ne0 must equal the ne0 of dy, of shape %s", tnn__shape(t), tnn__shape(d));
        return 0;
    }
    struct ggml_tensor * i = tnn__ids_operand(s, "ids", ids, t->ne[1]);
    if (i == NULL) {
        return 0;
    }
    if (!ggml_is_vector(i) || i->ne[0] != d->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "ids has shape %s, but it must be [%lld], one id for each row of dy, of shape %s", tnn__shape(i),
                  (long long) d->ne[1], tnn__shape(d));
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_get_rows_back(s->ctx_c, d, i, t)) : 0;
}

static int check_get_rows_back(tnn_session * s, const struct ggml_tensor * node) {
    return tnn__check_ids(s, node->src[1], node, node->ne[1]);
}

const struct tnn_op_rule tnn__derivatives_rules[] = {
    { .op = GGML_OP_GET_ROWS_BACK, .skips = TNN_OPERAND(1), .check = check_get_rows_back },
    { .op = GGML_OP_NONE },
};
