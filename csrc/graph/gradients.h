/* graph/gradients.h - what the backward functions of the kernels append to graph b. */
#ifndef TNN_GRADIENTS_H
#define TNN_GRADIENTS_H

#include "kernels/kernel.h"

/* The state of differentiating a fused graph. */
struct tnn_gradients {
    tnn_session              * s;
    struct ggml_cgraph       * gb;
    const struct ggml_cgraph * gf;
    const bool               * needed; /* by slot of gf's hash set: the tensor depends on a parameter, or is one */
    bool                       failed; /* out of memory; the session has the error */
};

/* Does t depend on a parameter, or is it one? Only then it needs a gradient. */
bool tnn__needs_gradient(const struct tnn_gradients * g, const struct ggml_tensor * t);
/* The gradient of t so far, or NULL. */
struct ggml_tensor * tnn__gradient_so_far(const struct tnn_gradients * g, const struct ggml_tensor * t);
/* Adds to the gradient of t what a kernel computes from args. */
void tnn__add_gradient(struct tnn_gradients * g, struct ggml_tensor * t, const struct tnn_kernel_type * type, const void * params,
                       struct ggml_tensor ** args, int n_args);
/* Adds to the gradient of t a gradient that exists already: the gradient of a sum is that of each addend. */
void tnn__pass_gradient(struct tnn_gradients * g, struct ggml_tensor * t, struct ggml_tensor * grad);

#endif
