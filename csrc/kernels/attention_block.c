/* kernels/attention_block.c - the attention of a block of queries, and the checks of the operands of attention. */
#include "kernels/attention_block.h"

#include "kernels/gemm.h"
#include "kernels/rope.h"
#include "kernels/row_loops.h"
#include "ops/operands.h"

/* ------------------------------------------------------------------ scratch memory */

/* Returns the number of keys in one block of scores, a multiple of the vector width. */
static int64_t keys_of_block(const struct tnn_attention * p) {
    const int64_t most = tnn__min(p->t_seq, p->window - 1 + TNN_QUERIES);
    return (tnn__min(most, p->whole ? most : TNN_KEYS) + 15) / 16 * 16;
}

/* Returns the distance between two rows of scores: a multiple of the vector width. The distance is not a power of two,
 * because rows at such distances would evict each other from the cache. */
static int64_t score_stride(const struct tnn_attention * p) {
    return keys_of_block(p) + 16;
}

/* Returns the number of elements of the scores of TNN_QUERIES queries. */
static int64_t scores_size(const struct tnn_attention * p) {
    const int64_t keys = keys_of_block(p), most = tnn__min(p->t_seq, p->window - 1 + TNN_QUERIES);
    return (most + keys - 1) / keys * TNN_QUERIES * score_stride(p);
}

static float * take(char ** at, int64_t n) {
    float * p = (float *) *at;
    *at += GGML_PAD((size_t) n * sizeof(float), 64);
    return p;
}

struct tnn_attention_buffers tnn__attention_buffers(void * scratch, const struct tnn_attention * p) {
    char * at = scratch;
    struct tnn_attention_buffers b = { NULL };
    b.keys  = take(&at, p->t_seq * p->d_head);
    b.dkeys = take(&at, p->t_seq * p->d_head);
    b.q     = take(&at, (int64_t) TNN_QUERIES * p->d_head);
    b.dq    = take(&at, (int64_t) TNN_QUERIES * p->d_head);
    b.p     = take(&at, scores_size(p));
    b.dp    = take(&at, scores_size(p));
    if (!p->cached) {
        b.values  = take(&at, p->t_seq * p->d_head);
        b.dvalues = take(&at, p->t_seq * p->d_head);
        b.dout    = take(&at, (int64_t) TNN_QUERIES * p->d_head);
    }
    if (!p->whole) {
        b.key_panels   = take(&at, tnn__gemm_panels_size(p->t_seq, p->d_head));
        b.value_panels = take(&at, tnn__gemm_panels_size(p->t_seq, p->d_head));
    }
    b.gemm  = at;
    return b;
}

size_t tnn__attention_scratch(const void * params) {
    char * const begin = (char *) 64;
    return (size_t) ((char *) tnn__attention_buffers(begin, params).gemm - begin) + tnn__gemm_scratch();
}

struct tnn_attention_shape tnn__attention_shape(const struct tnn_attention * p) {
    return (struct tnn_attention_shape) {
        .t_seq = p->t_seq, .window = p->window, .d = p->d_head, .n_heads = p->n_heads, .n_kv = p->n_kv,
        .group = p->n_heads / p->n_kv, .qkv_row = (int64_t) (p->n_heads + 2 * p->n_kv) * p->d_head,
        .keys = keys_of_block(p), .stride = score_stride(p), .scale = p->scale,
    };
}

struct tnn_panels tnn__attention_panels(const struct tnn_attention * p, const float * x, float * data) {
    if (p->whole || p->d_head > TNN_GEMM_KC) {
        return (struct tnn_panels) { NULL };
    }
    const struct tnn_gemm g = { .n = p->t_seq, .k = p->d_head, .b = x, .b_row = 1, .b_col = p->d_head };
    return tnn__gemm_pack(&g, data);
}

/* ------------------------------------------------------------------ the attention of a block */

static void scale_row(float * x, int64_t n, float by) {
    for (int64_t i = 0; i < n; i++) {
        x[i] *= by;
    }
}

static const float * rows_from(const float * x, int64_t first, int64_t row) {
    return x != NULL ? x + first * row : NULL;
}

/* The keys that one query sees in a block of keys: keys `from` to end - 1, counted from the first key of the block. */
struct seen_keys {
    int64_t from, end;
};

/* begin, n: the first key of the block, and the number of its keys. */
static struct seen_keys keys_seen(const struct tnn_attention_shape * h, const struct tnn_attention_block * k, int64_t row, int64_t begin,
                                  int64_t n) {
    const int64_t position = k->same_token ? k->first : k->first + row;
    const int64_t from = tnn__first_key(h, position) - begin, end = position + 1 - begin;
    return (struct seen_keys) { .from = from < 0 ? 0 : tnn__min(from, n), .end = end < 0 ? 0 : tnn__min(end, n) };
}

