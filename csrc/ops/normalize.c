/* ops/normalize.c - norms and softmax. */
#include "ops/operands.h"
#include "ops/rules.h"

tnn_tensor tnn_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__f32_operand(s, "x", x);
    struct ggml_tensor * g = t != NULL ? tnn__per_column(s, "gamma", gamma, t) : NULL;
    if (g == NULL || !tnn__want_eps(s, eps) || !tnn__reserve_nodes(s, 2)) {
        return 0;
    }
    return tnn__appended(s, 2, ggml_mul(s->ctx_c, ggml_rms_norm(s->ctx_c, t, eps), g));
}

tnn_tensor tnn_layer_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, tnn_tensor beta, float eps) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__f32_operand(s, "x", x);
    struct ggml_tensor * g = t != NULL ? tnn__per_column(s, "gamma", gamma, t) : NULL;
    struct ggml_tensor * b = g != NULL ? tnn__per_column(s, "beta", beta, t) : NULL;
    if (b == NULL || !tnn__want_eps(s, eps) || !tnn__reserve_nodes(s, 3)) {
        return 0;
    }
    struct ggml_tensor * n = ggml_norm(s->ctx_c, t, eps);
    return tnn__appended(s, 3, ggml_add(s->ctx_c, ggml_mul(s->ctx_c, n, g), b));
}

tnn_tensor tnn_l2_norm(tnn_session * s, tnn_tensor a, float eps) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__f32_operand(s, "a", a) : NULL;
    if (x == NULL || !tnn__want_eps(s, eps) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_l2_norm(s->ctx_c, x, eps));
}

tnn_tensor tnn_softmax(tnn_session * s, tnn_tensor a) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__f32_operand(s, "a", a) : NULL;
    return x != NULL && tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_soft_max(s->ctx_c, x)) : 0;
}

tnn_tensor tnn_soft_max_ext(tnn_session * s, tnn_tensor a, tnn_tensor mask, float scale, float max_bias) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    struct ggml_tensor * m = NULL;
    if (x == NULL || !tnn__want_finite(s, "scale", scale) || !tnn__want_finite(s, "max_bias", max_bias)) {
        return 0;
    }
    if (mask != 0) {
        m = tnn__f32_operand(s, "mask", mask);
        if (m == NULL) {
            return 0;
        }
        if (m->ne[0] != x->ne[0] || m->ne[1] < x->ne[1] || x->ne[2] % m->ne[2] != 0 || x->ne[3] % m->ne[3] != 0) {
            tnn__fail(s, TNN_E_VALUE, "mask has shape %s, but its ne0 must be %lld, its ne1 at least %lld, and its ne2 and ne3 must "
                                      "divide ne2 and ne3 of the tensor a, of shape %s",
                      tnn__shape(m),
                      (long long) x->ne[0], (long long) x->ne[1], tnn__shape(x));
            return 0;
        }
    }
    if (max_bias < 0.0f || (max_bias > 0.0f && m == NULL)) {
        tnn__fail(s, TNN_E_VALUE, "max_bias = %g must be at least 0, and exactly 0 if there is no mask", (double) max_bias);
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_soft_max_ext(s->ctx_c, x, m, scale, max_bias)) : 0;
}

/* ------------------------------------------------------------------ derivatives */

static const char * refuses_soft_max(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    if (((const float *) t->op_params)[1] != 0.0f) {
        return "ggml has no derivative for max_bias != 0";
    }
    return tnn__grad_needed(g, t->src[1]) ? "its mask depends on a parameter" : NULL;
}

const struct tnn_op_rule tnn__normalize_rules[] = {
    { .op = GGML_OP_RMS_NORM, .differentiable = true },
    { .op = GGML_OP_SOFT_MAX, .differentiable = true, .refuses = refuses_soft_max },
    { .op = GGML_OP_NONE },
};
