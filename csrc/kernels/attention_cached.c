/* kernels/attention_cached.c - attention of the last tokens of a sequence, whose earlier keys and values are in a cache.
 */
#include "kernels/attention_block.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/rope.h"
#include "ops/operands.h"

#include <string.h>

/* Computes the attention of the last tokens of one sequence. The cache has the rotated keys and the values of the
 * earlier tokens. First, the keys and values of the last tokens are written to the cache. A row of the cache has the
 * keys of the KV heads, then their values. Operands: qkv, RoPE table, cache, number of earlier tokens. */
static void run_cached(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct tnn_attention_shape   h = tnn__attention_shape(k->params);
    const struct tnn_attention_buffers b = tnn__attention_buffers(scratch, k->params);
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
            for (int64_t q0 = 0; q0 < n; q0 += TNN_QUERIES) {
                const int64_t first_key = tnn__first_key(&h, past + q0);
                const struct tnn_attention_block block = {
                    .queries = qkv + head * h.d + q0 * h.qkv_row, .table = table + q0 * h.d,
                    .rows = tnn__min(TNN_QUERIES, n - q0), .first = past + q0, .keys = keys + first_key * cache_row,
                    .key_row = cache_row,
                };
                tnn__block_attention(&h, &b, &block, values + first_key * cache_row, cache_row,
                                     (float *) dst->data + q0 * out_row + head * h.d, out_row);
            }
        }
    }
}

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
    .name = "ATTENTION_CACHED", .run = run_cached, .writes = TNN_OPERAND(2), .check = check_cache, .scratch = tnn__attention_scratch,
    .params_size = sizeof(struct tnn_attention),
};

tnn_tensor tnn_fused_attention_cached(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, tnn_tensor kv_cache, tnn_tensor n_past,
                                      int32_t n_heads, int32_t n_kv, int64_t window, float scale) {
    struct ggml_tensor * args[4];
    if (!tnn__enter(s, __func__) || !tnn__attention_operands(s, qkv, rope_table, n_heads, n_kv, args)) {
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
    const int64_t n_ctx = args[2]->ne[1];
    struct tnn_attention p = { .n_heads = n_heads, .n_kv = n_kv, .t_seq = n_ctx, .d_head = (int32_t) d_head };
    if (!tnn__attention_params(s, &p, window, scale) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__handle(s, tnn__kernel_node(s, &ATTENTION_CACHED, &p, (int64_t) n_heads * d_head, n, args, 4));
}
