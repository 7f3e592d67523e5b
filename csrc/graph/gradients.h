/* graph/gradients.h - functions with which the backward functions of the kernels append gradients to graph b. */
#ifndef TNN_GRADIENTS_H
#define TNN_GRADIENTS_H

#include "kernels/kernel.h"

/* The state while a fused graph is differentiated. */
struct tnn_gradients {
    tnn_session              * s;
    struct ggml_cgraph       * gb;
    const struct ggml_cgraph * gf;
    const bool               * needed; /* by slot of gf's hash set: the tensor depends on a parameter, or is one */
    bool                       failed; /* out of memory; the session has the error */
};

/* Returns whether t depends on a parameter or is one. Only then it needs a gradient. */
bool tnn__needs_gradient(const struct tnn_gradients * g, const struct ggml_tensor * t);
/* Returns the sum of the gradients of t that were added so far, or NULL. */
struct ggml_tensor * tnn__gradient_so_far(const struct tnn_gradients * g, const struct ggml_tensor * t);
/* Adds to the gradient of t the result of a kernel on args. */
void tnn__add_gradient(struct tnn_gradients * g, struct ggml_tensor * t, const struct tnn_kernel_type * type, const void * params,
                       struct ggml_tensor ** args, int n_args);
/* Adds to the gradient of t a gradient that exists already, because the gradient of a sum is the gradient of each
 * addend. */
void tnn__pass_gradient(struct tnn_gradients * g, struct ggml_tensor * t, struct ggml_tensor * grad);

#endif
