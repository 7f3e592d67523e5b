/* kernels/embedding.h - the gradient of an embedding table. */
#ifndef TNN_EMBEDDING_H
#define TNN_EMBEDDING_H

#include "session.h"

struct tnn_gradients;

/* Appends the gradient of the table of a GET_ROWS node. */
void tnn__embedding_backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad);

#endif
