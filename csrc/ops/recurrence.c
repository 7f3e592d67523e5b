/* ops/recurrence.c - the operators of state-space models. */
#include "ops/operands.h"
#include "ops/rules.h"

/* Returns an f32 operand without gaps. tnn__f32_operand also accepts a view of one row with a larger nb1, but ggml's
 * operators of this file use nb1. */
static struct ggml_tensor * dense(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    if (t != NULL && t->nb[1] != (size_t) t->ne[0] * sizeof(float)) {
        tnn__fail(s, TNN_E_VALUE, "%s is a view with nb1 = %zu, longer than its row; make it contiguous with tnn_cont_2d", arg, t->nb[1]);
        return NULL;
    }
    return t;
}

tnn_tensor tnn_ssm_conv(tnn_session * s, tnn_tensor x, tnn_tensor kernel) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = dense(s, "x", x);
    struct ggml_tensor * k = t != NULL ? dense(s, "kernel", kernel) : NULL;
    if (k == NULL || !tnn__want_matrix(s, "kernel", k)) {
        return 0;
    }
    if (t->ne[3] != 1 || t->ne[1] != k->ne[1] || t->ne[0] < k->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "x has shape %s, but it must be [%lld + T, %lld, n_seqs] for a kernel of shape %s", tnn__shape(t),
                  (long long) k->ne[0] - 1, (long long) k->ne[1], tnn__shape(k));
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_ssm_conv(s->ctx_c, t, k)) : 0;
}

/* Returns an f32 operand of the shape [ne0, ne1, ne2, ne3]; a negative size means any size. */
static struct ggml_tensor * shaped(tnn_session * s, const char * arg, tnn_tensor h, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3) {
    struct ggml_tensor * t = dense(s, arg, h);
    const int64_t ne[GGML_MAX_DIMS] = { ne0, ne1, ne2, ne3 };
    for (int i = 0; t != NULL && i < GGML_MAX_DIMS; i++) {
        if (ne[i] >= 0 && t->ne[i] != ne[i]) {
            tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but its ne%d must be %lld", arg, tnn__shape(t), i, (long long) ne[i]);
            return NULL;
        }
    }
    return t;
}

tnn_tensor tnn_ssm_scan(tnn_session * s, tnn_tensor state, tnn_tensor x, tnn_tensor dt, tnn_tensor a, tnn_tensor b, tnn_tensor c,
                        tnn_tensor ids) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t_s = dense(s, "state", state);
    struct ggml_tensor * t_x = t_s != NULL ? shaped(s, "x", x, t_s->ne[1], t_s->ne[2], -1, -1) : NULL;
    if (t_x == NULL) {
        return 0;
    }
    const int64_t d_state = t_s->ne[0], heads = t_x->ne[1], n_tokens = t_x->ne[2], n_seqs = t_x->ne[3];
    struct ggml_tensor * t_dt = shaped(s, "dt", dt, heads, n_tokens, n_seqs, 1);
    struct ggml_tensor * t_a  = t_dt != NULL ? shaped(s, "a", a, -1, heads, 1, 1) : NULL;
    struct ggml_tensor * t_b  = t_a != NULL ? shaped(s, "b", b, d_state, -1, n_tokens, n_seqs) : NULL;
    struct ggml_tensor * t_c  = t_b != NULL ? shaped(s, "c", c, d_state, t_b->ne[1], n_tokens, n_seqs) : NULL;
    struct ggml_tensor * t_i  = t_c != NULL ? tnn__index_operand(s, "ids", ids) : NULL;
    if (t_i == NULL) {
        return 0;
    }
    if (t_a->ne[0] != 1 && t_a->ne[0] != d_state) {
        tnn__fail(s, TNN_E_VALUE, "the tensor a has shape %s, but its ne0 must be 1 or %lld, the ne0 of state",
                  tnn__shape(t_a), (long long) d_state);
        return 0;
    }
    if (heads % t_b->ne[1] != 0) {
        tnn__fail(s, TNN_E_VALUE, "b has shape %s, but its ne1, the groups, must divide the %lld heads", tnn__shape(t_b), (long long) heads);
        return 0;
    }
    if (t_i->ne[0] != n_seqs) {
        tnn__fail(s, TNN_E_VALUE, "ids has shape %s, but it must be [%lld], one id for each sequence", tnn__shape(t_i), (long long) n_seqs);
        return 0;
    }
    const int64_t states = d_state * t_s->ne[1] * heads; /* the product is at most the size of state, so it fits int64_t */
    if (states > TNN_MAX_ELEMENTS / n_seqs || states * n_seqs > TNN_MAX_ELEMENTS - ggml_nelements(t_x)) {
        tnn__fail_elements(s, "the result");
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_ssm_scan(s->ctx_c, t_s, t_x, t_dt, t_a, t_b, t_c, t_i, 1));
}

/* Returns the operand q or k. Its numbers of heads and sequences must divide the same numbers of v. */
static struct ggml_tensor * per_head(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * v) {
    struct ggml_tensor * t = shaped(s, arg, h, v->ne[0], -1, v->ne[2], -1);
    if (t != NULL && (v->ne[1] % t->ne[1] != 0 || v->ne[3] % t->ne[3] != 0)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s; its ne1 and ne3 must divide ne1 and ne3 of v, of shape %s", arg, tnn__shape(t), tnn__shape(v));
        return NULL;
    }
    return t;
}

tnn_tensor tnn_gated_delta_net(tnn_session * s, tnn_tensor q, tnn_tensor k, tnn_tensor v, tnn_tensor g, tnn_tensor beta, tnn_tensor state) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t_v = dense(s, "v", v);
    struct ggml_tensor * t_q = t_v != NULL ? per_head(s, "q", q, t_v) : NULL;
    struct ggml_tensor * t_k = t_q != NULL ? per_head(s, "k", k, t_v) : NULL;
    struct ggml_tensor * t_g = t_k != NULL ? shaped(s, "g", g, -1, t_v->ne[1], t_v->ne[2], t_v->ne[3]) : NULL;
    struct ggml_tensor * t_b = t_g != NULL ? shaped(s, "beta", beta, 1, t_v->ne[1], t_v->ne[2], t_v->ne[3]) : NULL;
    struct ggml_tensor * t_s = t_b != NULL ? shaped(s, "state", state, t_v->ne[0], t_v->ne[0], t_v->ne[1], t_v->ne[3]) : NULL;
    if (t_s == NULL) {
        return 0;
    }
    if (t_g->ne[0] != 1 && t_g->ne[0] != t_v->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "g has shape %s, but its ne0 must be 1 or %lld, the ne0 of v", tnn__shape(t_g), (long long) t_v->ne[0]);
        return 0;
    }
    if (ggml_nelements(t_s) > TNN_MAX_ELEMENTS - ggml_nelements(t_v)) {
        tnn__fail_elements(s, "the result");
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_gated_delta_net(s->ctx_c, t_q, t_k, t_v, t_g, t_b, t_s, 1));
}

static int check_ssm_scan(tnn_session * s, const struct ggml_tensor * node) {
    return tnn__check_ids(s, node->src[6], node->src[0], node->src[0]->ne[3]);
}

const struct tnn_op_rule tnn__recurrence_rules[] = {
    { .op = GGML_OP_SSM_SCAN, .check = check_ssm_scan },
    { .op = GGML_OP_NONE },
};
