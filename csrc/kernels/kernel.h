/* kernels/kernel.h - kernels: operators that the shim computes itself, each described by one row of data.
 *
 * Each kernel has one file in this folder. The file contains the run functions (forward and backward), a row for each run function
 * (struct tnn_kernel_type), and the session call, which tinynn.h declares. Everything else (memory, grouping,
 * differentiation, checks before a compute) reads the rows.
 *
 * In a graph a kernel is a CUSTOM node of ggml whose userdata is a struct tnn_kernel. ggml runs it with all its
 * threads. Each kernel divides its work so that no bit of the result depends on the number of threads.
 */
#ifndef TNN_KERNEL_H
#define TNN_KERNEL_H

#include "graph/nodes.h"
#include "kernels/window_sums.h"
#include "session.h"

struct tnn_gradients; /* graph/gradients.h */
struct tnn_kernel;

/* If several operators use a tensor, its gradient is a sum of parts, and each kernel computes one part. A kernel has one
 * of these ways to add its part to the sum of the earlier parts. */
enum tnn_gradient_sum {
    TNN_SUM_BY_NODE, /* the kernel does not add; a node of ggml adds its part to the earlier parts */
    TNN_SUM_OPERAND, /* the kernel adds its last operand, the sum of the earlier parts (k->has_add) */
    /* for the gradient of a parameter: the kernel adds to operand 0, the sum of the earlier parts (k->continues) */
    TNN_SUM_IN_PLACE
};

