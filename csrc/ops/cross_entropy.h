/* ops/cross_entropy.h - the loss node that ggml expands and the shim computes. */
#ifndef TNN_CROSS_ENTROPY_H
#define TNN_CROSS_ENTROPY_H

#include "session.h"

/* Before a graph runs, and after its backward was expanded: from now on the shim computes the graph's CROSS_ENTROPY_LOSS nodes. */
void tnn__losses_seal(const struct ggml_cgraph * graph);
/* Is the node a CROSS_ENTROPY_LOSS, sealed or not? */
bool tnn__is_loss_node(const struct ggml_tensor * node);

#endif
