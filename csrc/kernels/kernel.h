/* kernels/kernel.h - the operators that the shim adds to ggml through its custom-op door: the fused layout.
 *
 * A kernel node is a ggml CUSTOM node whose userdata is a struct tnn_kernel. ggml runs it with all its threads; each kernel
 * cuts its work so that no bit of the result depends on how many those are.
 */
#ifndef TINYNN_KERNELS_H
#define TINYNN_KERNELS_H

#include "session.h"

enum tnn_kernel_kind {
    TNN_K_LINEAR,
    TNN_K_LINEAR_BACK_X,
    TNN_K_LINEAR_BACK_W,
    TNN_K_LINEAR_BACK_BIAS,
    TNN_K_RMS_NORM,
    TNN_K_RMS_NORM_BACK_X,
    TNN_K_RMS_NORM_BACK_GAMMA,
    TNN_K_ROPE_TABLE,
    TNN_K_ATTENTION,
    TNN_K_ATTENTION_BACK,
    TNN_K_ATTENTION_CACHED,
    TNN_K_SWIGLU,
    TNN_K_SWIGLU_BACK,
    TNN_K_CROSS_ENTROPY_ROWS,
    TNN_K_CROSS_ENTROPY,
    TNN_K_CROSS_ENTROPY_BACK,
    TNN_K_EMBEDDING_BACK,
    TNN_K_GRAD_SQUARES,
    TNN_K_GRAD_NORM,
    TNN_K_ADAMW,
    TNN_K_COUNT
};

#define TNN_SQUARES_PARTS 64

/* A kernel may write its result over an operand only where it reads each element before it writes that element. */
enum tnn_replaces {
    TNN_REPLACES_NOTHING,
    TNN_REPLACES_SRC0,
    TNN_REPLACES_SRC1
};

struct tnn_kernel {
    struct tnn_kernel   * next;
    tnn_session         * s;
    enum tnn_kernel_kind  kind;
    size_t                scratch;     /* bytes that each thread needs */
    enum tnn_replaces     replaces;    /* the operand whose place the result may take over */
    /* LINEAR, its backward */
    int32_t n_weights;
    bool    has_bias, has_add;
    int64_t column;                    /* LINEAR_BACK_W, _BIAS: first column of dy */
    bool    continues;                 /* a gradient of a parameter: adds to what an earlier node of this graph wrote */
    const struct ggml_tensor * gradient_of; /* a gradient of a parameter: whose */
    /* RMS_NORM, ROPE_TABLE, ATTENTION, CROSS_ENTROPY */
    float   eps;
    float   freq_base, freq_scale, attn_factor;
    int32_t d_head, n_heads, n_kv;
    int64_t t_seq;
    int32_t ignore_id;
    /* GRAD_SQUARES */
    double                    partial[TNN_SQUARES_PARTS];
    const struct tnn_kernel * following; /* the next gradient's; GRAD_NORM: the first */
    /* the last node of a group: the nodes that run with it, itself the last */
    struct ggml_tensor     ** members;
    int                       n_members;
};

typedef void (*tnn_kernel_fun)(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

/* ---- kernels/kernel.c ---- */
/* A kernel node over args (at most 9), or NULL with an error. The caller reserved its node. ne0 = 0: the result is a view of
 * args[0], which the kernel writes. */
struct ggml_tensor * tnn__kernel_node(tnn_session * s, const struct tnn_kernel * like, int64_t ne0, int64_t ne1,
                                      struct ggml_tensor ** args, int n_args);
/* The kernel behind a node, or NULL for a node of ggml's. */
struct tnn_kernel * tnn__kernel_of(const tnn_session * s, const struct ggml_tensor * node);
const char * tnn__kernel_name(const struct tnn_kernel * k);
void tnn__kernels_free(tnn_session * s);
/* Makes sure that each thread has its scratch before the graph runs. */
int tnn__kernels_reserve_scratch(tnn_session * s);

/* ---- kernels/rms_norm.c: kernels that go row by row ---- */
void tnn__rms_norm(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__rms_norm_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__rms_norm_back_gamma(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__swiglu(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__swiglu_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__embedding_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

/* ---- kernels/cross_entropy.c: the loss on target ids ---- */
void tnn__cross_entropy_rows(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__cross_entropy(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__cross_entropy_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

/* ---- kernels/attention.c ---- */
size_t tnn__attention_scratch(int64_t t_seq, int64_t d_head);
void tnn__rope_table(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__attention(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__attention_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

void tnn__attention_cached(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

/* ---- kernels/linear.c ---- */
void tnn__linear(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__linear_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__linear_back_w(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__linear_back_bias(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

/* ---- kernels/adamw.c: the optimizer ---- */
void tnn__grad_squares(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__grad_norm(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);
void tnn__adamw(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

/* ---- graph/fused_backward.c ---- */
/* Appends to s->gb the gradients of all its parameters. */
int tnn__fused_backward(tnn_session * s);
/* Every node on a gradient path of the fused graph is one that the above differentiates. */
int tnn__fused_check(tnn_session * s, const struct ggml_cgraph * gf);
/* Moves each optimizer step up to where its gradient is done and its weight read for the last time. */
int tnn__fused_schedule(tnn_session * s, struct ggml_cgraph * graph);

/* ---- graph/groups.c ---- */
/* Orders the nodes so that those which need no barrier between them stand side by side, as s->group_end says. */
int tnn__group_nodes(tnn_session * s, struct ggml_cgraph * graph);
/* The graph that ggml runs, once each node has its place: s->leaders. */
int tnn__groups_seal(tnn_session * s, struct ggml_cgraph * graph);
void tnn__groups_free(tnn_session * s);

/* Does a gradient of a parameter start from 0 here, or go on from what its memory holds? */
static inline bool tnn__grad_goes_on(const struct tnn_kernel * k) {
    return k->continues || k->s->accumulate;
}

/* Does the kernel write the gradient of a parameter? */
static inline bool tnn__is_parameter_gradient(const struct tnn_kernel * k) {
    return k != NULL && k->gradient_of != NULL && (k->gradient_of->flags & GGML_TENSOR_FLAG_PARAM) != 0;
}

/* Operands of a node stand side by side, from src[0]. */
static inline int tnn__n_operands(const struct ggml_tensor * t) {
    int n = 0;
    while (n < GGML_MAX_SRC && t->src[n] != NULL) {
        n++;
    }
    return n;
}

static inline const float * tnn__data(const struct ggml_tensor * t) {
    return t->data;
}

#endif