/* The row that describes a kernel. Fields that are not set are false, 0 or NULL. Masks are made of TNN_OPERAND(i). */
struct tnn_kernel_type {
    const char * name; /* the name that tnn_tensor_op_name returns */
    /* Thread ith of nth computes its part of dst. scratch belongs to this thread. */
    void (*run)(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

    /* Appends the nodes that compute the gradients of the operands from grad, the gradient of the node. */
    void (*backward)(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad);
    uint32_t differentiable;                /* operands to which a gradient can flow */
    bool     is_loss;                       /* the backward pass starts at this kernel, so grad is NULL */
    /* NULL, or the kernel that reads the result of this kernel. The backward function of that kernel differentiates
     * both kernels. */
    const struct tnn_kernel_type * part_of;
    /* operand 0 holds the losses of the rows of a cross entropy; the backward function of part_of differentiates
     * these losses too */
    bool     reads_row_losses;
    enum tnn_gradient_sum sum;

    /* The next four fields say what run does, besides reading all operands and writing its result. */
    /* Operands whose memory the result may take over, because each element is read before it is written. */
    uint32_t in_place;
    uint32_t writes;      /* operands that run writes */
    uint32_t order_only;  /* operands that run does not read, but that must be computed before the node */
    /* Lists the tensors that run reads besides its operands: returns the tensor after previous, or the first tensor if
     * previous is NULL. Returns NULL at the end. */
    const struct ggml_tensor * (*also_reads)(const struct ggml_tensor * node, const struct ggml_tensor * previous);

    /* Returns the cost in multiply-adds. NULL if the cost is one pass over the result. */
    int64_t (*multiply_adds)(const struct tnn_kernel * k, const struct ggml_tensor * node);
    /* Returns the bytes of scratch memory that one thread needs. */
    size_t (*scratch)(const void * params);
    /* Checks, before each compute, values (ids, lengths) with which run could read or write out of bounds. Returns
     * TNN_OK or an error code. */
    int (*check)(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node);

    bool makes_ids;      /* the i32 result holds places of elements in the rows of operand 0 */
    bool optimizer_step; /* an optimizer step: the operands in the mask `writes` are a parameter and its moments */
    bool for_optimizer;  /* only the optimizer waits for the result */
    bool over_windows;   /* a sum over rows, in the order of kernels/window_sums.h */
    /* a gradient that is computed as soon as its operands are computed, if possible before the backward pass */
    bool at_once;

    size_t params_size; /* bytes of k->params, the parameters from the session call */
    size_t state_size;  /* bytes of k->state, values that run keeps for other nodes */
};

/* A kernel node. */
struct tnn_kernel {
    const struct tnn_kernel_type * type;
    tnn_session * s;
    const void  * params;
    void        * state;
    bool          has_add;                 /* TNN_SUM_OPERAND: the last operand is added to the result */
    /* TNN_SUM_IN_PLACE: operand 0 is the sum of the earlier parts, and the other operands follow it. */
    bool          continues;
    /* The tensor whose gradient the kernel computes, if type->sum is TNN_SUM_IN_PLACE. */
    const struct ggml_tensor * gradient_of;
    size_t stored_at; /* the first element of this gradient in a stored node (kernels/window_sums.h) */
    struct ggml_tensor ** members;         /* for the last node of a group: the nodes of the group, which run with it */
    int           n_members;
};

/* Appends a kernel node of shape [ne0, ne1] over at most 9 operands, or returns NULL with an error. ne0 = 0: the result
 * is a view of args[0], which the kernel writes. params: type->params_size bytes, which are copied. The caller has
 * checked that the graph can take another node. */
struct ggml_tensor * tnn__kernel_node(tnn_session * s, const struct tnn_kernel_type * type, const void * params, int64_t ne0, int64_t ne1,
                                      struct ggml_tensor ** args, int n_args);
/* Returns the kernel of a node, or NULL if ggml computes the node. */
struct tnn_kernel * tnn__kernel_of(const struct ggml_tensor * node);
/* Appends a kernel node like tnn__kernel_node, with a result of the given dtype and shape. */
struct ggml_tensor * tnn__kernel_node_of(tnn_session * s, const struct tnn_kernel_type * type, const void * params, enum ggml_type dtype,
                                         const int64_t ne[GGML_MAX_DIMS], struct ggml_tensor ** args, int n_args);
/* Makes sure that each thread has its scratch memory before the graph runs. */
int tnn__kernels_reserve_scratch(tnn_session * s);

/* Returns whether the node is a kernel of this type. */
static inline bool tnn__is_kernel(const struct ggml_tensor * node, const struct tnn_kernel_type * type) {
    const struct tnn_kernel * k = tnn__kernel_of(node);
    return k != NULL && k->type == type;
}

/* Returns operand i of a kernel that sums in place. If the kernel adds to the result of an earlier node, src[0] is
 * this result, and the operands begin at src[1]. */
static inline const struct ggml_tensor * tnn__operand(const struct tnn_kernel * k, const struct ggml_tensor * node, int i) {
    return node->src[i + (k->continues ? 1 : 0)];
}

/* Returns whether a kernel that sums in place adds its rows, one after another, to the sum of the earlier parts. This is
 * so in a step with a single window. With several windows, the kernel first sums its own windows as a binary tree, and
 * then adds this sum to the sum of the earlier parts. */
static inline bool tnn__continues_chain(const struct tnn_kernel * k) {
    return k->continues && k->s->windows.single;
}

/* Describes the sums of columns begin to begin + n - 1 of a gradient. A column is an index of the first
 * dimension of the gradient. */
static inline struct tnn_column_sums tnn__column_sums(const struct tnn_kernel * k, struct ggml_tensor * dst, int64_t begin, int64_t n,
                                                      float * local) {
    return (struct tnn_column_sums) {
        .windows = &k->s->windows, .at = k->stored_at + (size_t) begin, .n = n, .local = local, .out = (float *) dst->data + begin,
        .add_out = k->continues && !k->s->windows.single,
    };
}

/* Sets sum [n] to the value from which the sum of a window starts. */
static inline void tnn__start_sum(const struct tnn_kernel * k, const struct tnn_column_sums * c, float * sum) {
    for (int64_t j = 0; j < c->n; j++) {
        sum[j] = tnn__continues_chain(k) ? c->out[j] : 0.0f;
    }
}

/* Returns the bytes of scratch that the sums of n columns need: one sum, then the local slots. */
static inline size_t tnn__sums_scratch(int64_t n, int64_t windows) {
    return sizeof(float) * (size_t) n * (size_t) (1 + tnn__local_slots(windows, false));
}

/* Returns whether the kernel computes the gradient of a parameter. kernel may be NULL. */
static inline bool tnn__is_parameter_gradient(const struct tnn_kernel * k) {
    return k != NULL && k->gradient_of != NULL && (k->gradient_of->flags & GGML_TENSOR_FLAG_PARAM) != 0;
}

#endif
