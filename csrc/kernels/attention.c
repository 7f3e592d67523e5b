/* kernels/attention.c - causal attention over whole sequences with grouped queries and RoPE, and its gradient.
 *
 * One row of the operand has a token's query heads, then its key heads, then its value heads. Scores exist only for a
 * block of queries at a time, and only up to the last key that the block sees. The backward pass computes them again.
 * Threads divide the work by (sequence, head), and in the backward pass by (sequence, KV head), so that one thread
 * computes each sum of a gradient, in one order.
 */
#include "graph/gradients.h"
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/rope.h"
#include "kernels/softmax.h"
#include "ops/operands.h"

#define QUERIES 96 /* number of queries in one block */

struct attention {
    int32_t d_head, n_heads, n_kv;
    int64_t t_seq; /* tokens of a sequence, or of the cache */
};

/* ------------------------------------------------------------------ scratch memory */

/* Row stride of a block's scores: a multiple of the vector width, but not a power of two, because then rows would evict
 * each other from the cache. */
static int64_t score_stride(int64_t t_seq) {
    return (t_seq + 15) / 16 * 16 + 16;
}

struct buffers {
    float * keys;   /* (T, d_head) rotated */
    float * dkeys;  /* (T, d_head) */
    float * q;      /* (QUERIES, d_head) rotated, scaled */
    float * dq;     /* (QUERIES, d_head) */
    float * p;      /* (QUERIES, T) */
    float * dp;     /* (QUERIES, T) */
    void  * gemm;
};

static float * take(char ** at, int64_t n) {
    float * p = (float *) *at;
    *at += GGML_PAD((size_t) n * sizeof(float), 64);
    return p;
}

static struct buffers lay_out(void * scratch, int64_t t_seq, int64_t d_head, size_t * size) {
    char * at = scratch;
    struct buffers b;
    b.keys  = take(&at, t_seq * d_head);
    b.dkeys = take(&at, t_seq * d_head);
    b.q     = take(&at, QUERIES * d_head);
    b.dq    = take(&at, QUERIES * d_head);
    b.p     = take(&at, QUERIES * score_stride(t_seq));
    b.dp    = take(&at, QUERIES * score_stride(t_seq));
    b.gemm  = at;
    if (size != NULL) {
        *size = (size_t) (at - (char *) scratch) + tnn__gemm_scratch();
    }
    return b;
}

static size_t scratch_size(const void * params) {
    const struct attention * p = params;
    size_t size;
    lay_out((void *) 64, p->t_seq, p->d_head, &size);
    return size;
}

/* ------------------------------------------------------------------ softmax of a block */

/* In row i of p (rows, stride), replaces the scores of keys 0..first+i by exp(score - max), and the scores of the later
 * keys up to n_keys by 0. Writes the reciprocal of each row's sum to inverse. */
static void causal_exp(float * p, int64_t stride, int64_t rows, int64_t first, int64_t n_keys, float * inverse) {
    for (int64_t row = 0; row < rows; row++) {
        float       * x = p + row * stride;
        const int64_t n = first + row + 1;
        inverse[row] = 1.0f / tnn__exp_sum(x, n, tnn__row_max(x, n), x);
        memset(x + n, 0, (size_t) (n_keys - n) * sizeof(float));
    }
}

static void scale_row(float * x, int64_t n, float by) {
    for (int64_t i = 0; i < n; i++) {
        x[i] *= by;
    }
}

/* ------------------------------------------------------------------ forward */

struct shape {
    int64_t t_seq, d, n_heads, n_kv, group;
    int64_t qkv_row; /* (n_heads + 2 n_kv) d */
    int64_t stride;  /* of scores */
    float   scale;
};

static struct shape shape_of(const struct attention * p) {
    return (struct shape) {
        .t_seq = p->t_seq, .d = p->d_head, .n_heads = p->n_heads, .n_kv = p->n_kv, .group = p->n_heads / p->n_kv,
        .qkv_row = (int64_t) (p->n_heads + 2 * p->n_kv) * p->d_head, .stride = score_stride(p->t_seq),
        .scale = 1.0f / sqrtf((float) p->d_head),
    };
}

