/* kernels/attention_cached.c - attention of the last tokens of sequences. The keys and values of the earlier tokens
 * are in a cache. */
#include "kernels/attention_block.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/rope.h"
#include "ops/operands.h"

#include <string.h>

/* The part of the cache that one key-value head of one sequence uses. A row of the cache has the keys of the KV heads, then
 * their values. */
struct head_cache {
    char * keys, * values; /* the keys and values of the first token of the sequence */
    size_t row;            /* bytes of a row of the cache */
    bool   half;           /* the numbers are f16; if false, they are f32 */
};

/* Rotates the keys of n tokens, and writes the rotated keys and the values of the tokens to the cache.
 * qkv, table: the rows of the first token. */
static void write_tokens(const struct tnn_attention_shape * h, const struct head_cache * c, const float * qkv, const float * table,
                         int64_t kv, int64_t past, int64_t n, float * rotated) {
    for (int64_t i = 0; i < n; i++) {
        const float * key = qkv + i * h->qkv_row + (h->n_heads + kv) * h->d, * value = key + h->n_kv * h->d;
        char * const to_key = c->keys + (size_t) (past + i) * c->row, * const to_value = c->values + (size_t) (past + i) * c->row;
        tnn__rotate(key, h->qkv_row, table + i * h->d, 1, h->d, false, 1.0f, rotated, h->d);
        if (c->half) {
            ggml_fp32_to_fp16_row(rotated, (ggml_fp16_t *) to_key, h->d);
            ggml_fp32_to_fp16_row(value, (ggml_fp16_t *) to_value, h->d);
        } else {
            memcpy(to_key, rotated, (size_t) h->d * sizeof(float));
            memcpy(to_value, value, (size_t) h->d * sizeof(float));
        }
    }
}

/* Returns the keys or values of an f16 cache, from the address `first` on, as the operand (tokens, d) of a product. */
static struct tnn_stored half_rows(const struct tnn_attention_shape * h, const struct head_cache * c, const char * first, bool transposed) {
    return (struct tnn_stored) {
        .data = first, .type = GGML_TYPE_F16, .row_nbytes = c->row, .row_size = h->d, .block = 1, .block_nbytes = sizeof(ggml_fp16_t),
        .to_float = tnn__f16_to_f32, .transposed = transposed,
    };
}

/* Computes the attention of one token. All query heads that read the same key-value head are computed together, so that their
 * keys and values are read once. queries, out: (group, d). */
static void attend_one(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b, const struct head_cache * c,
                       const float * queries, const float * table, int64_t position, float * out) {
    const size_t skipped = (size_t) tnn__first_key(h, position) * c->row;
    const char * const keys = c->keys + skipped, * const values = c->values + skipped;
    for (int64_t head = 0; head < h->group; head += TNN_QUERIES) {
        struct tnn_attention_block block = {
            .queries = queries + head * h->d, .table = table, .rows = tnn__min(TNN_QUERIES, h->group - head), .first = position,
            .same_token = true, .key_row = (int64_t) (c->row / sizeof(float)), .value_row = (int64_t) (c->row / sizeof(float)),
        };
        if (c->half) {
            block.stored_keys   = half_rows(h, c, keys, true);
            block.stored_values = half_rows(h, c, values, false);
        } else {
            block.keys   = (const float *) keys;
            block.values = (const float *) values;
        }
        tnn__block_attention(h, b, &block, out + head * h->d, h->d);
    }
}

/* Computes the attention of n tokens of a sequence for the query heads that read one key-value head. queries, out: the
 * elements of the first token and of the first of these heads. */
