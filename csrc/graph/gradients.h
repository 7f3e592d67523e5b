/* graph/gradients.h - functions with which the backward functions of the kernels append gradients to the training graph. */
#ifndef TNN_GRADIENTS_H
#define TNN_GRADIENTS_H

#include "kernels/kernel.h"

/* The state while a fused graph is differentiated. */
struct tnn_gradients {
    tnn_session              * s;
    struct ggml_cgraph       * gb;
    const struct ggml_cgraph * gf;
    const bool               * needed; /* indexed by slot of gf's hash set: the tensor depends on a parameter, or is one */
    struct ggml_tensor      ** again;  /* indexed by slot of gb's hash set: the node that computes this tensor again, or NULL */
    bool                       failed; /* the session has the error */
};

/* Returns whether t is a parameter or depends on one. Only such a tensor needs a gradient. */
bool tnn__needs_gradient(const struct tnn_gradients * g, const struct ggml_tensor * t);
/* Returns the sum of the gradients of t that were added so far, or NULL. */
struct ggml_tensor * tnn__gradient_so_far(const struct tnn_gradients * g, const struct ggml_tensor * t);
/* Returns the sum of the gradients of t that were added so far, or NULL. Forgets the sum, so that the backward function of
 * t is not called. */
struct ggml_tensor * tnn__take_gradient(const struct tnn_gradients * g, const struct ggml_tensor * t);
/* Appends a kernel on args, and adds its result to the gradient of t. */
void tnn__add_gradient(struct tnn_gradients * g, struct ggml_tensor * t, const struct tnn_kernel_type * type, const void * params,
                       struct ggml_tensor ** args, int n_args);
/* Adds an existing tensor to the gradient of t. A sum passes its own gradient to each addend in this way. */
void tnn__pass_gradient(struct tnn_gradients * g, struct ggml_tensor * t, struct ggml_tensor * grad);

#endif
