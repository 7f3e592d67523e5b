/* kernels/logits.h - the logits of some rows, which exist only until their losses and gradients are computed. */
#ifndef TNN_LOGITS_H
#define TNN_LOGITS_H

#include "kernels/kernel.h"

/* Appends a node that computes the logits of n rows of x, from row `first` on: x W^T, [ne1 of w, n]. Returns NULL if
 * memory runs out. */
struct ggml_tensor * tnn__logits(tnn_session * s, struct ggml_tensor * x, struct ggml_tensor * w, int64_t first, int64_t n);
/* Returns whether tnn__logits appended t. */
bool tnn__is_logits(const struct ggml_tensor * t);
/* Appends the nodes that compute the gradients of x and w. grad: the gradient of the logits. */
void tnn__logits_backward(struct tnn_gradients * g, struct ggml_tensor * logits, struct ggml_tensor * grad);

#endif