/* Rotates queries (rows, d_head) into b->q, and writes their scores against the rotated keys (n_keys, d_head) to b->p. */
static void block_scores(const struct shape * h, const struct buffers * b, const float * queries, const float * table, int64_t rows,
                         const float * keys, int64_t key_row, int64_t n_keys) {
    tnn__rotate(queries, h->qkv_row, table, rows, h->d, false, h->scale, b->q, h->d);
    const struct tnn_gemm g = { /* S = Q K^T */
        .m = rows, .n = n_keys, .k = h->d,
        .a = b->q, .a_row = h->d, .a_col = 1,
        .b = keys, .b_row = 1, .b_col = key_row,
        .c = b->p, .c_row = h->stride,
    };
    tnn__gemm(&g, b->gemm);
}

/* Computes the attention of a block of queries (scores, softmax, weighted sum of the values) into rows of out. The
 * first query sees `first` keys before its own. */
static void block_attention(const struct shape * h, const struct buffers * b, const float * queries, const float * table, int64_t rows,
                            int64_t first, const float * keys, int64_t key_row, const float * values, int64_t value_row, float * out,
                            int64_t out_row) {
    float inverse[QUERIES];
    block_scores(h, b, queries, table, rows, keys, key_row, first + rows);
    causal_exp(b->p, h->stride, rows, first, first + rows, inverse);
    const struct tnn_gemm g = { /* O = P V */
        .m = rows, .n = h->d, .k = first + rows,
        .a = b->p, .a_row = h->stride, .a_col = 1,
        .b = values, .b_row = value_row, .b_col = 1,
        .c = out, .c_row = out_row,
    };
    tnn__gemm(&g, b->gemm);
    for (int64_t row = 0; row < rows; row++) {
        scale_row(out + row * out_row, h->d, inverse[row]);
    }
}

/* Computes attention. Operands: qkv, RoPE table. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct shape   h = shape_of(k->params);
    const struct buffers b = lay_out(scratch, h.t_seq, h.d, NULL);
    const int64_t out_row  = h.n_heads * h.d;
    int64_t begin, end;
    tnn__part(dst->ne[1] / h.t_seq * h.n_heads, 1, ith, nth, &begin, &end);
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t sequence = piece / h.n_heads, head = piece % h.n_heads, kv = head / h.group;
        const float * qkv    = tnn__data(dst->src[0]) + sequence * h.t_seq * h.qkv_row;
        const float * table  = tnn__data(dst->src[1]) + sequence * h.t_seq * h.d;
        const float * values = qkv + (h.n_heads + h.n_kv + kv) * h.d;
        float       * out    = (float *) dst->data + sequence * h.t_seq * out_row + head * h.d;
        if (piece == begin || head % h.group == 0) {
            tnn__rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, h.t_seq, h.d, false, 1.0f, b.keys, h.d);
        }
        for (int64_t q0 = 0; q0 < h.t_seq; q0 += QUERIES) {
            const int64_t rows = tnn__min(QUERIES, h.t_seq - q0);
            block_attention(&h, &b, qkv + head * h.d + q0 * h.qkv_row, table + q0 * h.d, rows, q0, b.keys, h.d, values, h.qkv_row,
                            out + q0 * out_row, out_row);
        }
    }
}

/* Computes the attention of the last tokens of one sequence. The cache has the rotated keys and the values of the
 * earlier tokens. First, the keys and values of the last tokens are written to the cache. A row of the cache has the
 * keys of the KV heads, then their values. Operands: qkv, RoPE table, cache, number of earlier tokens. */