/* Rotates the queries of a block, computes the scores S = Q K^T, and writes the largest score of each query to max. */
static void compute_scores(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                           const struct tnn_attention_block * k, float max[TNN_QUERIES]) {
    const struct tnn_row_loops * loops = tnn__row_loops();
    const int64_t n_keys = tnn__block_keys(h, k), begin = tnn__first_key(h, k->first);
    if (k->same_token) {
        for (int64_t row = 0; row < k->rows; row++) {
            tnn__rotate(k->queries + row * h->d, h->d, k->table, 1, h->d, false, h->scale, b->q + row * h->d, h->d);
        }
    } else {
        tnn__rotate(k->queries, h->qkv_row, k->table, k->rows, h->d, false, h->scale, b->q, h->d);
    }
    for (int64_t row = 0; row < k->rows; row++) {
        max[row] = -INFINITY;
    }
    for (int64_t key = 0; key < n_keys; key += h->keys) {
        const int64_t n = tnn__min(h->keys, n_keys - key);
        float * const scores = tnn__scores_at(h, b->p, key);
        const struct tnn_gemm g = {
            .m = k->rows, .n = n, .k = h->d,
            .a = b->q, .a_row = h->d, .a_col = 1,
            .b = rows_from(k->keys, key, k->key_row), .b_row = 1, .b_col = k->key_row, .stored = k->stored_keys,
            .panels = tnn__panels_from(k->key_panels, key, h->d),
            .c = scores, .c_row = h->stride,
        };
        tnn__gemm(&g, b->gemm);
        for (int64_t row = 0; row < k->rows; row++) {
            const struct seen_keys seen = keys_seen(h, k, row, begin + key, n);
            max[row] = loops->row_max(scores + row * h->stride + seen.from, seen.end - seen.from, max[row]);
        }
    }
}

/* Replaces the scores of a block of keys by their exponentials, and adds the exponentials to the lanes of each query. */
static void replace_by_exp(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                           const struct tnn_attention_block * k, int64_t key, const float max[TNN_QUERIES],
                           float lanes[TNN_QUERIES][V8_LANES]) {
    const struct tnn_row_loops * loops = tnn__row_loops();
    const int64_t n = tnn__min(h->keys, tnn__block_keys(h, k) - key), begin = tnn__first_key(h, k->first) + key;
    float * x = tnn__scores_at(h, b->p, key);
    for (int64_t row = 0; row < k->rows; row++, x += h->stride) {
        const struct seen_keys seen = keys_seen(h, k, row, begin, n);
        memset(x, 0, (size_t) seen.from * sizeof(float));
        loops->add_exp(x + seen.from, seen.end - seen.from, max[row], x + seen.from, lanes[row]);
        memset(x + seen.end, 0, (size_t) (n - seen.end) * sizeof(float));
    }
}

static float inverse_sum(const float lanes[V8_LANES]) {
    return 1.0f / v8_sum(v8_load(lanes));
}

void tnn__block_exp(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                    const struct tnn_attention_block * k, float * inverse) {
    float max[TNN_QUERIES], lanes[TNN_QUERIES][V8_LANES] = { { 0.0f } };
    compute_scores(h, b, k, max);
    for (int64_t key = 0; key < tnn__block_keys(h, k); key += h->keys) {
        replace_by_exp(h, b, k, key, max, lanes);
    }
    for (int64_t row = 0; row < k->rows; row++) {
        inverse[row] = inverse_sum(lanes[row]);
    }
}

void tnn__block_attention(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                          const struct tnn_attention_block * k, float * out, int64_t out_row) {
    const int64_t n_keys = tnn__block_keys(h, k);
    float max[TNN_QUERIES], lanes[TNN_QUERIES][V8_LANES] = { { 0.0f } };
    compute_scores(h, b, k, max);
    for (int64_t key = 0; key < n_keys; key += h->keys) {
        replace_by_exp(h, b, k, key, max, lanes);
        const struct tnn_gemm g = { /* O += P V */
            .m = k->rows, .n = h->d, .k = tnn__min(h->keys, n_keys - key),
            .a = tnn__scores_at(h, b->p, key), .a_row = h->stride, .a_col = 1,
            .b = rows_from(k->values, key, k->value_row), .b_row = k->value_row, .b_col = 1, .stored = k->stored_values,
            .c = out, .c_row = out_row, .accumulate = key > 0,
        };
        tnn__gemm(&g, b->gemm);
    }
    for (int64_t row = 0; row < k->rows; row++) {
        scale_row(out + row * out_row, h->d, inverse_sum(lanes[row]));
    }
}

/* ------------------------------------------------------------------ operands and parameters */

bool tnn__attention_operands(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, int32_t n_heads, int32_t n_kv,
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

bool tnn__attention_params(tnn_session * s, struct tnn_attention * p, int64_t window, float scale) {
    if (window < 0) {
        tnn__fail(s, TNN_E_VALUE, "window = %lld must be at least 1, or 0 for all keys", (long long) window);
        return false;
    }
    if (!tnn__want_finite(s, "scale", scale)) {
        return false;
    }
    if (scale < 0.0f) {
        tnn__fail(s, TNN_E_VALUE, "scale = %g must be above 0, or 0 for 1/sqrt(d_head)", (double) scale);
        return false;
    }
    p->window = window == 0 ? p->t_seq : tnn__min(window, p->t_seq);
    p->scale  = scale == 0.0f ? 1.0f / sqrtf((float) p->d_head) : scale;
    return true;
}
