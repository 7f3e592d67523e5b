/* ops/arithmetic.c - the operators: each checks what ggml asserts, then appends its nodes. */
#include "session.h"

#include <math.h>

tnn_tensor tnn__appended(tnn_session * s, int n, struct ggml_tensor * result) {
    s->n_tensors_c += n;
    return tnn__handle(s, result);
}

/* ------------------------------------------------------------------ arithmetic */

tnn_tensor tnn_matmul(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * w = tnn__tensor(s, "a", a);
    struct ggml_tensor * x = w != NULL ? tnn__tensor(s, "b", b) : NULL;
    if (x == NULL || !tnn__want_float_type(s, "a", w) || !tnn__want_type(s, "b", x, GGML_TYPE_F32) || !tnn__want_contiguous(s, "a", w)
        || !tnn__want_contiguous(s, "b", x)) {
        return 0;
    }
    if (w->ne[0] != x->ne[0] || x->ne[2] % w->ne[2] != 0 || x->ne[3] % w->ne[3] != 0) {
        tnn__fail(s, TNN_E_VALUE, "a has shape %s and b %s; their ne0 must be equal and b's ne2, ne3 multiples of a's",
                  tnn__shape(w), tnn__shape(x));
        return 0;
    }
    if (w->ne[1] > TNN_MAX_ELEMENTS / (x->ne[1] * x->ne[2] * x->ne[3])) {
        tnn__fail_elements(s, "the product");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_mul_mat(s->ctx_c, w, x)) : 0;
}

typedef struct ggml_tensor * (*binary_op)(struct ggml_context *, struct ggml_tensor *, struct ggml_tensor *);
typedef struct ggml_tensor * (*unary_op)(struct ggml_context *, struct ggml_tensor *);

static tnn_tensor binary(tnn_session * s, const char * call, binary_op op, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, call)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    struct ggml_tensor * y = x != NULL ? tnn__f32_operand(s, "b", b) : NULL;
    if (y == NULL) {
        return 0;
    }
    if (!ggml_can_repeat(y, x)) {
        tnn__fail(s, TNN_E_VALUE, "b has shape %s, which does not repeat to a's %s", tnn__shape(y), tnn__shape(x));
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, op(s->ctx_c, x, y)) : 0;
}

tnn_tensor tnn_add(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    return binary(s, __func__, ggml_add, a, b);
}

tnn_tensor tnn_sub(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    return binary(s, __func__, ggml_sub, a, b);
}

tnn_tensor tnn_mul(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    return binary(s, __func__, ggml_mul, a, b);
}

tnn_tensor tnn_scale(tnn_session * s, tnn_tensor a, float factor) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    if (x == NULL || !tnn__want_finite(s, "factor", factor) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_scale(s->ctx_c, x, factor));
}

static tnn_tensor unary(tnn_session * s, const char * call, unary_op op, tnn_tensor a) {
    if (!tnn__enter(s, call)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    return x != NULL && tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, op(s->ctx_c, x)) : 0;
}

tnn_tensor tnn_silu(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_silu, a);
}

tnn_tensor tnn_gelu(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_gelu, a);
}

tnn_tensor tnn_tanh(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_tanh, a);
}

tnn_tensor tnn_sqrt(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_sqrt, a);
}

tnn_tensor tnn_softmax(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_soft_max, a);
}

tnn_tensor tnn_sum(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_sum, a);
}

tnn_tensor tnn_sum_rows(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_sum_rows, a);
}

/* ------------------------------------------------------------------ normalisation, attention, positions */

/* gamma or beta: one value per column of x. */
static struct ggml_tensor * per_column(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * x) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    if (t != NULL && (ggml_nelements(t) != x->ne[0] || t->ne[0] != x->ne[0])) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, must be [%lld] for x of shape %s", arg, tnn__shape(t), (long long) x->ne[0],
                  tnn__shape(x));
        return NULL;
    }
    return t;
}

tnn_tensor tnn_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__f32_operand(s, "x", x);
    struct ggml_tensor * g = t != NULL ? per_column(s, "gamma", gamma, t) : NULL;
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
    struct ggml_tensor * g = t != NULL ? per_column(s, "gamma", gamma, t) : NULL;
    struct ggml_tensor * b = g != NULL ? per_column(s, "beta", beta, t) : NULL;
    if (b == NULL || !tnn__want_eps(s, eps) || !tnn__reserve_nodes(s, 3)) {
        return 0;
    }
    struct ggml_tensor * n = ggml_norm(s->ctx_c, t, eps);
    return tnn__appended(s, 3, ggml_add(s->ctx_c, ggml_mul(s->ctx_c, n, g), b));
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
            tnn__fail(s, TNN_E_VALUE, "mask has shape %s, must be [%lld, at least %lld] for a of shape %s", tnn__shape(m),
                      (long long) x->ne[0], (long long) x->ne[1], tnn__shape(x));
            return 0;
        }
    }
    if (max_bias < 0.0f || (max_bias > 0.0f && m == NULL)) {
        tnn__fail(s, TNN_E_VALUE, "max_bias = %g must be 0, or positive with a mask", (double) max_bias);
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_soft_max_ext(s->ctx_c, x, m, scale, max_bias)) : 0;
}

