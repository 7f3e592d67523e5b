/* tinynn_ops.c - the operators: each checks what ggml asserts, then appends its nodes. */
#include "tinynn_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ argument checks: true, or an error naming arg */

static bool want_type(tnn_session * s, const char * arg, const struct ggml_tensor * t, enum ggml_type type) {
    if (t->type == type) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, must be %s", arg, ggml_type_name(t->type), ggml_type_name(type));
    return false;
}

static bool want_float_type(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_BF16) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, must be f32, f16 or bf16", arg, ggml_type_name(t->type));
    return false;
}

static bool want_contiguous(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (ggml_is_contiguous(t)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s is not contiguous (a strided view); make it so with tnn_cont_2d", arg);
    return false;
}

bool tnn__want_finite(tnn_session * s, const char * arg, float x) {
    if (isfinite(x)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s = %g must be finite", arg, (double) x);
    return false;
}

void tnn__fail_elements(tnn_session * s, const char * what) {
    tnn__fail(s, TNN_E_VALUE, "%s would have more than 2^31 - 1 elements, ggml's limit", what);
}

/* An f32 contiguous operand. */
struct ggml_tensor * tnn__f32_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    return t != NULL && want_type(s, arg, t, GGML_TYPE_F32) && want_contiguous(s, arg, t) ? t : NULL;
}

/* An i32 vector whose values are known before the graph runs: an input, or a view of one. */
struct ggml_tensor * tnn__index_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    if (t == NULL || !want_type(s, arg, t, GGML_TYPE_I32) || !want_contiguous(s, arg, t)) {
        return NULL;
    }
    if (!ggml_is_vector(t)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, must be one-dimensional", arg, tnn__shape(t));
        return NULL;
    }
    return t; /* no operator makes an i32 tensor but the views, so the root is an input */
}

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
    if (x == NULL || !want_float_type(s, "a", w) || !want_type(s, "b", x, GGML_TYPE_F32) || !want_contiguous(s, "a", w)
        || !want_contiguous(s, "b", x)) {
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

bool tnn__want_eps(tnn_session * s, float eps) {
    if (isfinite(eps) && eps >= 0.0f) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "eps = %g must be finite and not negative", (double) eps);
    return false;
}

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
    if (tv == NULL || !want_contiguous(s, "k", tk) || !want_contiguous(s, "v", tv) || !want_float_type(s, "k", tk)
        || !want_float_type(s, "v", tv)) {
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
        if (tm == NULL || !want_type(s, "mask", tm, GGML_TYPE_F16) || !want_contiguous(s, "mask", tm)) {
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

/* ------------------------------------------------------------------ rows */

tnn_tensor tnn_get_rows(tnn_session * s, tnn_tensor table, tnn_tensor ids) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__tensor(s, "table", table);
    struct ggml_tensor * i = t != NULL ? tnn__index_operand(s, "ids", ids) : NULL;
    if (i == NULL || !want_float_type(s, "table", t) || !want_contiguous(s, "table", t)) {
        return 0;
    }
    if (!ggml_is_matrix(t)) {
        tnn__fail(s, TNN_E_VALUE, "table has shape %s, must be two-dimensional", tnn__shape(t));
        return 0;
    }
    if (t->ne[0] > TNN_MAX_ELEMENTS / i->ne[0]) {
        tnn__fail_elements(s, "the result");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_get_rows(s->ctx_c, t, i)) : 0;
}

tnn_tensor tnn_set_rows(tnn_session * s, tnn_tensor dst, tnn_tensor rows, tnn_tensor ids) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * d = tnn__tensor(s, "dst", dst);
    struct ggml_tensor * r = d != NULL ? tnn__f32_operand(s, "rows", rows) : NULL;
    struct ggml_tensor * i = r != NULL ? tnn__index_operand(s, "ids", ids) : NULL;
    if (i == NULL || !want_float_type(s, "dst", d) || !want_contiguous(s, "dst", d)) {
        return 0;
    }
    if (!ggml_is_matrix(d) || !ggml_is_matrix(r) || d->ne[0] != r->ne[0] || r->ne[1] != i->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "rows has shape %s, must be [%lld, %lld]: dst's ne0 (dst is %s), and one row an id", tnn__shape(r),
                  (long long) d->ne[0], (long long) i->ne[0], tnn__shape(d));
        return 0;
    }
    if (tnn__same_memory(d, r)) {
        tnn__fail(s, TNN_E_VALUE, "rows and dst are the same memory: what is read would depend on what was written first");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_set_rows(s->ctx_c, d, r, i)) : 0;
}

