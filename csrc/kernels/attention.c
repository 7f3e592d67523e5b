/* kernels/attention.c - causal attention over whole sequences with grouped queries and RoPE, and its gradient.
 *
 * The backward pass computes the scores of each block of queries (attention_block.h) again. Threads divide the work by
 * (sequence, head), and in the backward pass by (sequence, KV head), so that one thread computes each sum of a gradient,
 * in one order.
 */
#include "graph/gradients.h"
#include "kernels/attention_block.h"
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/rope.h"
#include "kernels/row_loops.h"
#include "ops/operands.h"

/* ------------------------------------------------------------------ forward */

/* Returns the starts of the samples in a sequence, or NULL if node has no operand src for them. */
static const int32_t * starts_of(const struct ggml_tensor * node, int src, int64_t sequence, int64_t t_seq) {
    return node->src[src] == NULL ? NULL : (const int32_t *) node->src[src]->data + sequence * t_seq;
}

static void copy_rows(const float * from, int64_t from_row, int64_t rows, int64_t n, float * to, int64_t to_row) {
    for (int64_t row = 0; row < rows; row++) {
        memcpy(to + row * to_row, from + row * from_row, (size_t) n * sizeof(float));
    }
}

/* Computes attention. Operands: qkv, RoPE table, [starts]. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    struct tnn_attention_shape         h = tnn__attention_shape(k->params);
    const struct tnn_attention_buffers b = tnn__attention_buffers(scratch, k->params);
    const int64_t out_row  = h.n_heads * h.d;
    struct tnn_panels key_panels = { NULL };
    int64_t begin, end;
    tnn__part(dst->ne[1] / h.t_seq * h.n_heads, 1, ith, nth, &begin, &end);
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t sequence = piece / h.n_heads, head = piece % h.n_heads, kv = head / h.group;
        h.starts = starts_of(dst, 2, sequence, h.t_seq);
        const float * qkv    = tnn__data(dst->src[0]) + sequence * h.t_seq * h.qkv_row;
        const float * table  = tnn__data(dst->src[1]) + sequence * h.t_seq * h.d;
        const float * values = qkv + (h.n_heads + h.n_kv + kv) * h.d;
        float       * out    = (float *) dst->data + sequence * h.t_seq * out_row + head * h.d;
        if (piece == begin || head % h.group == 0) {
            tnn__rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, h.t_seq, h.d, false, 1.0f, b.keys, h.d);
            copy_rows(values, h.qkv_row, h.t_seq, h.d, b.values, h.d);
            key_panels = tnn__attention_panels(k->params, b.keys, b.key_panels);
        }
        for (int64_t q0 = 0; q0 < h.t_seq; q0 += TNN_QUERIES) {
            const int64_t first_key = tnn__first_key(&h, q0);
            const struct tnn_attention_block block = {
                .queries = qkv + head * h.d + q0 * h.qkv_row, .table = table + q0 * h.d,
                .rows = tnn__min(TNN_QUERIES, h.t_seq - q0), .first = q0, .keys = b.keys + first_key * h.d, .key_row = h.d,
                .values = b.values + first_key * h.d, .value_row = h.d, .key_panels = key_panels,
            };
            tnn__block_attention(&h, &b, &block, out + q0 * out_row, out_row);
        }
    }
}

/* ------------------------------------------------------------------ backward */

/* For each query, the sum of P dP over the keys: in eight lanes, and separately over the last keys, which do not fill a
 * vector. */
struct sums {
    float lanes[TNN_QUERIES][V8_LANES], rest[TNN_QUERIES];
};

/* Normalises P of a block of n keys, and adds P dP to the sums. */
static void normalise(const struct tnn_attention_shape * h, int64_t rows, int64_t n, float * p, const float * dp, const float * inverse,
                      struct sums * sums) {
    const struct tnn_row_loops * loops = tnn__row_loops();
    const int64_t in_vectors = n / V8_LANES * V8_LANES;
    for (int64_t row = 0; row < rows; row++, p += h->stride, dp += h->stride) {
        loops->normalise(p, dp, in_vectors, inverse[row], sums->lanes[row]);
        for (int64_t j = in_vectors; j < n; j++) {
            p[j] *= inverse[row];
            sums->rest[row] += p[j] * dp[j];
        }
    }
}

