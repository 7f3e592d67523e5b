/* kernels/attention.c - causal attention over whole sequences with grouped queries and RoPE, and its gradient.
 *
 * One row of the operand holds a token's query heads, then its key heads, then its value heads. Scores exist only for a block
 * of queries at a time and only up to the last key they see; the backward makes them again. A (sequence, head) is one piece of
 * work, in the backward a (sequence, KV head): all that is added up into one gradient is added by one thread, in one order.
 */
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/vec8.h"

#define QUERIES 96 /* in a block */

/* Row stride of a block's scores: a multiple of the vector, and no power of two, which would make rows collide in the cache. */
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

size_t tnn__attention_scratch(int64_t t_seq, int64_t d_head) {
    size_t size;
    lay_out((void *) 64, t_seq, d_head, &size);
    return size;
}

/* ------------------------------------------------------------------ RoPE */

/* cos and sin of the angle of each pair at each position, in f64 and rounded: [d_head/2 cosines, d_head/2 sines] a row.
 * angle = freq_scale * position * base^(-2 pair / d_head) / factor. Operands: positions, [frequency factors]. */
void tnn__rope_table(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int32_t * position = dst->src[0]->data;
    const float   * factor   = dst->src[1] != NULL ? tnn__data(dst->src[1]) : NULL;
    const int64_t   pairs    = k->d_head / 2;
    int64_t begin, end;
    tnn__part(pairs, 1, ith, nth, &begin, &end);
    for (int64_t pair = begin; pair < end; pair++) {
        const double frequency = (double) k->freq_scale * pow((double) k->freq_base, -2.0 * (double) pair / (double) k->d_head)
                               / (factor != NULL ? (double) factor[pair] : 1.0);
        for (int64_t row = 0; row < dst->ne[1]; row++) {
            float * out = (float *) dst->data + row * dst->ne[0];
            const double angle = (double) position[row] * frequency;
            out[pair]         = (float) cos(angle) * k->attn_factor;
            out[pairs + pair] = (float) sin(angle) * k->attn_factor;
        }
    }
}

/* Turns rows of x (NEOX: element i with i + d/2) by their row of the table, back where inverse, and scales them. */
static void rotate(const float * x, int64_t x_row, const float * table, int64_t rows, int64_t d, bool inverse, float scale, float * out,
                   int64_t out_row) {
    const int64_t half = d / 2;
    const v8f     by   = v8_set1(scale);
    for (int64_t row = 0; row < rows; row++, x += x_row, out += out_row, table += d) {
        int64_t i = 0;
        for (; i + V8_LANES <= half; i += V8_LANES) {
            const v8f c = v8_load(table + i), s0 = v8_load(table + half + i), s = inverse ? -s0 : s0;
            const v8f a = v8_load(x + i), b = v8_load(x + half + i);
            v8_store(out + i, (a * c - b * s) * by);
            v8_store(out + half + i, (a * s + b * c) * by);
        }
        for (; i < half; i++) {
            const float c = table[i], s = inverse ? -table[half + i] : table[half + i];
            const float a = x[i], b = x[half + i];
            out[i]        = (a * c - b * s) * scale;
            out[half + i] = (a * s + b * c) * scale;
        }
    }
}

/* ------------------------------------------------------------------ softmax of a block */

/* Row i of p (rows, stride) holds scores of the keys 0..first+i, which become exp(score - max); the keys after them, up to
 * n_keys, become 0. Returns the sum's reciprocal in inverse[i]. */
