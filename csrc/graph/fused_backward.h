/* graph/fused_backward.h - appends the backward pass of a fused graph, without ggml's differentiation. */
#ifndef TNN_FUSED_BACKWARD_H
#define TNN_FUSED_BACKWARD_H

#include "session.h"

/* Returns whether the loss is a kernel node (tnn_fused_cross_entropy). If so, the shim, not ggml, differentiates the
 * graph. */
bool tnn__is_fused(const struct ggml_cgraph * graph);
/* Checks that every node between a parameter and the loss has a derivative in a fused graph. */
int tnn__fused_check(tnn_session * s, const struct ggml_cgraph * gf);
/* Appends to s->gb, a copy of s->gf, the gradients of all parameters. After a failure the appended nodes stay unused,
 * and the call can be repeated. */
int tnn__fused_backward(tnn_session * s);

#endif