/* ------------------------------------------------------------------ shape */

/* ggml has no derivative for CONCAT; SET has one, and writes the same bits. The base is a leaf that the SETs cover whole. */
static tnn_tensor concatenate(tnn_session * s, struct ggml_tensor * const * parts, int n, int dim, int64_t length) {
    int64_t ne[GGML_MAX_DIMS];
    memcpy(ne, parts[0]->ne, sizeof(ne));
    ne[dim] = length;
    struct ggml_tensor * result = ggml_new_tensor(s->ctx_c, GGML_TYPE_F32, GGML_MAX_DIMS, ne);
    size_t offset = 0;
    for (int i = 0; i < n; i++) {
        result = ggml_set(s->ctx_c, result, parts[i], result->nb[1], result->nb[2], result->nb[3], offset);
        offset += (size_t) parts[i]->ne[dim] * result->nb[dim];
    }
    return tnn__appended(s, n + 1, result);
}

/* Checks part i against the first one. */
static bool want_part(tnn_session * s, int i, const struct ggml_tensor * t, const struct ggml_tensor * first, int dim) {
    for (int d = 0; d < GGML_MAX_DIMS; d++) {
        if (d != dim && t->ne[d] != first->ne[d]) {
            tnn__fail(s, TNN_E_VALUE, "parts[%d] has shape %s, must equal that of parts[0], %s, but for ne%d", i, tnn__shape(t),
                      tnn__shape(first), dim);
            return false;
        }
    }
    return true;
}

#define MAX_PARTS 4096

/* t has room for n tensors. */
static tnn_tensor concat_checked(tnn_session * s, const tnn_tensor * parts, struct ggml_tensor ** t, int32_t n, int32_t dim) {
    int64_t length = 0;
    if (dim < 0 || dim >= GGML_MAX_DIMS) {
        tnn__fail(s, TNN_E_VALUE, "dim = %d must be between 0 and %d", (int) dim, GGML_MAX_DIMS - 1);
        return 0;
    }
    const struct ggml_tensor * first = tnn__f32_operand(s, "parts[0]", parts[0]);
    for (int i = 0; i < n && first != NULL; i++) {
        char arg[32];
        snprintf(arg, sizeof(arg), "parts[%d]", i);
        t[i] = tnn__f32_operand(s, arg, parts[i]);
        if (t[i] == NULL || !want_part(s, i, t[i], first, dim)) {
            return 0;
        }
        length += t[i]->ne[dim];
    }
    if (first == NULL) {
        return 0;
    }
    const int64_t rest = ggml_nelements(first) / first->ne[dim];
    if (length > (INT64_C(1) << 28) / rest) { /* ggml's SET keeps strides and offset in 30 bits */
        tnn__fail(s, TNN_E_VALUE, "the result would have more than 2^28 elements, the limit of ggml's SET");
        return 0;
    }
    return tnn__reserve_nodes(s, n + 1) ? concatenate(s, t, n, dim, length) : 0;
}

tnn_tensor tnn_concat(tnn_session * s, tnn_tensor a, tnn_tensor b, int32_t dim) {
    const tnn_tensor parts[] = { a, b };
    struct ggml_tensor * t[2];
    return tnn__enter(s, __func__) ? concat_checked(s, parts, t, 2, dim) : 0;
}

tnn_tensor tnn_concat_n(tnn_session * s, const tnn_tensor * parts, int32_t n, int32_t dim) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    if (n < 1 || n > MAX_PARTS || parts == NULL) {
        tnn__fail(s, TNN_E_VALUE, "n = %d parts; must be between 1 and %d", (int) n, MAX_PARTS);
        return 0;
    }
    struct ggml_tensor ** t = malloc((size_t) n * sizeof(*t));
    if (t == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "no memory for %d parts", (int) n);
        return 0;
    }
    const tnn_tensor result = concat_checked(s, parts, t, n, dim);
    free(t);
    return result;
}

/* The reshape changes nothing forward; backward it makes the transposed gradient contiguous, which most of ggml's
 * kernels require. */
tnn_tensor tnn_transpose(tnn_session * s, tnn_tensor a) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !want_float_type(s, "a", t) || !want_contiguous(s, "a", t)) {
        return 0;
    }
    if (!ggml_is_matrix(t)) {
        tnn__fail(s, TNN_E_VALUE, "a has shape %s, must be two-dimensional", tnn__shape(t));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 3)) {
        return 0;
    }
    struct ggml_tensor * same = ggml_reshape_2d(s->ctx_c, t, t->ne[0], t->ne[1]);
    return tnn__appended(s, 3, ggml_cont(s->ctx_c, ggml_transpose(s->ctx_c, same)));
}