tnn_tensor tnn_diag_mask_inf(tnn_session * s, tnn_tensor a, int32_t n_past) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    if (x == NULL) {
        return 0;
    }
    if (n_past < 0) {
        tnn__fail(s, TNN_E_VALUE, "n_past = %d must not be negative", (int) n_past);
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_diag_mask_inf(s->ctx_c, x, n_past)) : 0;
}

tnn_tensor tnn_rope_ext(tnn_session * s, tnn_tensor x, tnn_tensor positions, tnn_tensor freq_factors, int32_t n_dims,
                        int32_t mode, int32_t n_ctx_orig, float freq_base, float freq_scale, float ext_factor,
                        float attn_factor, float beta_fast, float beta_slow) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__f32_operand(s, "x", x);
    struct ggml_tensor * p = t != NULL ? tnn__index_operand(s, "positions", positions) : NULL;
    struct ggml_tensor * f = NULL;
    if (p == NULL) {
        return 0;
    }
    if (p->ne[0] != t->ne[2]) {
        tnn__fail(s, TNN_E_VALUE, "positions has shape %s, must be [%lld]: one for each ne2 of x, of shape %s", tnn__shape(p),
                  (long long) t->ne[2], tnn__shape(t));
        return 0;
    }
    if (n_dims < 2 || n_dims % 2 != 0 || n_dims > t->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "n_dims = %d must be even, at least 2 and at most x's ne0, %lld", (int) n_dims,
                  (long long) t->ne[0]);
        return 0;
    }
    if (mode != GGML_ROPE_TYPE_NORMAL && mode != GGML_ROPE_TYPE_NEOX) {
        tnn__fail(s, TNN_E_VALUE, "mode = %d must be 0 (normal) or 2 (NEOX)", (int) mode);
        return 0;
    }
    if (n_ctx_orig < 0) {
        tnn__fail(s, TNN_E_VALUE, "n_ctx_orig = %d must not be negative", (int) n_ctx_orig);
        return 0;
    }
    if (!isfinite(freq_base) || freq_base <= 0.0f) {
        tnn__fail(s, TNN_E_VALUE, "freq_base = %g must be finite and positive", (double) freq_base);
        return 0;
    }
    if (!tnn__want_finite(s, "freq_scale", freq_scale) || !tnn__want_finite(s, "ext_factor", ext_factor)
        || !tnn__want_finite(s, "attn_factor", attn_factor) || !tnn__want_finite(s, "beta_fast", beta_fast)
        || !tnn__want_finite(s, "beta_slow", beta_slow)) {
        return 0;
    }
    if (ext_factor != 0.0f && !(freq_scale > 0.0f && beta_fast > 0.0f && beta_slow > 0.0f && n_ctx_orig > 0)) {
        tnn__fail(s, TNN_E_VALUE, "ext_factor = %g (YaRN) needs positive freq_scale, beta_fast, beta_slow and n_ctx_orig",
                  (double) ext_factor);
        return 0;
    }
    if (freq_factors != 0) {
        f = tnn__f32_operand(s, "freq_factors", freq_factors);
        if (f == NULL) {
            return 0;
        }
        if (f->ne[0] < n_dims / 2) {
            tnn__fail(s, TNN_E_VALUE, "freq_factors has shape %s, must have at least n_dims / 2 = %d", tnn__shape(f), (int) n_dims / 2);
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_rope_ext(s->ctx_c, t, p, f, n_dims, mode, n_ctx_orig, freq_base, freq_scale, ext_factor,
                                        attn_factor, beta_fast, beta_slow));
}

