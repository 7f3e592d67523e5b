/* graph/recompute.h - computes nodes of the forward pass again during the backward pass of a fused graph. */
#ifndef TNN_RECOMPUTE_H
#define TNN_RECOMPUTE_H

#include "graph/gradients.h"

/* If node i of the forward graph ends a part of the graph (tnn_set_recompute), makes a copy of each node of the part that
 * depends on a parameter. The backward functions then read the copies, and a copy enters the graph with the first
 * gradient that needs it. Returns node i, or in a part, a node whose operands are the copies. */
struct ggml_tensor * tnn__node_again(struct tnn_gradients * g, int i);
/* Returns an upper bound of the number of copies for a forward graph. */
int64_t tnn__recompute_tensors(const struct ggml_cgraph * gf);
/* Call this after the last backward function. */
void tnn__recompute_end(const struct tnn_gradients * g);

#endif
