/* ops/cross_entropy.h - the loss node, whose backward pass ggml expands and whose value the shim computes. */
#ifndef TNN_CROSS_ENTROPY_H
#define TNN_CROSS_ENTROPY_H

#include "session.h"

/* Makes the shim compute the graph's CROSS_ENTROPY_LOSS nodes. Call it after the backward pass was expanded and before
 * the graph runs. */
void tnn__losses_seal(const struct ggml_cgraph * graph);
/* Returns whether the node is a loss of tnn_cross_entropy_loss, before or after tnn__losses_seal. */
bool tnn__is_loss_node(const struct ggml_tensor * node);

#endif
