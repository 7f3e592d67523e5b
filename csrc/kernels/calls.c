/* kernels/calls.c - the fused operators as session calls: each checks its operands, then appends its kernel nodes. */
#include "kernels/gemm.h"
#include "kernels/kernel.h"

#include <math.h>

#define MAX_WEIGHTS 3 /* x, three weights, their biases and an addend are eight operands of ggml's nine */

static bool want_rows(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (ggml_is_matrix(t)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s has shape %s, must be two-dimensional", arg, tnn__shape(t));
    return false;
}

/* An f32 contiguous matrix. */
static struct ggml_tensor * rows_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    return t != NULL && want_rows(s, arg, t) ? t : NULL;
}

static tnn_tensor handle_of(tnn_session * s, struct ggml_tensor * t) {
    return t != NULL ? tnn__handle(s, t) : 0;
}

tnn_tensor tnn_fused_linear(tnn_session * s, tnn_tensor x, const tnn_tensor * weights, const tnn_tensor * biases, int32_t n, tnn_tensor add) {
    static const char * const WEIGHT[] = { "weights[0]", "weights[1]", "weights[2]" };
    static const char * const BIAS[]   = { "biases[0]", "biases[1]", "biases[2]" };
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    if (n < 1 || n > MAX_WEIGHTS || weights == NULL) {
        tnn__fail(s, TNN_E_VALUE, "n = %d: there must be one to %d weights", (int) n, MAX_WEIGHTS);
        return 0;
    }
    struct ggml_tensor * args[GGML_MAX_SRC];
    int n_args = 0;
    struct ggml_tensor * tx = args[n_args++] = rows_operand(s, "x", x);
    int64_t columns = 0;
    if (tx == NULL) {
        return 0;
    }
    for (int i = 0; i < n; i++) {
        struct ggml_tensor * w = args[n_args++] = rows_operand(s, WEIGHT[i], weights[i]);
        if (w == NULL) {
            return 0;
        }
        if (w->ne[0] != tx->ne[0]) {
            tnn__fail(s, TNN_E_VALUE, "%s has shape %s; its ne0 must be that of x, of shape %s", WEIGHT[i], tnn__shape(w), tnn__shape(tx));
            return 0;
        }
        columns += w->ne[1];
    }
    for (int i = 0; i < n && biases != NULL; i++) {
        struct ggml_tensor * b = args[n_args++] = tnn__f32_operand(s, BIAS[i], biases[i]);
        if (b == NULL) {
            return 0;
        }
        if (!ggml_is_vector(b) || b->ne[0] != args[1 + i]->ne[1]) {
            tnn__fail(s, TNN_E_VALUE, "%s has shape %s, must be [%lld] for a weight of shape %s", BIAS[i], tnn__shape(b),
                      (long long) args[1 + i]->ne[1], tnn__shape(args[1 + i]));
            return 0;
        }
    }
    if (columns > TNN_MAX_ELEMENTS / tx->ne[1]) {
        tnn__fail_elements(s, "the product");
        return 0;
    }
    if (add != 0) {
        struct ggml_tensor * a = args[n_args++] = rows_operand(s, "add", add);
        if (a == NULL) {
            return 0;
        }
        if (a->ne[0] != columns || a->ne[1] != tx->ne[1]) {
            tnn__fail(s, TNN_E_VALUE, "add has shape %s, must be [%lld, %lld]", tnn__shape(a), (long long) columns, (long long) tx->ne[1]);
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const struct tnn_kernel like = { .kind = TNN_K_LINEAR, .n_weights = n, .has_bias = biases != NULL, .has_add = add != 0,
                                     .scratch = tnn__gemm_scratch() };
    return handle_of(s, tnn__kernel_node(s, &like, columns, tx->ne[1], args, n_args));
}

tnn_tensor tnn_fused_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tx = rows_operand(s, "x", x);
    struct ggml_tensor * tg = tx != NULL ? tnn__f32_operand(s, "gamma", gamma) : NULL;
    if (tg == NULL || !tnn__want_eps(s, eps)) {
        return 0;
    }
    if (!ggml_is_vector(tg) || tg->ne[0] != tx->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "gamma has shape %s, must be [%lld] for x of shape %s", tnn__shape(tg), (long long) tx->ne[0], tnn__shape(tx));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct ggml_tensor * args[] = { tx, tg };
    const struct tnn_kernel like = { .kind = TNN_K_RMS_NORM, .eps = eps };
    return handle_of(s, tnn__kernel_node(s, &like, tx->ne[0], tx->ne[1], args, 2));
}

tnn_tensor tnn_fused_rope_table(tnn_session * s, tnn_tensor positions, tnn_tensor freq_factors, int32_t d_head, float freq_base,
                                float freq_scale, float attn_factor) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * args[2] = { tnn__index_operand(s, "positions", positions), NULL };
    if (args[0] == NULL || !tnn__want_finite(s, "freq_scale", freq_scale) || !tnn__want_finite(s, "attn_factor", attn_factor)) {
        return 0;
    }
    if (d_head < 2 || d_head % 2 != 0) {
        tnn__fail(s, TNN_E_VALUE, "d_head = %d must be even and at least 2", (int) d_head);
        return 0;
    }
    if (!isfinite(freq_base) || freq_base <= 0.0f) {
        tnn__fail(s, TNN_E_VALUE, "freq_base = %g must be finite and positive", (double) freq_base);
        return 0;
    }
    if (d_head > TNN_MAX_ELEMENTS / args[0]->ne[0]) {
        tnn__fail_elements(s, "the table");
        return 0;
    }
    if (freq_factors != 0) {
        args[1] = tnn__f32_operand(s, "freq_factors", freq_factors);
        if (args[1] == NULL) {
            return 0;
        }
        if (!ggml_is_vector(args[1]) || args[1]->ne[0] != d_head / 2) {
            tnn__fail(s, TNN_E_VALUE, "freq_factors has shape %s, must be [d_head / 2] = [%d]", tnn__shape(args[1]), (int) d_head / 2);
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const struct tnn_kernel like = { .kind = TNN_K_ROPE_TABLE, .d_head = d_head, .freq_base = freq_base, .freq_scale = freq_scale,
                                     .attn_factor = attn_factor };
    return handle_of(s, tnn__kernel_node(s, &like, d_head, args[0]->ne[0], args, args[1] != NULL ? 2 : 1));
}

/* The operands of attention, args[0] qkv and args[1] the RoPE table; false with an error. */
static bool attention_operands(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, int32_t n_heads, int32_t n_kv,
                               struct ggml_tensor ** args) {
    struct ggml_tensor * tq = args[0] = rows_operand(s, "qkv", qkv);
    struct ggml_tensor * tr = args[1] = tq != NULL ? rows_operand(s, "rope_table", rope_table) : NULL;
    if (tr == NULL) {
        return false;
    }
    if (n_heads < 1 || n_kv < 1 || n_heads % n_kv != 0) {
        tnn__fail(s, TNN_E_VALUE, "n_kv = %d must be at least 1 and divide n_heads = %d", (int) n_kv, (int) n_heads);
        return false;
    }
    const int64_t d_head = tr->ne[0];
    if (d_head % 2 != 0 || tq->ne[0] % d_head != 0 || tq->ne[0] / d_head != (int64_t) n_heads + 2 * (int64_t) n_kv) {
        tnn__fail(s, TNN_E_VALUE, "qkv has shape %s, must be [(n_heads + 2 n_kv) d_head, rows] = [(%d + 2*%d) * %lld, rows]", tnn__shape(tq),
                  (int) n_heads, (int) n_kv, (long long) d_head);
        return false;
    }
    if (tr->ne[1] != tq->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "rope_table has shape %s, must have a row for each of qkv's, of shape %s", tnn__shape(tr), tnn__shape(tq));
        return false;
    }
    return true;
}

tnn_tensor tnn_fused_attention(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, int32_t n_heads, int32_t n_kv, int64_t t_seq) {
    struct ggml_tensor * args[2];
    if (!tnn__enter(s, __func__) || !attention_operands(s, qkv, rope_table, n_heads, n_kv, args)) {
        return 0;
    }
    if (t_seq < 1 || args[0]->ne[1] % t_seq != 0) {
        tnn__fail(s, TNN_E_VALUE, "t_seq = %lld must divide the rows of qkv, of shape %s", (long long) t_seq, tnn__shape(args[0]));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const int64_t d_head = args[1]->ne[0];
    const struct tnn_kernel like = { .kind = TNN_K_ATTENTION, .n_heads = n_heads, .n_kv = n_kv, .t_seq = t_seq, .d_head = (int32_t) d_head,
                                     .scratch = tnn__attention_scratch(t_seq, d_head) };
    return handle_of(s, tnn__kernel_node(s, &like, (int64_t) n_heads * d_head, args[0]->ne[1], args, 2));
}

tnn_tensor tnn_fused_attention_cached(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, tnn_tensor kv_cache, tnn_tensor n_past,
                                      int32_t n_heads, int32_t n_kv) {
    struct ggml_tensor * args[4];
    if (!tnn__enter(s, __func__) || !attention_operands(s, qkv, rope_table, n_heads, n_kv, args)) {
        return 0;
    }
    const int64_t d_head = args[1]->ne[0], n = args[0]->ne[1];
    args[2] = rows_operand(s, "kv_cache", kv_cache);
    args[3] = args[2] != NULL ? tnn__index_operand(s, "n_past", n_past) : NULL;
    if (args[3] == NULL) {
        return 0;
    }
    if (!tnn__is_persistent(args[2]) || args[2]->ne[0] != 2 * (int64_t) n_kv * d_head || args[2]->ne[1] < n) {
        tnn__fail(s, TNN_E_VALUE, "kv_cache has shape %s, must be a persistent tensor [2 n_kv d_head, n_ctx] = [%lld, at least %lld]",
                  tnn__shape(args[2]), (long long) (2 * (int64_t) n_kv * d_head), (long long) n);
        return 0;
    }
    if (!tnn__want_apart(s, "qkv", args[0], &args[2], 1) || !tnn__want_apart(s, "rope_table", args[1], &args[2], 1)) {
        return 0;
    }
    if (args[3]->ne[0] != 1) {
        tnn__fail(s, TNN_E_VALUE, "n_past has shape %s, must be [1]", tnn__shape(args[3]));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const int64_t n_ctx = args[2]->ne[1];
    const struct tnn_kernel like = { .kind = TNN_K_ATTENTION_CACHED, .n_heads = n_heads, .n_kv = n_kv, .t_seq = n_ctx,
                                     .d_head = (int32_t) d_head, .scratch = tnn__attention_scratch(n_ctx, d_head) };
    return handle_of(s, tnn__kernel_node(s, &like, (int64_t) n_heads * d_head, n, args, 4));
}

tnn_tensor tnn_fused_swiglu(tnn_session * s, tnn_tensor gate_up) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = rows_operand(s, "gate_up", gate_up);
    if (t == NULL) {
        return 0;
    }
    if (t->ne[0] % 2 != 0) {
        tnn__fail(s, TNN_E_VALUE, "gate_up has shape %s, must be [2 d_ff, rows]", tnn__shape(t));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const struct tnn_kernel like = { .kind = TNN_K_SWIGLU };
    return handle_of(s, tnn__kernel_node(s, &like, t->ne[0] / 2, t->ne[1], &t, 1));
}

tnn_tensor tnn_fused_cross_entropy(tnn_session * s, tnn_tensor logits, tnn_tensor targets, int32_t ignore_id) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tl = rows_operand(s, "logits", logits);
    struct ggml_tensor * tt = tl != NULL ? tnn__index_operand(s, "targets", targets) : NULL;
    if (tt == NULL) {
        return 0;
    }
    if (tt->ne[0] != tl->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "targets has shape %s, must be one for each row of logits, of shape %s", tnn__shape(tt), tnn__shape(tl));
        return 0;
    }
    if (ignore_id >= 0 && ignore_id < tl->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "ignore_id = %d is a token of the vocabulary, of %lld; use a negative number", (int) ignore_id,
                  (long long) tl->ne[0]);
        return 0;
    }
    if (!tnn__reserve_nodes(s, 2)) {
        return 0;
    }
    struct ggml_tensor * args[] = { tl, tt };
    struct tnn_kernel like = { .kind = TNN_K_CROSS_ENTROPY_ROWS, .ignore_id = ignore_id };
    args[0] = tnn__kernel_node(s, &like, tl->ne[1], 1, args, 2);
    if (args[0] == NULL) {
        return 0;
    }
    ggml_set_name(args[0], "row losses");
    like.kind = TNN_K_CROSS_ENTROPY;
    return handle_of(s, tnn__kernel_node(s, &like, 1, 1, args, 2));
}

