/* kernels/attention_block.c - the attention of a block of queries, and the checks of the operands of attention. */
#include "kernels/attention_block.h"

#include "kernels/gemm.h"
#include "kernels/rope.h"
#include "kernels/softmax.h"
#include "ops/operands.h"

/* ------------------------------------------------------------------ scratch memory */

/* Row stride of a block's scores: a multiple of the vector width. The stride is not a power of two, because rows at
 * such distances would evict each other from the cache. */
static int64_t score_stride(const struct tnn_attention * p) {
    const int64_t keys = tnn__min(p->t_seq, p->window - 1 + TNN_QUERIES);
    return (keys + 15) / 16 * 16 + 16;
}

static float * take(char ** at, int64_t n) {
    float * p = (float *) *at;
    *at += GGML_PAD((size_t) n * sizeof(float), 64);
    return p;
}

struct tnn_attention_buffers tnn__attention_buffers(void * scratch, const struct tnn_attention * p) {
    char * at = scratch;
    struct tnn_attention_buffers b;
    b.keys  = take(&at, p->t_seq * p->d_head);
    b.dkeys = take(&at, p->t_seq * p->d_head);
    b.q     = take(&at, (int64_t) TNN_QUERIES * p->d_head);
    b.dq    = take(&at, (int64_t) TNN_QUERIES * p->d_head);
    b.p     = take(&at, TNN_QUERIES * score_stride(p));
    b.dp    = take(&at, TNN_QUERIES * score_stride(p));
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
        .stride = score_stride(p), .scale = p->scale,
    };
}

/* ------------------------------------------------------------------ the attention of a block */

static void scale_row(float * x, int64_t n, float by) {
    for (int64_t i = 0; i < n; i++) {
        x[i] *= by;
    }
}

void tnn__block_exp(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                    const struct tnn_attention_block * k, float * inverse) {
    const int64_t n_keys = tnn__block_keys(h, k), begin = tnn__first_key(h, k->first);
    if (k->same_token) {
        for (int64_t row = 0; row < k->rows; row++) {
            tnn__rotate(k->queries + row * h->d, h->d, k->table, 1, h->d, false, h->scale, b->q + row * h->d, h->d);
        }
    } else {
        tnn__rotate(k->queries, h->qkv_row, k->table, k->rows, h->d, false, h->scale, b->q, h->d);
    }
    const struct tnn_gemm g = { /* S = Q K^T */
        .m = k->rows, .n = n_keys, .k = h->d,
        .a = b->q, .a_row = h->d, .a_col = 1,
        .b = k->keys, .b_row = 1, .b_col = k->key_row, .stored = k->stored_keys,
        .c = b->p, .c_row = h->stride,
    };
    tnn__gemm(&g, b->gemm);
    for (int64_t row = 0; row < k->rows; row++) {
        const int64_t position = k->same_token ? k->first : k->first + row;
        const int64_t from = tnn__first_key(h, position) - begin, end = position + 1 - begin;
        float * x = b->p + row * h->stride;
        memset(x, 0, (size_t) from * sizeof(float));
        inverse[row] = 1.0f / tnn__exp_sum(x + from, end - from, tnn__row_max(x + from, end - from), x + from);
        memset(x + end, 0, (size_t) (n_keys - end) * sizeof(float));
    }
}

void tnn__block_attention(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                          const struct tnn_attention_block * k, float * out, int64_t out_row) {
    float inverse[TNN_QUERIES];
    tnn__block_exp(h, b, k, inverse);
    const struct tnn_gemm g = { /* O = P V */
        .m = k->rows, .n = h->d, .k = tnn__block_keys(h, k),
        .a = b->p, .a_row = h->stride, .a_col = 1,
        .b = k->values, .b_row = k->value_row, .b_col = 1, .stored = k->stored_values,
        .c = out, .c_row = out_row,
    };
    tnn__gemm(&g, b->gemm);
    for (int64_t row = 0; row < k->rows; row++) {
        scale_row(out + row * out_row, h->d, inverse[row]);
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