/* Replaces dP of a block of n keys by dS = P (dP - sum of P dP over all keys). */
static void subtract_means(const struct tnn_attention_shape * h, int64_t rows, int64_t n, const float * p, float * dp,
                           const struct sums * sums) {
    const struct tnn_row_loops * loops = tnn__row_loops();
    for (int64_t row = 0; row < rows; row++, p += h->stride, dp += h->stride) {
        loops->subtract_mean(p, dp, n, v8_sum(v8_load(sums->lanes[row])) + sums->rest[row]);
    }
}

/* Loads n numbers into the lanes from `lane` on; the other lanes are 0. */
static v8f load_lanes(const float * x, int64_t lane, int64_t n) {
    float lanes[V8_LANES] = { 0.0f };
    memcpy(lanes + lane, x, (size_t) n * sizeof(float));
    return v8_load(lanes);
}

/* Normalises P of a row of a block, and returns sum_j P dP. If the sample were alone in a sequence, normalise
 * would compute this sum, and the order of the sum must be the same here. In a sequence of its own, the row would be
 * in the block of queries that begins at query q0 of the sample, and the lanes would be counted from the first key
 * of this block. The lanes are counted in the same way here. begin: the key to which p[0] and dp[0] belong. */
static float mean_in_sample(const struct tnn_attention_shape * h, float * p, const float * dp, int64_t begin, int64_t position,
                            float inverse) {
    const int64_t start = h->starts[position], q0 = (position - start) / TNN_QUERIES * TNN_QUERIES;
    const int64_t first = tnn__first_in_window(h, q0), n_keys = tnn__min(q0 + TNN_QUERIES, h->t_seq) - first;
    const int64_t origin = start + first - begin, end = position + 1 - begin;
    const int64_t end_of_lanes = tnn__min(origin + n_keys / V8_LANES * V8_LANES, end);
    int64_t       i   = tnn__first_key(h, position) - begin;
    v8f           dot = v8_set1(0.0f);
    while (i < end_of_lanes) {
        const int64_t lane = (i - origin) % V8_LANES, n = tnn__min(V8_LANES - lane, end_of_lanes - i);
        for (int64_t j = i; j < i + n; j++) {
            p[j] *= inverse;
        }
        dot = v8_fma(load_lanes(p + i, lane, n), load_lanes(dp + i, lane, n), dot);
        i += n;
    }
    float rest = 0.0f;
    for (; i < end; i++) {
        p[i] *= inverse;
        rest += p[i] * dp[i];
    }
    return v8_sum(dot) + rest;
}

/* Normalises P and replaces dP by dS, in a sequence with several samples. */
static void softmax_back_in_samples(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                                    const struct tnn_attention_block * k, const float * inverse) {
    const int64_t begin = tnn__first_key(h, k->first), n_keys = tnn__block_keys(h, k);
    for (int64_t row = 0; row < k->rows; row++) {
        const int64_t position = k->first + row, from = tnn__first_key(h, position) - begin, end = position + 1 - begin;
        float * p = b->p + row * h->stride, * dp = b->dp + row * h->stride;
        const float mean = mean_in_sample(h, p, dp, begin, position, inverse[row]);
        memset(dp, 0, (size_t) from * sizeof(float));
        for (int64_t i = from; i < end; i++) {
            dp[i] = p[i] * (dp[i] - mean);
        }
        memset(dp + end, 0, (size_t) (n_keys - end) * sizeof(float));
    }
}

/* Computes P and dP of a block of queries, and the sums of P dP. If several samples share a sequence, computes dS in place of
 * dP. dout: the gradient of the block's result, (rows, d). */
static void scores_back(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b, const struct tnn_attention_block * k,
                        struct tnn_panels value_panels, const float * dout, struct sums * sums) {
    const int64_t n_keys = tnn__block_keys(h, k);
    float inverse[TNN_QUERIES];
    *sums = (struct sums) { .rest = { 0.0f } };
    tnn__block_exp(h, b, k, inverse);
    for (int64_t key = 0; key < n_keys; key += h->keys) {
        const int64_t n = tnn__min(h->keys, n_keys - key);
        float * const p = tnn__scores_at(h, b->p, key), * const dp = tnn__scores_at(h, b->dp, key);
        const struct tnn_gemm back_p = { /* dP = dO V^T */
            .m = k->rows, .n = n, .k = h->d,
            .a = dout, .a_row = h->d, .a_col = 1,
            .b = k->values + key * h->d, .b_row = 1, .b_col = h->d, .panels = tnn__panels_from(value_panels, key, h->d),
            .c = dp, .c_row = h->stride,
        };
        tnn__gemm(&back_p, b->gemm);
        if (h->starts == NULL) {
            normalise(h, k->rows, n, p, dp, inverse, sums);
        }
    }
    if (h->starts != NULL) {
        softmax_back_in_samples(h, b, k, inverse);
    }
}