tnn_tensor tnn_flash_attn_ext(tnn_session * s, tnn_tensor q, tnn_tensor k, tnn_tensor v, tnn_tensor mask, float scale,
                              float max_bias, float logit_softcap) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tq = tnn__f32_operand(s, "q", q);
    struct ggml_tensor * tk = tq != NULL ? tnn__tensor(s, "k", k) : NULL;
    struct ggml_tensor * tv = tk != NULL ? tnn__tensor(s, "v", v) : NULL;
    struct ggml_tensor * tm = NULL;
    if (tv == NULL || !tnn__want_contiguous(s, "k", tk) || !tnn__want_contiguous(s, "v", tv) || !tnn__want_float_type(s, "k", tk)
        || !tnn__want_float_type(s, "v", tv)) {
        return 0;
    }
    if (tk->type != tv->type) {
        tnn__fail(s, TNN_E_TYPE, "k has dtype %s and v %s; they must be the same", ggml_type_name(tk->type),
                  ggml_type_name(tv->type));
        return 0;
    }
    if (tk->ne[0] != tq->ne[0] || tq->ne[2] % tk->ne[2] != 0 || tq->ne[3] != tk->ne[3]) {
        tnn__fail(s, TNN_E_VALUE, "k has shape %s, must be [%lld, S, a divisor of q's heads] for q of shape %s", tnn__shape(tk),
                  (long long) tq->ne[0], tnn__shape(tq));
        return 0;
    }
    if (tv->ne[1] != tk->ne[1] || tv->ne[2] != tk->ne[2] || tv->ne[3] != tk->ne[3]) {
        tnn__fail(s, TNN_E_VALUE, "v has shape %s, must have the ne1, ne2, ne3 of k, of shape %s", tnn__shape(tv), tnn__shape(tk));
        return 0;
    }
    if (mask != 0) {
        tm = tnn__tensor(s, "mask", mask);
        if (tm == NULL || !tnn__want_type(s, "mask", tm, GGML_TYPE_F16) || !tnn__want_contiguous(s, "mask", tm)) {
            return 0;
        }
        if (tm->ne[0] != tk->ne[1] || tm->ne[1] < tq->ne[1] || tq->ne[2] % tm->ne[2] != 0 || tq->ne[3] % tm->ne[3] != 0) {
            tnn__fail(s, TNN_E_VALUE, "mask has shape %s, must be [%lld, at least %lld]", tnn__shape(tm), (long long) tk->ne[1],
                      (long long) tq->ne[1]);
            return 0;
        }
    }
    if (!tnn__want_finite(s, "scale", scale) || !tnn__want_finite(s, "max_bias", max_bias) || !tnn__want_finite(s, "logit_softcap", logit_softcap)) {
        return 0;
    }
    if (max_bias < 0.0f || (max_bias > 0.0f && tm == NULL)) {
        tnn__fail(s, TNN_E_VALUE, "max_bias = %g must be 0, or positive with a mask", (double) max_bias);
        return 0;
    }
    if (tv->ne[0] > TNN_MAX_ELEMENTS / (tq->ne[1] * tq->ne[2] * tq->ne[3])) {
        tnn__fail_elements(s, "the result");
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_flash_attn_ext(s->ctx_c, tq, tk, tv, tm, scale, max_bias, logit_softcap));
}

/* ------------------------------------------------------------------ loss and optimizers */

tnn_tensor tnn_cross_entropy_loss(tnn_session * s, tnn_tensor logits, tnn_tensor labels) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "logits", logits);
    struct ggml_tensor * y = x != NULL ? tnn__f32_operand(s, "labels", labels) : NULL;
    if (y == NULL) {
        return 0;
    }
    if (!ggml_are_same_shape(x, y)) {
        tnn__fail(s, TNN_E_VALUE, "labels has shape %s, must be that of logits, %s", tnn__shape(y), tnn__shape(x));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct ggml_tensor * loss = ggml_cross_entropy_loss(s->ctx_c, x, y);
    s->n_tensors_c++;
    return tnn__loss_add(s, loss) ? tnn__handle(s, loss) : 0;
}

tnn_tensor tnn_opt_step_adamw(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tw = tnn__parameter_operand(s, w);
    struct ggml_tensor * tg = tw != NULL ? tnn__like(s, "grad", grad, tw) : NULL;
    struct ggml_tensor * tm = tg != NULL ? tnn__like(s, "m", m, tw) : NULL;
    struct ggml_tensor * tv = tm != NULL ? tnn__like(s, "v", v, tw) : NULL;
    struct ggml_tensor * th = tv != NULL ? tnn__hyper_parameters(s, hp, 7) : NULL;
    if (th == NULL || !tnn__want_input(s, "m", tm) || !tnn__want_input(s, "v", tv)) {
        return 0;
    }
    struct ggml_tensor * const written[] = { tw, tm, tv };
    if (!tnn__want_apart(s, "m", tm, written, 1) || !tnn__want_apart(s, "v", tv, written, 2)
        || !tnn__want_apart(s, "grad", tg, written, 3) || !tnn__want_apart(s, "hp", th, written, 3)) {
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_opt_step_adamw(s->ctx_c, tw, tg, tm, tv, th)) : 0;
}

tnn_tensor tnn_opt_step_sgd(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor hp) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tw = tnn__parameter_operand(s, w);
    struct ggml_tensor * tg = tw != NULL ? tnn__like(s, "grad", grad, tw) : NULL;
    struct ggml_tensor * th = tg != NULL ? tnn__hyper_parameters(s, hp, 2) : NULL;
    if (th == NULL) {
        return 0;
    }
    if (!tnn__want_apart(s, "grad", tg, &tw, 1) || !tnn__want_apart(s, "hp", th, &tw, 1)) {
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_opt_step_sgd(s->ctx_c, tw, tg, th)) : 0;
}