static void causal_exp(float * p, int64_t stride, int64_t rows, int64_t first, int64_t n_keys, float * inverse) {
    for (int64_t row = 0; row < rows; row++) {
        float       * x = p + row * stride;
        const int64_t n = first + row + 1;
        v8f     max = v8_set1(-INFINITY), sum = v8_set1(0.0f);
        int64_t i   = 0;
        for (; i + V8_LANES <= n; i += V8_LANES) {
            max = v8_max(v8_load(x + i), max);
        }
        if (i < n) {
            max = v8_max(v8_load_part(x + i, n - i, -INFINITY), max);
        }
        const v8f shift = v8_set1(v8_max_lane(max));
        for (i = 0; i + V8_LANES <= n; i += V8_LANES) {
            const v8f e = v8_exp(v8_load(x + i) - shift);
            v8_store(x + i, e);
            sum += e;
        }
        if (i < n) {
            const v8f e = v8_exp(v8_load_part(x + i, n - i, -INFINITY) - shift);
            v8_store_part(x + i, n - i, e);
            sum += e;
        }
        memset(x + n, 0, (size_t) (n_keys - n) * sizeof(float));
        inverse[row] = 1.0f / v8_sum(sum);
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

static struct shape shape_of(const struct tnn_kernel * k) {
    return (struct shape) {
        .t_seq = k->t_seq, .d = k->d_head, .n_heads = k->n_heads, .n_kv = k->n_kv, .group = k->n_heads / k->n_kv,
        .qkv_row = (int64_t) (k->n_heads + 2 * k->n_kv) * k->d_head, .stride = score_stride(k->t_seq),
        .scale = 1.0f / sqrtf((float) k->d_head),
    };
}

/* Scores of rows queries, rotated into b->q, against n_keys keys (n_keys, d_head), rotated, into b->p. */
static void block_scores(const struct shape * h, const struct buffers * b, const float * queries, const float * table, int64_t rows,
                         const float * keys, int64_t key_row, int64_t n_keys) {
    rotate(queries, h->qkv_row, table, rows, h->d, false, h->scale, b->q, h->d);
    const struct tnn_gemm g = { /* S = Q K^T */
        .m = rows, .n = n_keys, .k = h->d,
        .a = b->q, .a_row = h->d, .a_col = 1,
        .b = keys, .b_row = 1, .b_col = key_row,
        .c = b->p, .c_row = h->stride,
    };
    tnn__gemm(&g, b->gemm);
}

/* What a block of queries sees: scores, softmax, weighted sum of the values, into rows of out. The first query sees first keys
 * besides its own. */
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

/* Operands: qkv, RoPE table. */
void tnn__attention(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct shape   h = shape_of(k);
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
            rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, h.t_seq, h.d, false, 1.0f, b.keys, h.d);
        }
        for (int64_t q0 = 0; q0 < h.t_seq; q0 += QUERIES) {
            const int64_t rows = tnn__min(QUERIES, h.t_seq - q0);
            block_attention(&h, &b, qkv + head * h.d + q0 * h.qkv_row, table + q0 * h.d, rows, q0, b.keys, h.d, values, h.qkv_row,
                            out + q0 * out_row, out_row);
        }
    }
}

/* The same for the last tokens of one sequence, whose earlier keys (rotated) and values the cache holds: the tokens' own are
 * written there first. A row of the cache: the KV heads' keys, then their values. Operands: qkv, RoPE table, cache, tokens before. */
void tnn__attention_cached(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct shape   h = shape_of(k);
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
        rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, n, h.d, false, 1.0f, keys + past * cache_row, cache_row);
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

/* dP becomes dS = P (dP - sum_j P dP), row by row; P is normalised first. */
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

/* Gradient of qkv. Operands: dO, qkv, RoPE table. */
void tnn__attention_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct shape   h = shape_of(k);
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
        rotate(qkv + (h.n_heads + kv) * h.d, h.qkv_row, table, h.t_seq, h.d, false, 1.0f, b.keys, h.d);
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
                rotate(b.dq, h.d, table + q0 * h.d, rows, h.d, true, h.scale, dqkv + q0 * h.qkv_row + head * h.d, h.qkv_row);
                const struct tnn_gemm back_k = { /* dK += dS^T Q; Q carries the scale */
                    .m = n_keys, .n = h.d, .k = rows,
                    .a = b.dp, .a_row = 1, .a_col = h.stride,
                    .b = b.q, .b_row = h.d, .b_col = 1,
                    .c = b.dkeys, .c_row = h.d, .accumulate = true,
                };
                tnn__gemm(&back_k, b.gemm);
            }
        }
        rotate(b.dkeys, h.d, table, h.t_seq, h.d, true, 1.0f, dqkv + (h.n_heads + kv) * h.d, h.qkv_row);
    }
}