static void run_cached(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct shape   h = shape_of(k->params);
    const struct buffers b = lay_out(scratch, h.t_seq, h.d, NULL);
    const float * qkv     = tnn__data(dst->src[0]);
    const float * table   = tnn__data(dst->src[1]);
    float       * cache   = dst->src[2]->data;
    const int64_t past    = *(const int32_t *) dst->src[3]->data;
    const int64_t n       = dst->ne[1], cache_row = 2 * h.n_kv * h.d, out_row = h.n_heads * h.d;
    int64_t begin, end;
    tnn__part(h.n_kv, 1, ith, nth, &begin, &end);
    for (int64_t kv = begin; kv < end; kv++) {
        float * keys   = cache + kv * h.d;
        float * values = cache + (h.n_kv + kv) * h.d;
        tnn__rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, n, h.d, false, 1.0f, keys + past * cache_row, cache_row);
        for (int64_t row = 0; row < n; row++) {
            memcpy(values + (past + row) * cache_row, qkv + row * h.qkv_row + (h.n_heads + h.n_kv + kv) * h.d,
                   (size_t) h.d * sizeof(float));
        }
        for (int64_t head = kv * h.group; head < (kv + 1) * h.group; head++) {
            for (int64_t q0 = 0; q0 < n; q0 += QUERIES) {
                block_attention(&h, &b, qkv + head * h.d + q0 * h.qkv_row, table + q0 * h.d, tnn__min(QUERIES, n - q0), past + q0, keys,
                                cache_row, values, cache_row, (float *) dst->data + q0 * out_row + head * h.d, out_row);
            }
        }
    }
}

/* ------------------------------------------------------------------ backward */

/* Normalises P, then replaces dP by dS = P (dP - sum_j P dP), row by row. */
static void softmax_back(float * p, float * dp, int64_t stride, int64_t rows, int64_t n_keys, const float * inverse) {
    for (int64_t row = 0; row < rows; row++, p += stride, dp += stride) {
        const v8f by  = v8_set1(inverse[row]);
        v8f       dot = v8_set1(0.0f);
        int64_t   i   = 0;
        for (; i + V8_LANES <= n_keys; i += V8_LANES) {
            const v8f y = v8_load(p + i) * by;
            v8_store(p + i, y);
            dot = v8_fma(y, v8_load(dp + i), dot);
        }
        float rest = 0.0f;
        for (int64_t j = i; j < n_keys; j++) {
            p[j] *= inverse[row];
            rest += p[j] * dp[j];
        }
        const float mean  = v8_sum(dot) + rest;
        const v8f   shift = v8_set1(mean);
        for (i = 0; i + V8_LANES <= n_keys; i += V8_LANES) {
            v8_store(dp + i, v8_load(p + i) * (v8_load(dp + i) - shift));
        }
        for (; i < n_keys; i++) {
            dp[i] = p[i] * (dp[i] - mean);
        }
    }
}