/* Adds the gradients of a block of queries to b->dvalues and b->dkeys, and writes the gradients of the rotated queries
 * to b->dq. */
static void products_back(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b, const struct tnn_attention_block * k,
                          const float * dout, const struct sums * sums) {
    const int64_t n_keys = tnn__block_keys(h, k), begin = tnn__first_key(h, k->first);
    for (int64_t key = 0; key < n_keys; key += h->keys) {
        const int64_t n = tnn__min(h->keys, n_keys - key);
        const float * const p  = tnn__scores_at(h, b->p, key);
        float       * const ds = tnn__scores_at(h, b->dp, key);
        if (h->starts == NULL) {
            subtract_means(h, k->rows, n, p, ds, sums);
        }
        const struct tnn_gemm back_v = { /* dV += P^T dO */
            .m = n, .n = h->d, .k = k->rows,
            .a = p, .a_row = 1, .a_col = h->stride,
            .b = dout, .b_row = h->d, .b_col = 1,
            .c = b->dvalues + (begin + key) * h->d, .c_row = h->d, .accumulate = true,
        };
        tnn__gemm(&back_v, b->gemm);
        const struct tnn_gemm back_q = { /* dQ += dS K */
            .m = k->rows, .n = h->d, .k = n,
            .a = ds, .a_row = h->stride, .a_col = 1,
            .b = k->keys + key * h->d, .b_row = h->d, .b_col = 1,
            .c = b->dq, .c_row = h->d, .accumulate = key > 0,
        };
        tnn__gemm(&back_q, b->gemm);
        const struct tnn_gemm back_k = { /* dK += dS^T Q; Q is multiplied by the scale already */
            .m = n, .n = h->d, .k = k->rows,
            .a = ds, .a_row = 1, .a_col = h->stride,
            .b = b->q, .b_row = h->d, .b_col = 1,
            .c = b->dkeys + (begin + key) * h->d, .c_row = h->d, .accumulate = true,
        };
        tnn__gemm(&back_k, b->gemm);
    }
}

/* Computes the gradient of qkv. Operands: dO, qkv, RoPE table, [starts]. */
static void run_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    struct tnn_attention_shape         h = tnn__attention_shape(k->params);
    const struct tnn_attention_buffers b = tnn__attention_buffers(scratch, k->params);
    const int64_t out_row  = h.n_heads * h.d;
    int64_t begin, end;
    tnn__part(dst->ne[1] / h.t_seq * h.n_kv, 1, ith, nth, &begin, &end);
    for (int64_t piece = begin; piece < end; piece++) {
        const int64_t sequence = piece / h.n_kv, kv = piece % h.n_kv;
        h.starts = starts_of(dst, 3, sequence, h.t_seq);
        const float * qkv     = tnn__data(dst->src[1]) + sequence * h.t_seq * h.qkv_row;
        const float * table   = tnn__data(dst->src[2]) + sequence * h.t_seq * h.d;
        float       * dqkv    = (float *) dst->data + sequence * h.t_seq * h.qkv_row;
        tnn__rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, h.t_seq, h.d, false, 1.0f, b.keys, h.d);
        copy_rows(qkv + (h.n_heads + h.n_kv + kv) * h.d, h.qkv_row, h.t_seq, h.d, b.values, h.d);
        const struct tnn_panels key_panels   = tnn__attention_panels(k->params, b.keys, b.key_panels);
        const struct tnn_panels value_panels = tnn__attention_panels(k->params, b.values, b.value_panels);
        memset(b.dkeys, 0, (size_t) (h.t_seq * h.d) * sizeof(float));
        memset(b.dvalues, 0, (size_t) (h.t_seq * h.d) * sizeof(float));
        for (int64_t head = kv * h.group; head < (kv + 1) * h.group; head++) {
            const float * dout = tnn__data(dst->src[0]) + sequence * h.t_seq * out_row + head * h.d;
            for (int64_t q0 = 0; q0 < h.t_seq; q0 += TNN_QUERIES) {
                const int64_t first_key = tnn__first_key(&h, q0);
                const struct tnn_attention_block block = {
                    .queries = qkv + head * h.d + q0 * h.qkv_row, .table = table + q0 * h.d,
                    .rows = tnn__min(TNN_QUERIES, h.t_seq - q0), .first = q0, .keys = b.keys + first_key * h.d, .key_row = h.d,
                    .values = b.values + first_key * h.d, .value_row = h.d, .key_panels = key_panels,
                };
                copy_rows(dout + q0 * out_row, out_row, block.rows, h.d, b.dout, h.d);
                struct sums sums;
                scores_back(&h, &b, &block, value_panels, b.dout, &sums);
                products_back(&h, &b, &block, b.dout, &sums);
                tnn__rotate(b.dq, h.d, table + q0 * h.d, block.rows, h.d, true, h.scale, dqkv + q0 * h.qkv_row + head * h.d, h.qkv_row);
            }
        }
        tnn__rotate(b.dkeys, h.d, table, h.t_seq, h.d, true, 1.0f, dqkv + (h.n_heads + kv) * h.d, h.qkv_row);
        copy_rows(b.dvalues, h.d, h.t_seq, h.d, dqkv + (h.n_heads + h.n_kv + kv) * h.d, h.qkv_row);
    }
}