/* The shape must hold exactly the elements of t. */
static bool want_same_elements(tnn_session * s, const struct ggml_tensor * t, const int64_t * ne, int n_dims) {
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) {
        if (ne[i] < 1 || ne[i] > TNN_MAX_ELEMENTS / n) {
            tnn__fail(s, TNN_E_VALUE, "ne%d = %lld does not fit a of shape %s", i, (long long) ne[i], tnn__shape(t));
            return false;
        }
        n *= ne[i];
    }
    if (n != ggml_nelements(t)) {
        tnn__fail(s, TNN_E_VALUE, "the new shape has %lld elements, a of shape %s has %lld", (long long) n, tnn__shape(t),
                  (long long) ggml_nelements(t));
        return false;
    }
    return true;
}

tnn_tensor tnn_cont_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    const int64_t ne[] = { ne0, ne1 };
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !want_float_type(s, "a", t) || !want_same_elements(s, t, ne, 2) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_cont_2d(s->ctx_c, t, ne0, ne1));
}

static struct ggml_tensor * reshape_operand(tnn_session * s, const char * call, tnn_tensor a, const int64_t * ne, int n_dims) {
    if (!tnn__enter(s, call)) {
        return NULL;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    return t != NULL && want_contiguous(s, "a", t) && want_same_elements(s, t, ne, n_dims) && tnn__reserve_nodes(s, 1) ? t : NULL;
}

tnn_tensor tnn_reshape_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1) {
    const int64_t ne[] = { ne0, ne1 };
    struct ggml_tensor * t = reshape_operand(s, __func__, a, ne, 2);
    return t != NULL ? tnn__appended(s, 1, ggml_reshape_2d(s->ctx_c, t, ne0, ne1)) : 0;
}

tnn_tensor tnn_reshape_3d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t ne2) {
    const int64_t ne[] = { ne0, ne1, ne2 };
    struct ggml_tensor * t = reshape_operand(s, __func__, a, ne, 3);
    return t != NULL ? tnn__appended(s, 1, ggml_reshape_3d(s->ctx_c, t, ne0, ne1, ne2)) : 0;
}

/* A view must start at an element and end inside a. A view of a strided view is refused: its gradient would not be a view. */
static struct ggml_tensor * view_operand(tnn_session * s, const char * call, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t nb1,
                                         int64_t offset) {
    if (!tnn__enter(s, call)) {
        return NULL;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !want_contiguous(s, "a", t)) {
        return NULL;
    }
    const int64_t size = (int64_t) ggml_type_size(t->type);
    const int64_t all  = (int64_t) ggml_nbytes(t);
    if (ne0 < 1 || ne0 > all / size) {
        tnn__fail(s, TNN_E_VALUE, "ne0 = %lld must be between 1 and %lld", (long long) ne0, (long long) (all / size));
        return NULL;
    }
    if (ne1 < 1 || ne1 > all / size) {
        tnn__fail(s, TNN_E_VALUE, "ne1 = %lld must be between 1 and %lld", (long long) ne1, (long long) (all / size));
        return NULL;
    }
    if (nb1 < ne0 * size || nb1 % size != 0 || nb1 > all) {
        tnn__fail(s, TNN_E_VALUE, "nb1 = %lld must be a multiple of %lld, at least ne0 * %lld = %lld, and inside a", (long long) nb1,
                  (long long) size, (long long) size, (long long) (ne0 * size));
        return NULL;
    }
    if (offset < 0 || offset % size != 0 || offset >= all) {
        tnn__fail(s, TNN_E_VALUE, "offset = %lld must be a multiple of %lld between 0 and %lld", (long long) offset, (long long) size,
                  (long long) (all - size));
        return NULL;
    }
    if (ne1 - 1 > (all - offset - ne0 * size) / nb1 || all - offset < ne0 * size) {
        tnn__fail(s, TNN_E_VALUE, "the view ends beyond a, of shape %s: ne0 = %lld, ne1 = %lld, nb1 = %lld, offset = %lld", tnn__shape(t),
                  (long long) ne0, (long long) ne1, (long long) nb1, (long long) offset);
        return NULL;
    }
    /* ggml asks that ne0 * ne1 elements lie behind the offset even where the rows are strided: they do, as nb1 >= ne0. */
    return tnn__reserve_nodes(s, 1) ? t : NULL;
}