/* Computes the gradient of qkv. Operands: dO, qkv, RoPE table. */
static void run_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct shape   h = shape_of(k->params);
    const struct buffers b = lay_out(scratch, h.t_seq, h.d, NULL);
    const int64_t out_row  = h.n_heads * h.d;
    int64_t begin, end;
    tnn__part(dst->ne[1] / h.t_seq * h.n_kv, 1, ith, nth, &begin, &end);
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t sequence = piece / h.n_kv, kv = piece % h.n_kv;
        const float * qkv     = tnn__data(dst->src[1]) + sequence * h.t_seq * h.qkv_row;
        const float * table   = tnn__data(dst->src[2]) + sequence * h.t_seq * h.d;
        const float * values  = qkv + (h.n_heads + h.n_kv + kv) * h.d;
        float       * dqkv    = (float *) dst->data + sequence * h.t_seq * h.qkv_row;
        float       * dvalues = dqkv + (h.n_heads + h.n_kv + kv) * h.d;
        tnn__rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, h.t_seq, h.d, false, 1.0f, b.keys, h.d);
        memset(b.dkeys, 0, (size_t) (h.t_seq * h.d) * sizeof(float));
        for (int64_t row = 0; row < h.t_seq; row++) {
            memset(dvalues + row * h.qkv_row, 0, (size_t) h.d * sizeof(float));
        }
        for (int64_t head = kv * h.group; head < (kv + 1) * h.group; head++) {
            const float * dout = tnn__data(dst->src[0]) + sequence * h.t_seq * out_row + head * h.d;
            for (int64_t q0 = 0; q0 < h.t_seq; q0 += QUERIES) {
                const int64_t rows = tnn__min(QUERIES, h.t_seq - q0), n_keys = q0 + rows;
                float inverse[QUERIES];
                block_scores(&h, &b, qkv + head * h.d + q0 * h.qkv_row, table + q0 * h.d, rows, b.keys, h.d, n_keys);
                causal_exp(b.p, h.stride, rows, q0, n_keys, inverse);
                const struct tnn_gemm back_p = { /* dP = dO V^T */
                    .m = rows, .n = n_keys, .k = h.d,
                    .a = dout + q0 * out_row, .a_row = out_row, .a_col = 1,
                    .b = values, .b_row = 1, .b_col = h.qkv_row,
                    .c = b.dp, .c_row = h.stride,
                };
                tnn__gemm(&back_p, b.gemm);
                softmax_back(b.p, b.dp, h.stride, rows, n_keys, inverse);
                const struct tnn_gemm back_v = { /* dV += P^T dO */
                    .m = n_keys, .n = h.d, .k = rows,
                    .a = b.p, .a_row = 1, .a_col = h.stride,
                    .b = dout + q0 * out_row, .b_row = out_row, .b_col = 1,
                    .c = dvalues, .c_row = h.qkv_row, .accumulate = true,
                };
                tnn__gemm(&back_v, b.gemm);
                const struct tnn_gemm back_q = { /* dQ = dS K */
                    .m = rows, .n = h.d, .k = n_keys,
                    .a = b.dp, .a_row = h.stride, .a_col = 1,
                    .b = b.keys, .b_row = h.d, .b_col = 1,
                    .c = b.dq, .c_row = h.d,
                };
                tnn__gemm(&back_q, b.gemm);
                tnn__rotate(b.dq, h.d, table + q0 * h.d, rows, h.d, true, h.scale, dqkv + q0 * h.qkv_row + head * h.d, h.qkv_row);
                const struct tnn_gemm back_k = { /* dK += dS^T Q; Q is multiplied by the scale already */
                    .m = n_keys, .n = h.d, .k = rows,
                    .a = b.dp, .a_row = 1, .a_col = h.stride,
                    .b = b.q, .b_row = h.d, .b_col = 1,
                    .c = b.dkeys, .c_row = h.d, .accumulate = true,
                };
                tnn__gemm(&back_k, b.gemm);
            }
        }
        tnn__rotate(b.dkeys, h.d, table, h.t_seq, h.d, true, 1.0f, dqkv + (h.n_heads + kv) * h.d, h.qkv_row);
    }
}

/* ------------------------------------------------------------------ the kernels */

static const struct tnn_kernel_type ATTENTION_BACK = {
    .name = "ATTENTION_BACK", .run = run_back, .scratch = scratch_size, .params_size = sizeof(struct attention),
};

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * args[] = { grad, node->src[0], node->src[1] };
    tnn__add_gradient(g, node->src[0], &ATTENTION_BACK, tnn__kernel_of(node)->params, args, 3);
}

static const struct tnn_kernel_type ATTENTION = {
    .name = "ATTENTION", .run = run, .backward = backward, .differentiable = TNN_OPERAND(0), .scratch = scratch_size,
    .params_size = sizeof(struct attention),
};

/* Checks that the new tokens fit into the cache after the earlier tokens. */
static int check_cache(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node) {
    const int32_t past  = *(const int32_t *) node->src[3]->data;
    const int64_t n_ctx = node->src[2]->ne[1], n = node->ne[1];
    (void) k;
    if (past >= 0 && past <= n_ctx - n) {
        return TNN_OK;
    }
    return tnn__fail(s, TNN_E_VALUE, "n_past = %d must be between 0 and %lld, because the cache can hold %lld tokens "
                                     "and %lld are added",
                     (int) past, (long long) (n_ctx - n), (long long) n_ctx, (long long) n);
}

static const struct tnn_kernel_type ATTENTION_CACHED = {
    .name = "ATTENTION_CACHED", .run = run_cached, .writes = TNN_OPERAND(2), .check = check_cache, .scratch = scratch_size,
    .params_size = sizeof(struct attention),
};