static void attend_all(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b, const struct head_cache * c,
                       const float * queries, const float * table, int64_t past, int64_t n, float * out) {
    const int64_t out_row = h->n_heads * h->d, begin = tnn__first_key(h, past);
    int64_t row = (int64_t) (c->row / sizeof(float));
    const float * keys = (const float *) (c->keys + (size_t) begin * c->row), * values = (const float *) (c->values + (size_t) begin * c->row);
    if (c->half) { /* several blocks of queries and several heads read the keys and values, so they are converted first */
        for (int64_t i = begin; i < past + n; i++) {
            tnn__f16_to_f32(c->keys + (size_t) i * c->row, b->keys + (i - begin) * h->d, h->d);
            tnn__f16_to_f32(c->values + (size_t) i * c->row, b->dkeys + (i - begin) * h->d, h->d);
        }
        keys   = b->keys;
        values = b->dkeys;
        row    = h->d;
    }
    for (int64_t head = 0; head < h->group; head++) {
        for (int64_t q0 = 0; q0 < n; q0 += TNN_QUERIES) {
            const int64_t skipped = tnn__first_key(h, past + q0) - begin;
            const struct tnn_attention_block block = {
                .queries = queries + head * h->d + q0 * h->qkv_row, .table = table + q0 * h->d,
                .rows = tnn__min(TNN_QUERIES, n - q0), .first = past + q0, .keys = keys + skipped * row, .key_row = row,
                .values = values + skipped * row, .value_row = row,
            };
            tnn__block_attention(h, b, &block, out + q0 * out_row + head * h->d, out_row);
        }
    }
}

/* Computes the attention of the last tokens of several sequences. First, the keys and values of these tokens are written to the
 * cache. A thread computes whole key-value heads of a sequence. Operands: qkv, RoPE table, cache, number of earlier tokens,
 * [first rows]. */
static void run_cached(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct tnn_attention_shape   h = tnn__attention_shape(k->params);
    const struct tnn_attention_buffers b = tnn__attention_buffers(scratch, k->params);
    const struct ggml_tensor * cache = dst->src[2], * first_rows = dst->src[4];
    const int64_t sequences = dst->src[3]->ne[0], n = dst->ne[1] / sequences;
    const size_t  head_size = (size_t) h.d * ggml_type_size(cache->type);
    int64_t begin, end;
    tnn__part(sequences * h.n_kv, 1, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        const int64_t sequence = i / h.n_kv, kv = i % h.n_kv;
        const int64_t past     = ((const int32_t *) dst->src[3]->data)[sequence];
        const int64_t first    = first_rows != NULL ? ((const int32_t *) first_rows->data)[sequence] : 0;
        const float * qkv      = tnn__data(dst->src[0]) + sequence * n * h.qkv_row;
        const float * table    = tnn__data(dst->src[1]) + sequence * n * h.d;
        const float * queries  = qkv + kv * h.group * h.d;
        float       * out      = (float *) dst->data + (sequence * n * h.n_heads + kv * h.group) * h.d;
        char        * row      = (char *) cache->data + (size_t) first * cache->nb[1];
        const struct head_cache c = {
            .keys = row + (size_t) kv * head_size, .values = row + (size_t) (h.n_kv + kv) * head_size, .row = cache->nb[1],
            .half = cache->type == GGML_TYPE_F16,
        };
        write_tokens(&h, &c, qkv, table, kv, past, n, b.q);
        if (n == 1) {
            attend_one(&h, &b, &c, queries, table, past, out);
        } else {
            attend_all(&h, &b, &c, queries, table, past, n, out);
        }
    }
}

/* Checks that the new tokens of each sequence fit into its part of the cache, which ends where the next sequence begins. */
static int check_cache(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node) {
    const struct ggml_tensor   * first_rows = node->src[4];
    const struct tnn_attention * p = k->params;
    const int64_t sequences = node->src[3]->ne[0], n = node->ne[1] / sequences, rows = node->src[2]->ne[1];
    int64_t free_row = 0; /* the first row that no earlier sequence uses */
    for (int64_t i = 0; i < sequences; i++) {
        const int64_t past  = ((const int32_t *) node->src[3]->data)[i];
        const int64_t first = first_rows != NULL ? ((const int32_t *) first_rows->data)[i] : 0;
        if (first < free_row || first >= rows) {
            return tnn__fail(s, TNN_E_VALUE, "first_rows[%lld] = %lld must be between %lld (the first row after the preceding "
                                             "sequence) and %lld (the last row of the cache)",
                             (long long) i, (long long) first, (long long) free_row, (long long) (rows - 1));
        }
        const int64_t room = tnn__min(p->t_seq, rows - first);
        if (past < 0 || past > room - n) {
            return tnn__fail(s, TNN_E_VALUE, "n_past[%lld] = %lld must be between 0 and %lld, because the cache can hold %lld tokens "
                                             "of the sequence and this call adds %lld tokens",
                             (long long) i, (long long) past, (long long) (room - n), (long long) room, (long long) n);
        }
        free_row = first + past + n;
    }
    return TNN_OK;
}