tnn_tensor tnn_view_1d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t offset) {
    const int64_t row = ne0 >= 1 && ne0 <= TNN_MAX_ELEMENTS ? ne0 * 4 : 4;
    struct ggml_tensor * t = tnn__enter(s, __func__) ? tnn__tensor(s, "a", a) : NULL;
    if (t == NULL) {
        return 0;
    }
    t = view_operand(s, __func__, a, ne0, 1, row / 4 * (int64_t) ggml_type_size(t->type), offset);
    return t != NULL ? tnn__appended(s, 1, ggml_view_1d(s->ctx_c, t, ne0, (size_t) offset)) : 0;
}

tnn_tensor tnn_view_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t nb1, int64_t offset) {
    struct ggml_tensor * t = view_operand(s, __func__, a, ne0, ne1, nb1, offset);
    return t != NULL ? tnn__appended(s, 1, ggml_view_2d(s->ctx_c, t, ne0, ne1, (size_t) nb1, (size_t) offset)) : 0;
}

tnn_tensor tnn_cpy(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * from = tnn__tensor(s, "a", a);
    struct ggml_tensor * to   = from != NULL ? tnn__tensor(s, "b", b) : NULL;
    if (to == NULL || !want_float_type(s, "a", from) || !want_float_type(s, "b", to)) {
        return 0;
    }
    if (ggml_nelements(from) != ggml_nelements(to)) {
        tnn__fail(s, TNN_E_VALUE, "a has shape %s and b %s; they must have as many elements", tnn__shape(from), tnn__shape(to));
        return 0;
    }
    if (tnn__same_memory(from, to)) {
        tnn__fail(s, TNN_E_VALUE, "a and b are the same tensor or views of one: the copy could overlap itself");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_cpy(s->ctx_c, from, to)) : 0;
}

tnn_tensor tnn_cast(tnn_session * s, tnn_tensor a, int32_t dtype) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !want_float_type(s, "a", t)) {
        return 0;
    }
    if (dtype != TNN_F32 && dtype != TNN_F16 && dtype != TNN_BF16) {
        tnn__fail(s, TNN_E_TYPE, "dtype = %d must be 0 (F32), 1 (F16) or 30 (BF16)", (int) dtype);
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_cast(s->ctx_c, t, (enum ggml_type) dtype)) : 0;
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

/* An f32 tensor of w's shape. */
struct ggml_tensor * tnn__like(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * w) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    if (t != NULL && !ggml_are_same_shape(t, w)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, must be that of w, %s", arg, tnn__shape(t), tnn__shape(w));
        return NULL;
    }
    return t;
}

struct ggml_tensor * tnn__parameter_operand(tnn_session * s, tnn_tensor w) {
    struct ggml_tensor * t = tnn__f32_operand(s, "w", w);
    if (t != NULL && !(t->flags & GGML_TENSOR_FLAG_PARAM)) {
        tnn__fail(s, TNN_E_VALUE, "w (%s) is not a parameter; call tnn_set_param first", ggml_get_name(t));
        return NULL;
    }
    return t;
}

/* A tensor that the optimizer writes must be memory of its own: an input. */
bool tnn__want_input(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (t->op == GGML_OP_NONE) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s is the result of an operator (%s), must be a declared tensor", arg, ggml_op_name(t->op));
    return false;
}

bool tnn__same_memory(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    return (a->view_src != NULL ? a->view_src : a) == (b->view_src != NULL ? b->view_src : b);
}

/* What an optimizer step reads must not be what its threads write meanwhile. */
bool tnn__want_apart(tnn_session * s, const char * arg, const struct ggml_tensor * t, struct ggml_tensor * const * written, int n) {
    for (int i = 0; i < n; i++) {
        if (tnn__same_memory(t, written[i])) {
            tnn__fail(s, TNN_E_VALUE, "%s lies in the memory of a tensor that this operator writes (%s, of shape %s)", arg,
                      ggml_get_name(written[i]), tnn__shape(written[i]));
            return false;
        }
    }
    return true;
}

struct ggml_tensor * tnn__hyper_parameters(tnn_session * s, tnn_tensor hp, int64_t n) {
    struct ggml_tensor * t = tnn__f32_operand(s, "hp", hp);
    if (t != NULL && ggml_nelements(t) != n) {
        tnn__fail(s, TNN_E_VALUE, "hp has shape %s, must be [%lld]", tnn__shape(t), (long long) n);
        return NULL;
    }
    return t;
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
