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
#include "kernels/vec8.h"
#include "ops/operands.h"

/* ------------------------------------------------------------------ forward */

/* Returns the starts of the samples in a sequence, or NULL if node has no operand src for them. */
static const int32_t * starts_of(const struct ggml_tensor * node, int src, int64_t sequence, int64_t t_seq) {
    return node->src[src] == NULL ? NULL : (const int32_t *) node->src[src]->data + sequence * t_seq;
}

/* Computes attention. Operands: qkv, RoPE table, [starts]. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    struct tnn_attention_shape         h = tnn__attention_shape(k->params);
    const struct tnn_attention_buffers b = tnn__attention_buffers(scratch, k->params);
    const int64_t out_row  = h.n_heads * h.d;
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
        }
        for (int64_t q0 = 0; q0 < h.t_seq; q0 += TNN_QUERIES) {
            const int64_t first_key = tnn__first_key(&h, q0);
            const struct tnn_attention_block block = {
                .queries = qkv + head * h.d + q0 * h.qkv_row, .table = table + q0 * h.d,
                .rows = tnn__min(TNN_QUERIES, h.t_seq - q0), .first = q0, .keys = b.keys + first_key * h.d, .key_row = h.d,
                .values = values + first_key * h.qkv_row, .value_row = h.qkv_row,
            };
            tnn__block_attention(&h, &b, &block, out + q0 * out_row, out_row);
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

/* Loads n numbers into the lanes from `lane` on; the other lanes are 0. */
static v8f load_lanes(const float * x, int64_t lane, int64_t n) {
    float lanes[V8_LANES] = { 0.0f };
    memcpy(lanes + lane, x, (size_t) n * sizeof(float));
    return v8_load(lanes);
}

/* Normalises P of a row of a block, and returns sum_j P dP. If the sample were alone in a sequence, softmax_back
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

/* Computes what softmax_back computes, in a sequence with several samples. */
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
            for (int64_t q0 = 0; q0 < h.t_seq; q0 += TNN_QUERIES) {
                const int64_t first_key = tnn__first_key(&h, q0);
                const struct tnn_attention_block block = {
                    .queries = qkv + head * h.d + q0 * h.qkv_row, .table = table + q0 * h.d,
                    .rows = tnn__min(TNN_QUERIES, h.t_seq - q0), .first = q0, .keys = b.keys + first_key * h.d, .key_row = h.d,
                };
                const int64_t rows = block.rows, n_keys = tnn__block_keys(&h, &block);
                float inverse[TNN_QUERIES];
                tnn__block_exp(&h, &b, &block, inverse);
                const struct tnn_gemm back_p = { /* dP = dO V^T */
                    .m = rows, .n = n_keys, .k = h.d,
                    .a = dout + q0 * out_row, .a_row = out_row, .a_col = 1,
                    .b = values + first_key * h.qkv_row, .b_row = 1, .b_col = h.qkv_row,
                    .c = b.dp, .c_row = h.stride,
                };
                tnn__gemm(&back_p, b.gemm);
                if (h.starts == NULL) {
                    softmax_back(b.p, b.dp, h.stride, rows, n_keys, inverse);
                } else {
                    softmax_back_in_samples(&h, &b, &block, inverse);
                }
                const struct tnn_gemm back_v = { /* dV += P^T dO */
                    .m = n_keys, .n = h.d, .k = rows,
                    .a = b.p, .a_row = 1, .a_col = h.stride,
                    .b = dout + q0 * out_row, .b_row = out_row, .b_col = 1,
                    .c = dvalues + first_key * h.qkv_row, .c_row = h.qkv_row, .accumulate = true,
                };
                tnn__gemm(&back_v, b.gemm);
                const struct tnn_gemm back_q = { /* dQ = dS K */
                    .m = rows, .n = h.d, .k = n_keys,
                    .a = b.dp, .a_row = h.stride, .a_col = 1,
                    .b = block.keys, .b_row = h.d, .b_col = 1,
                    .c = b.dq, .c_row = h.d,
                };
                tnn__gemm(&back_q, b.gemm);
                tnn__rotate(b.dq, h.d, table + q0 * h.d, rows, h.d, true, h.scale, dqkv + q0 * h.qkv_row + head * h.d, h.qkv_row);
                const struct tnn_gemm back_k = { /* dK += dS^T Q; Q is multiplied by the scale already */
                    .m = n_keys, .n = h.d, .k = rows,
                    .a = b.dp, .a_row = 1, .a_col = h.stride,
                    .b = b.q, .b_row = h.d, .b_col = 1,
                    .c = b.dkeys + first_key * h.d, .c_row = h.d, .accumulate = true,
                };
                tnn__gemm(&back_k, b.gemm);
            }
        }
        tnn__rotate(b.dkeys, h.d, table, h.t_seq, h.d, true, 1.0f, dqkv + (h.n_heads + kv) * h.d, h.qkv_row);
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
            return tnn__fail(s, TNN_E_VALUE, "starts %s[%lld] = %d must be %lld, the position of this token in its sequence, or the "
                                             "start of the preceding token in this sequence",
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
    return tnn__handle(s, tnn__kernel_node(s, &ATTENTION, &p, (int64_t) n_heads * d_head, args[0]->ne[1], args, args[2] != NULL ? 3 : 2));
}