static const struct tnn_kernel_type ATTENTION_CACHED = {
    .name = "ATTENTION_CACHED", .run = run_cached, .writes = TNN_OPERAND(2), .check = check_cache, .scratch = tnn__attention_scratch,
    .params_size = sizeof(struct tnn_attention),
};

/* Checks that t can be a cache with rows of this size, for at least n tokens. */
static bool is_cache(tnn_session * s, const struct ggml_tensor * t, int64_t row, int64_t n) {
    const bool has_type = t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16;
    if (!has_type) {
        tnn__fail(s, TNN_E_TYPE, "kv_cache has dtype %s, but it must be f32 or f16", ggml_type_name(t->type));
    } else if (!tnn__is_persistent(t) || !ggml_is_contiguous(t) || !ggml_is_matrix(t) || t->ne[0] != row || t->ne[1] < n) {
        tnn__fail(s, TNN_E_VALUE, "kv_cache has shape %s, but it must be a persistent tensor [2 n_kv d_head, rows] = "
                                  "[%lld, at least %lld]",
                  tnn__shape(t), (long long) row, (long long) n);
    } else {
        return true;
    }
    return false;
}

tnn_tensor tnn_fused_attention_cached(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, tnn_tensor kv_cache, tnn_tensor n_past,
                                      int32_t n_heads, int32_t n_kv, int64_t window, float scale, int64_t n_ctx, tnn_tensor first_rows) {
    struct ggml_tensor * args[5];
    if (!tnn__enter(s, __func__) || !tnn__attention_operands(s, qkv, rope_table, n_heads, n_kv, args)) {
        return 0;
    }
    const int64_t d_head = args[1]->ne[0], n = args[0]->ne[1];
    args[2] = tnn__tensor(s, "kv_cache", kv_cache);
    args[3] = args[2] != NULL ? tnn__index_operand(s, "n_past", n_past) : NULL;
    if (args[3] == NULL) {
        return 0;
    }
    const int64_t sequences = args[3]->ne[0];
    if (sequences > n || n % sequences != 0) {
        tnn__fail(s, TNN_E_VALUE, "n_past has shape %s, so the number of rows of qkv must be a multiple of %lld, got %lld",
                  tnn__shape(args[3]), (long long) sequences, (long long) n);
        return 0;
    }
    if (!is_cache(s, args[2], 2 * (int64_t) n_kv * d_head, n / sequences)) {
        return 0;
    }
    if (!tnn__want_apart(s, "qkv", args[0], &args[2], 1) || !tnn__want_apart(s, "rope_table", args[1], &args[2], 1)) {
        return 0;
    }
    if (first_rows != 0 && (args[4] = tnn__index_operand(s, "first_rows", first_rows)) == NULL) {
        return 0;
    }
    if (first_rows != 0 ? args[4]->ne[0] != sequences : sequences != 1) {
        tnn__fail(s, TNN_E_VALUE, "first_rows must have shape %s, one row of the cache for each sequence, got %s", tnn__shape(args[3]),
                  first_rows != 0 ? tnn__shape(args[4]) : "none");
        return 0;
    }
    const int64_t rows = args[2]->ne[1];
    if (n_ctx != 0 && (n_ctx < n / sequences || n_ctx > rows)) {
        tnn__fail(s, TNN_E_VALUE, "n_ctx = %lld must be 0 (all rows of the cache), or between %lld (the number of new tokens of a "
                                  "sequence) and %lld (the number of rows of the cache)",
                  (long long) n_ctx, (long long) (n / sequences), (long long) rows);
        return 0;
    }
    struct tnn_attention p = { .n_heads = n_heads, .n_kv = n_kv, .t_seq = n_ctx > 0 ? n_ctx : rows, .d_head = (int32_t) d_head,
                               .cached = true, .whole = true };
    if (!tnn__attention_params(s, &p, window, scale) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__handle(s, tnn__kernel_node(s, &ATTENTION_CACHED, &p, (int64_t) n_heads * d_head, n, args, first_rows != 0 ? 5 : 4));
}
