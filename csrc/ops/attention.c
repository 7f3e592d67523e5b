/* ops/attention.c - ggml's operators for attention: the causal mask, RoPE and flash attention. */
#include "ops/operands.h"
#include "ops/rules.h"

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

typedef struct ggml_tensor * (*rope_op)(struct ggml_context *, struct ggml_tensor *, struct ggml_tensor *, struct ggml_tensor *, int, int, int,
                                        float, float, float, float, float, float);

static tnn_tensor rope(tnn_session * s, const char * call, rope_op op, const char * arg, tnn_tensor x, tnn_tensor positions, int32_t n_dims,
                       float freq_base, float freq_scale, float ext_factor, float attn_factor, float beta_fast, float beta_slow,
                       tnn_tensor freq_factors, int32_t mode, int32_t n_ctx_orig) {
    if (!tnn__enter(s, call)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__f32_operand(s, arg, x);
    struct ggml_tensor * p = t != NULL ? tnn__index_operand(s, "positions", positions) : NULL;
    struct ggml_tensor * f = NULL;
    if (p == NULL) {
        return 0;
    }
    if (p->ne[0] != t->ne[2]) {
        tnn__fail(s, TNN_E_VALUE, "positions has shape %s, but it must be [%lld], because %s has shape %s and its ne2 is the number of "
                                  "tokens",
                  tnn__shape(p), (long long) t->ne[2], arg, tnn__shape(t));
        return 0;
    }
    if (t->ne[0] % 2 != 0) { /* ggml copies the elements from n_dims on in pairs, and would write beyond an odd row */
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but its ne0 must be even, because RoPE rotates pairs", arg, tnn__shape(t));
        return 0;
    }
    if (n_dims < 2 || n_dims % 2 != 0 || n_dims > t->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "n_dims = %d must be even, at least 2 and at most the ne0 of %s (%lld)", (int) n_dims, arg,
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
    if (!tnn__want_freq_base(s, freq_base) || !tnn__want_finite(s, "freq_scale", freq_scale) || !tnn__want_finite(s, "ext_factor", ext_factor)
        || !tnn__want_finite(s, "attn_factor", attn_factor) || !tnn__want_finite(s, "beta_fast", beta_fast)
        || !tnn__want_finite(s, "beta_slow", beta_slow)) {
        return 0;
    }
    if (ext_factor != 0.0f && !(freq_scale > 0.0f && beta_fast > 0.0f && beta_slow > 0.0f && n_ctx_orig > 0)) {
        tnn__fail(s, TNN_E_VALUE, "ext_factor = %g (YaRN) needs positive freq_scale, beta_fast, beta_slow and "
                                  "n_ctx_orig, got %g, %g, %g and %d",
                  (double) ext_factor, (double) freq_scale, (double) beta_fast, (double) beta_slow, n_ctx_orig);
        return 0;
    }
    if (freq_factors != 0) {
        f = tnn__f32_operand(s, "freq_factors", freq_factors);
        if (f == NULL) {
            return 0;
        }
        if (f->ne[0] < n_dims / 2) {
            tnn__fail(s, TNN_E_VALUE, "freq_factors has shape %s, but it must have at least n_dims / 2 = %d elements",
                      tnn__shape(f), (int) n_dims / 2);
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, op(s->ctx_c, t, p, f, n_dims, mode, n_ctx_orig, freq_base, freq_scale, ext_factor, attn_factor, beta_fast,
                                  beta_slow));
}

tnn_tensor tnn_rope_ext(tnn_session * s, tnn_tensor x, tnn_tensor positions, int32_t n_dims, float freq_base, float freq_scale,
                        float ext_factor, float attn_factor, float beta_fast, float beta_slow, tnn_tensor freq_factors,
                        int32_t mode, int32_t n_ctx_orig) {
    return rope(s, __func__, ggml_rope_ext, "x", x, positions, n_dims, freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow,
                freq_factors, mode, n_ctx_orig);
}

tnn_tensor tnn_rope_ext_back(tnn_session * s, tnn_tensor dy, tnn_tensor positions, int32_t n_dims, float freq_base, float freq_scale,
                        float ext_factor, float attn_factor, float beta_fast, float beta_slow, tnn_tensor freq_factors,
                        int32_t mode, int32_t n_ctx_orig) {
    return rope(s, __func__, ggml_rope_ext_back, "dy", dy, positions, n_dims, freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow,
                freq_factors, mode, n_ctx_orig);
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
        tnn__fail(s, TNN_E_TYPE, "k has dtype %s and v has dtype %s; they must be the same", ggml_type_name(tk->type),
                  ggml_type_name(tv->type));
        return 0;
    }
    if (tk->ne[0] != tq->ne[0] || tq->ne[2] % tk->ne[2] != 0 || tq->ne[3] != tk->ne[3]) {
        tnn__fail(s, TNN_E_VALUE, "k has shape %s; its ne0 and ne3 must equal ne0 and ne3 of q, of shape %s, and its ne2 must divide "
                                  "the ne2 of q", tnn__shape(tk), tnn__shape(tq));
        return 0;
    }
    if (tv->ne[1] != tk->ne[1] || tv->ne[2] != tk->ne[2] || tv->ne[3] != tk->ne[3]) {
        tnn__fail(s, TNN_E_VALUE, "v has shape %s; its ne1, ne2 and ne3 must equal ne1, ne2 and ne3 of k, of shape %s",
                  tnn__shape(tv), tnn__shape(tk));
        return 0;
    }
    if (mask != 0) {
        tm = tnn__tensor(s, "mask", mask);
        if (tm == NULL || !tnn__want_type(s, "mask", tm, GGML_TYPE_F16) || !tnn__want_contiguous(s, "mask", tm)) {
            return 0;
        }
        if (tm->ne[0] != tk->ne[1] || tm->ne[1] < tq->ne[1] || tq->ne[2] % tm->ne[2] != 0 || tq->ne[3] % tm->ne[3] != 0) {
            tnn__fail(s, TNN_E_VALUE, "mask has shape %s, but its ne0 must be %lld, its ne1 at least %lld, and its ne2 and ne3 must "
                                      "divide ne2 and ne3 of q, of shape %s", tnn__shape(tm), (long long) tk->ne[1],
                      (long long) tq->ne[1], tnn__shape(tq));
            return 0;
        }
    }
    if (!tnn__want_finite(s, "scale", scale) || !tnn__want_finite(s, "max_bias", max_bias) || !tnn__want_finite(s, "logit_softcap", logit_softcap)) {
        return 0;
    }
    if (max_bias < 0.0f || (max_bias > 0.0f && tm == NULL)) {
        tnn__fail(s, TNN_E_VALUE, "max_bias = %g must be at least 0, and exactly 0 if there is no mask", (double) max_bias);
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

/* ------------------------------------------------------------------ derivatives */

static const char * refuses_rope(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    return tnn__grad_needed(g, t->src[2]) ? "its freq_factors depend on a parameter" : NULL;
}

const struct tnn_op_rule tnn__attention_rules[] = {
    { .op = GGML_OP_DIAG_MASK_INF, .differentiable = true },
    { .op = GGML_OP_ROPE, .differentiable = true, .refuses = refuses_rope, .skips = TNN_OPERAND(1) },
    { .op = GGML_OP_NONE },
};