/* ------------------------------------------------------------------ the optimizer */

static bool want_backward(tnn_session * s) {
    if (s->stage == TNN_STAGE_BACKWARD_BUILT) {
        return true;
    }
    tnn__fail_stage(s, "an optimizer step of a fused graph needs tnn_build_backward, and comes before tnn_realize_backward");
    return false;
}

tnn_tensor tnn_fused_grad_norm(tnn_session * s, const tnn_tensor * grads, int32_t n, tnn_tensor clip) {
    if (!tnn__enter(s, __func__) || !want_backward(s)) {
        return 0;
    }
    struct ggml_tensor * tc = tnn__hyper_parameters(s, clip, 2);
    if (tc == NULL) {
        return 0;
    }
    if (n < 1 || grads == NULL) {
        tnn__fail(s, TNN_E_VALUE, "n = %d: there must be at least one gradient", (int) n);
        return 0;
    }
    for (int i = 0; i < n; i++) {
        if (tnn__f32_operand(s, "grads", grads[i]) == NULL) {
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, n) || !tnn__reserve_nodes(s, n + 1)) {
        return 0;
    }
    struct ggml_tensor * squares = NULL, * first = NULL;
    for (int i = 0; i < n; i++) {
        struct ggml_tensor    * args[] = { tnn__tensor(s, "grads", grads[i]), squares };
        const struct tnn_kernel like   = { .kind = TNN_K_GRAD_SQUARES };
        struct ggml_tensor    * g      = args[0];
        struct ggml_tensor    * node   = tnn__kernel_node(s, &like, 1, 1, args, squares != NULL ? 2 : 1);
        if (node == NULL) {
            return 0;
        }
        if (squares != NULL) {
            tnn__kernel_of(s, squares)->following = tnn__kernel_of(s, node);
        }
        first   = first != NULL ? first : node;
        squares = node;
        ggml_format_name(squares, "squares of %.50s", ggml_get_name(g));
    }
    struct ggml_tensor    * args[] = { squares, tc };
    const struct tnn_kernel like   = { .kind = TNN_K_GRAD_NORM, .following = tnn__kernel_of(s, first) };
    return handle_of(s, tnn__kernel_node(s, &like, 2, 1, args, 2));
}

