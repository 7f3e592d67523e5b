/* graph/recompute.h - computes nodes of the forward pass again during the backward pass of a fused graph. */
#ifndef TNN_RECOMPUTE_H
#define TNN_RECOMPUTE_H

#include "graph/gradients.h"

/* Returns the node that the backward function of node i of the forward graph gets: node i itself, its copy, or, if
 * tnn_set_recompute flagged node i, a node whose operands are copies.
 * If node i is flagged, the function first copies each node that depends on a parameter and is between the previous
 * flagged node and node i. A copy enters the graph with the first gradient that needs it. */
struct ggml_tensor * tnn__node_again(struct tnn_gradients * g, int i);
/* Returns an upper bound of the number of copies for a forward graph. */
int64_t tnn__recompute_tensors(const struct ggml_cgraph * gf);
/* Marks the end of the backward pass. Call this after the last backward function. */
void tnn__recompute_end(const struct tnn_gradients * g);

#endif
