/* kernels/grad_norm.h - the norm of all gradients. */
#ifndef TNN_GRAD_NORM_H
#define TNN_GRAD_NORM_H

#include "session.h"

/* Returns whether the node is a result of tnn_fused_grad_norm. */
bool tnn__is_grad_norm(const struct ggml_tensor * node);
/* Returns the tensor of a handle, or NULL with an error if the tensor is not a result of tnn_fused_grad_norm. */
struct ggml_tensor * tnn__grad_norm_operand(tnn_session * s, tnn_tensor norm);
/* Checks that an optimizer step of a fused graph is appended between tnn_build_backward and tnn_realize_backward.
 * Returns false with an error. */
bool tnn__want_backward_built(tnn_session * s);

#endif