tnn_tensor tnn_fused_adamw(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp, tnn_tensor norm) {
    if (!tnn__enter(s, __func__) || !want_backward(s)) {
        return 0;
    }
    struct ggml_tensor * tw = tnn__parameter_operand(s, w);
    struct ggml_tensor * tg = tw != NULL ? tnn__like(s, "grad", grad, tw) : NULL;
    struct ggml_tensor * tm = tg != NULL ? tnn__like(s, "m", m, tw) : NULL;
    struct ggml_tensor * tv = tm != NULL ? tnn__like(s, "v", v, tw) : NULL;
    struct ggml_tensor * th = tv != NULL ? tnn__hyper_parameters(s, hp, 7) : NULL;
    struct ggml_tensor * tn = NULL;
    if (th == NULL || !tnn__want_input(s, "m", tm) || !tnn__want_input(s, "v", tv)) {
        return 0;
    }
    struct ggml_tensor * const written[] = { tw, tm, tv };
    if (!tnn__want_apart(s, "m", tm, written, 1) || !tnn__want_apart(s, "v", tv, written, 2)
        || !tnn__want_apart(s, "grad", tg, written, 3) || !tnn__want_apart(s, "hp", th, written, 3)) {
        return 0;
    }
    if (norm != 0) {
        tn = tnn__tensor(s, "norm", norm);
        const struct tnn_kernel * k = tn != NULL ? tnn__kernel_of(s, tn) : NULL;
        if (tn == NULL) {
            return 0;
        }
        if (k == NULL || k->kind != TNN_K_GRAD_NORM) {
            tnn__fail(s, TNN_E_VALUE, "norm is not what tnn_fused_grad_norm returned");
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct ggml_tensor * args[] = { tw, tg, tm, tv, th, tn };
    const struct tnn_kernel like = { .kind = TNN_K_ADAMW };
    struct ggml_tensor * step = tnn__kernel_node(s, &like, 0, 0, args, tn != NULL ? 6 : 5);
    if (step != NULL) {
        ggml_format_name(step, "step of %.50s", ggml_get_name(tw));
    }
    return handle_of(s, step);
}