/* ------------------------------------------------------------------ the kernels */

static const struct tnn_kernel_type ATTENTION_BACK = {
    .name = "ATTENTION_BACK", .run = run_back, .scratch = tnn__attention_scratch, .params_size = sizeof(struct tnn_attention),
};

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * args[] = { grad, node->src[0], node->src[1], node->src[2] };
    tnn__add_gradient(g, node->src[0], &ATTENTION_BACK, tnn__kernel_of(node)->params, args, node->src[2] == NULL ? 3 : 4);
}

/* Checks that the start of each token is the position of the token itself, or the start of the token before it. */
static int check_starts(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node) {
    const struct tnn_attention * p = k->params;
    const struct ggml_tensor   * t = node->src[2];
    const int32_t * starts = t != NULL ? t->data : NULL;
    for (int64_t i = 0; starts != NULL && i < t->ne[0]; i++) {
        const int64_t position = i % p->t_seq;
        if (starts[i] != position && (position == 0 || starts[i] != starts[i - 1])) {
            return tnn__fail(s, TNN_E_VALUE, "starts %s[%lld] = %d must be %lld (the position of this token in its sequence), or "
                                             "equal to the start of the preceding token in this sequence",
                             ggml_get_name(t), (long long) i, (int) starts[i], (long long) position);
        }
    }
    return TNN_OK;
}

static const struct tnn_kernel_type ATTENTION = {
    .name = "ATTENTION", .run = run, .backward = backward, .differentiable = TNN_OPERAND(0), .check = check_starts,
    .scratch = tnn__attention_scratch, .params_size = sizeof(struct tnn_attention),
};

tnn_tensor tnn_fused_attention(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, int32_t n_heads, int32_t n_kv, int64_t t_seq,
                               int64_t window, float scale, tnn_tensor starts) {
    struct ggml_tensor * args[3];
    if (!tnn__enter(s, __func__) || !tnn__attention_operands(s, qkv, rope_table, n_heads, n_kv, args)) {
        return 0;
    }
    if (t_seq < 1 || args[0]->ne[1] % t_seq != 0) {
        tnn__fail(s, TNN_E_VALUE, "t_seq = %lld must divide the number of rows of qkv, of shape %s",
                  (long long) t_seq, tnn__shape(args[0]));
        return 0;
    }
    args[2] = starts != 0 ? tnn__index_operand(s, "starts", starts) : NULL;
    if (starts != 0 && args[2] == NULL) {
        return 0;
    }
    if (args[2] != NULL && args[2]->ne[0] != args[0]->ne[1]) {
        tnn__fail(s, TNN_E_VALUE, "starts has shape %s, but it must have one value for each row of qkv, of shape %s",
                  tnn__shape(args[2]), tnn__shape(args[0]));
        return 0;
    }
    const int64_t d_head = args[1]->ne[0];
    struct tnn_attention p = { .n_heads = n_heads, .n_kv = n_kv, .t_seq = t_seq, .d_head = (int32_t) d_head };
    if (!tnn__attention_params(s, &p, window, scale) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    p.whole = p.window < t_seq || args[2] != NULL;
    return tnn__handle(s, tnn__kernel_node(s, &ATTENTION, &p, (int64_t) n_heads * d_head, args[0]->ne[1], args, args[2] != NULL ? 3 : 2));
}