/* Sets the operands of attention, args[0] to qkv and args[1] to the RoPE table. Returns false with an error. */
static bool attention_operands(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, int32_t n_heads, int32_t n_kv,
                               struct ggml_tensor ** args) {
    struct ggml_tensor * tq = args[0] = tnn__rows_operand(s, "qkv", qkv);
    struct ggml_tensor * tr = args[1] = tq != NULL ? tnn__rows_operand(s, "rope_table", rope_table) : NULL;
    if (tr == NULL) {
        return false;
    }
    if (n_heads < 1 || n_kv < 1 || n_heads % n_kv != 0) {
        tnn__fail(s, TNN_E_VALUE, "n_kv = %d must be at least 1 and divide n_heads = %d", (int) n_kv, (int) n_heads);
        return false;
    }
    const int64_t d_head = tr->ne[0];
    if (d_head % 2 != 0 || tq->ne[0] % d_head != 0 || tq->ne[0] / d_head != (int64_t) n_heads + 2 * (int64_t) n_kv) {
        tnn__fail(s, TNN_E_VALUE, "qkv has shape %s, but it must be [(n_heads + 2 n_kv) d_head, rows] = [(%d + 2*%d) "
                                  "* %lld, rows]", tnn__shape(tq),
                  (int) n_heads, (int) n_kv, (long long) d_head);
        return false;
    }
    if (tr->ne[1] != tq->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "rope_table has shape %s, but it must have as many rows as qkv, of shape %s",
                  tnn__shape(tr), tnn__shape(tq));
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
        tnn__fail(s, TNN_E_VALUE, "t_seq = %lld must divide the number of rows of qkv, of shape %s",
                  (long long) t_seq, tnn__shape(args[0]));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const int64_t d_head = args[1]->ne[0];
    const struct attention p = { .n_heads = n_heads, .n_kv = n_kv, .t_seq = t_seq, .d_head = (int32_t) d_head };
    return tnn__handle(s, tnn__kernel_node(s, &ATTENTION, &p, (int64_t) n_heads * d_head, args[0]->ne[1], args, 2));
}

tnn_tensor tnn_fused_attention_cached(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, tnn_tensor kv_cache, tnn_tensor n_past,
                                      int32_t n_heads, int32_t n_kv) {
    struct ggml_tensor * args[4];
    if (!tnn__enter(s, __func__) || !attention_operands(s, qkv, rope_table, n_heads, n_kv, args)) {
        return 0;
    }
    const int64_t d_head = args[1]->ne[0], n = args[0]->ne[1];
    args[2] = tnn__rows_operand(s, "kv_cache", kv_cache);
    args[3] = args[2] != NULL ? tnn__index_operand(s, "n_past", n_past) : NULL;
    if (args[3] == NULL) {
        return 0;
    }
    if (!tnn__is_persistent(args[2]) || args[2]->ne[0] != 2 * (int64_t) n_kv * d_head || args[2]->ne[1] < n) {
        tnn__fail(s, TNN_E_VALUE, "kv_cache has shape %s, but it must be a persistent tensor [2 n_kv d_head, n_ctx] = "
                                  "[%lld, at least %lld]",
                  tnn__shape(args[2]), (long long) (2 * (int64_t) n_kv * d_head), (long long) n);
        return 0;
    }
    if (!tnn__want_apart(s, "qkv", args[0], &args[2], 1) || !tnn__want_apart(s, "rope_table", args[1], &args[2], 1)) {
        return 0;
    }
    if (args[3]->ne[0] != 1) {
        tnn__fail(s, TNN_E_VALUE, "n_past has shape %s, but it must be [1]", tnn__shape(args[3]));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const int64_t n_ctx = args[2]->ne[1];
    const struct attention p = { .n_heads = n_heads, .n_kv = n_kv, .t_seq = n_ctx, .d_head = (int32_t) d_head };
    return tnn__handle(s, tnn__kernel_node(s, &ATTENTION_CACHED, &p, (int64_t) n_heads * d_head, n, args, 4));
}
