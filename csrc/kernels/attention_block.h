/* kernels/attention_block.h - the attention of a block of queries: scores, softmax, and the weighted sum of the values.
 *
 * One row of qkv has a token's query heads, then its key heads, then its value heads. Scores exist only for a block of
 * queries at a time, and only for the keys that the block sees. The scores are divided into blocks of TNN_KEYS keys, so that
 * a product reads scores that are still in the cache. A query sees its own key and the keys before it, up to
 * the size of the window. If several samples share a sequence, a query sees only keys of its own sample. Sums over keys
 * start at the first key that the query sees, so their order does not depend on the division into blocks.
 */
#ifndef TNN_ATTENTION_BLOCK_H
#define TNN_ATTENTION_BLOCK_H

#include "kernels/gemm.h"
#include "kernels/parts.h"
#include "kernels/stored.h"
#include "session.h"

#define TNN_QUERIES 96  /* number of queries in one block */
#define TNN_KEYS    384 /* number of keys in one block of scores, which has 150 KiB */

/* The parameters of a node. */
struct tnn_attention {
    int32_t d_head, n_heads, n_kv;
    float   scale;  /* factor of the scores */
    int64_t t_seq;  /* number of tokens of a sequence; with a cache, the largest number */
    int64_t window; /* number of keys that a query sees, at most t_seq */
    bool    cached; /* the keys and values are in a cache */
    bool    whole;  /* one block holds all scores of a query: true with a window, with samples, or with a cache */
};

struct tnn_attention_shape {
    int64_t t_seq, window, d, n_heads, n_kv, group;
    int64_t qkv_row; /* (n_heads + 2 n_kv) d */
    int64_t keys;    /* number of keys in one block of scores */
    int64_t stride;  /* distance between two rows of a block of scores */
    float   scale;
    const int32_t * starts; /* (t_seq,) for each token, the first token of its sample; NULL: every sample starts at token 0 */
};

struct tnn_attention_buffers {
    float * keys;   /* (T, d_head) rotated */
    float * dkeys;  /* (T, d_head) */
    float * q;      /* (TNN_QUERIES, d_head) rotated, scaled */
    float * dq;     /* (TNN_QUERIES, d_head) */
    float * p;      /* (blocks of keys, TNN_QUERIES, keys of a block) */
    float * dp;     /* (blocks of keys, TNN_QUERIES, keys of a block) */
    float * values, * dvalues; /* (T, d_head), or NULL if the keys and values are in a cache */
    float * dout;              /* (TNN_QUERIES, d_head), or NULL if the keys and values are in a cache */
    float * key_panels, * value_panels; /* places of packed panels, or NULL if the scores of a query are one block */
    void  * gemm;
};

struct tnn_attention_shape tnn__attention_shape(const struct tnn_attention * p);

struct tnn_attention_buffers tnn__attention_buffers(void * scratch, const struct tnn_attention * p);

/* Returns the size of the scratch memory of a node. params is a struct tnn_attention. */
size_t tnn__attention_scratch(const void * params);

/* Returns the first key that the window of the query at a position contains. */
static inline int64_t tnn__first_in_window(const struct tnn_attention_shape * h, int64_t position) {
    return position < h->window ? 0 : position - h->window + 1;
}

/* Returns the first key that the query at a position sees. */
static inline int64_t tnn__first_key(const struct tnn_attention_shape * h, int64_t position) {
    const int64_t first = tnn__first_in_window(h, position);
    return h->starts == NULL || h->starts[position] < first ? first : h->starts[position];
}

/* A block of queries. The arrays of keys and values start at the first key that the first query sees. */
struct tnn_attention_block {
    const float * queries; /* (rows, qkv_row): queries of one head; with same_token, (rows, d): queries of several heads */
    const float * table;   /* the RoPE table, (rows, d), or (1, d) with same_token */
    int64_t       rows;
    int64_t       first;   /* position of the first query */
    bool          same_token; /* the rows are query heads of one token, which read the same key-value head */
    const float * keys, * values; /* (n_keys, key_row), (n_keys, value_row); keys are rotated */
    int64_t       key_row, value_row;
    /* panels of the transposed keys from token 0 on; if they have no data, the product packs the keys */
    struct tnn_panels key_panels;
    /* if these have data, they are read, as (n_keys, d), instead of keys and values */
    struct tnn_stored stored_keys, stored_values;
};

/* Returns the number of keys of a block. */
static inline int64_t tnn__block_keys(const struct tnn_attention_shape * h, const struct tnn_attention_block * k) {
    return k->first + (k->same_token ? 1 : k->rows) - tnn__first_key(h, k->first);
}

/* Returns the block of scores that begins at a key, a multiple of h->keys: (rows, h->stride). */
static inline float * tnn__scores_at(const struct tnn_attention_shape * h, float * scores, int64_t key) {
    return scores + key / h->keys * TNN_QUERIES * h->stride;
}

/* Returns the panels of the transposed keys or values x (T, d). data: their place. The panels have no data if the scores of a
 * query are one block, or if d is too large. */
struct tnn_panels tnn__attention_panels(const struct tnn_attention * p, const float * x, float * data);

/* Computes the exponentials of a block's scores in b->p: exp(score - max) for the keys that a query sees, and 0 for the
 * others. Writes the rotated and scaled queries to b->q, and the reciprocal of each row's
 * sum to inverse. */
void tnn__block_exp(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                    const struct tnn_attention_block * k, float * inverse);

/* Computes the attention of a block into rows of out. */
void tnn__block_attention(const struct tnn_attention_shape * h, const struct tnn_attention_buffers * b,
                          const struct tnn_attention_block * k, float * out, int64_t out_row);

/* Sets the operands of attention, args[0] to qkv and args[1] to the RoPE table. Returns false with an error. */
bool tnn__attention_operands(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, int32_t n_heads, int32_t n_kv,
                             struct ggml_tensor ** args);

/* Sets the parameters of a node. tnn__attention_operands must have checked the operands. window and scale are arguments
 * of the session call, in which 0 means the default. Returns false with an error. */
bool tnn__attention_params(tnn_session * s, struct tnn_attention * p, int64_t window, float scale);

#endif
