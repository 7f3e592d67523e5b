/* kernels/kernel.h - what a kernel is: an operator that the shim computes itself, and one row of data that describes it.
 *
 * A kernel is one file of this folder: its run functions, forward and backward, a row for each (struct tnn_kernel_type), and its session
 * call, which is declared in tinynn.h. Everything else (memory, grouping, differentiation, checks before a compute) reads the row.
 *
 * In a graph a kernel is a CUSTOM node of ggml whose userdata is a struct tnn_kernel. ggml runs it with all its threads; each kernel
 * divides its work so that no bit of the result depends on the number of threads.
 */
#ifndef TNN_KERNEL_H
#define TNN_KERNEL_H

#include "graph/nodes.h"
#include "session.h"

struct tnn_gradients; /* graph/gradients.h */
struct tnn_kernel;

/* How a kernel that computes a gradient adds it to an earlier part of the same gradient. */
enum tnn_gradient_sum {
    TNN_SUM_BY_NODE, /* it does not add: a node of ggml adds the two parts */
    TNN_SUM_OPERAND, /* the earlier part is its last operand, which it adds: k->has_add */
    TNN_SUM_IN_PLACE /* a parameter's gradient: the earlier part is operand 0, and the result is written over it: k->continues */
};

/* The row of a kernel. Fields that are not set are false, 0 or NULL. Masks are made of TNN_OPERAND(i). */
struct tnn_kernel_type {
    const char * name; /* as tnn_tensor_op_name returns it */
    /* Thread ith of nth computes its part of dst. scratch belongs to this thread. */
    void (*run)(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch);

    /* Derivative. backward appends the nodes that compute the gradients of the operands, from grad, the gradient of the node. */
    void (*backward)(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad);
    uint32_t differentiable;                /* operands to which a gradient can flow */
    bool     is_loss;                       /* backward starts here, without grad */
    const struct tnn_kernel_type * part_of; /* this kernel is differentiated by the backward of the kernel that reads it */
    enum tnn_gradient_sum sum;

    /* What run reads and writes, besides all operands and its result. */
    uint32_t in_place;    /* operands whose memory may become the result's: each element is read before it is written */
    uint32_t writes;      /* operands that it writes */
    uint32_t order_only;  /* operands that it does not read, but that must be computed before it */
    /* More tensors that it reads: the one after previous (NULL: the first), or NULL. */
    const struct ggml_tensor * (*also_reads)(const struct ggml_tensor * node, const struct ggml_tensor * previous);

    /* Cost in multiply-adds, if it is more than one pass over the result. */
    int64_t (*multiply_adds)(const struct tnn_kernel * k, const struct ggml_tensor * node);
    /* Bytes of scratch memory that one thread needs. */
    size_t (*scratch)(const void * params);
    /* Checks values (ids, lengths) that could lead run out of bounds, before each compute. Returns TNN_OK or the code of the error. */
    int (*check)(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node);

    bool optimizer_step; /* writes a parameter and its moments, which are the operands in writes */
    bool for_optimizer;  /* only the optimizer waits for its result */

    size_t params_size; /* bytes of k->params, which the session call gives to the node */
    size_t state_size;  /* bytes of k->state, which run keeps for other nodes */
};

/* A kernel node. */
struct tnn_kernel {
    const struct tnn_kernel_type * type;
    tnn_session * s;
    const void  * params;
    void        * state;
    bool          has_add;                 /* TNN_SUM_OPERAND: the last operand is added to the result */
    bool          continues;               /* TNN_SUM_IN_PLACE: operand 0 is the sum so far; the other operands follow it */
    const struct ggml_tensor * gradient_of; /* the tensor whose gradient it computes, if type->sum is TNN_SUM_IN_PLACE */
    struct ggml_tensor ** members;         /* for the last node of a group: the nodes of the group, which run with it */
    int           n_members;
};

/* Appends a kernel node of shape [ne0, ne1] over at most 9 operands, or returns NULL with an error. ne0 = 0: the result is a view of
 * args[0], which the kernel writes. params: type->params_size bytes, copied. The caller has reserved the node. */
struct ggml_tensor * tnn__kernel_node(tnn_session * s, const struct tnn_kernel_type * type, const void * params, int64_t ne0, int64_t ne1,
                                      struct ggml_tensor ** args, int n_args);
/* The kernel of a node, or NULL if ggml computes it. */
struct tnn_kernel * tnn__kernel_of(const struct ggml_tensor * node);
/* Makes sure that each thread has its scratch memory before the graph runs. */
int tnn__kernels_reserve_scratch(tnn_session * s);

/* Is the node a kernel of this type? */
static inline bool tnn__is_kernel(const struct ggml_tensor * node, const struct tnn_kernel_type * type) {
    const struct tnn_kernel * k = tnn__kernel_of(node);
    return k != NULL && k->type == type;
}

/* Operand i of a kernel that sums in place: the sum so far, if there is one, comes before operand 0. */
static inline const struct ggml_tensor * tnn__operand(const struct tnn_kernel * k, const struct ggml_tensor * node, int i) {
    return node->src[i + (k->continues ? 1 : 0)];
}

/* Does the gradient of a parameter continue from the values in its memory, rather than start from 0? */
static inline bool tnn__grad_goes_on(const struct tnn_kernel * k) {
    return k->continues || k->s->accumulate;
}

/* Does the kernel (or NULL) compute the gradient of a parameter? */
static inline bool tnn__is_parameter_gradient(const struct tnn_kernel * k) {
    return k != NULL && k->gradient_of != NULL && (k->gradient_of->flags & GGML_TENSOR_FLAG_PARAM) != 0;
}

#endif
