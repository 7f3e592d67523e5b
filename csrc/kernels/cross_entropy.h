/* kernels/cross_entropy.h - parts of the cross entropy from which another loss can be made. */
#ifndef TNN_CROSS_ENTROPY_H
#define TNN_CROSS_ENTROPY_H

#include "kernels/kernel.h"

/* Returns whether t is the result of tnn_fused_cross_entropy or tnn_fused_output_loss. Operand 0 of such a node computes
 * the losses of the rows, and operand 1 is the targets. */
bool tnn__is_cross_entropy(const struct ggml_tensor * t);
/* Returns the id of targets that do not count. cross_entropy: a tensor for which tnn__is_cross_entropy is true. */
int32_t tnn__ignored_id(const struct ggml_tensor * cross_entropy);
/* Returns the sum of n losses in f64. The losses of each window are added in their order. Then the sums of the windows are added
 * as a tree (kernels/window_sums.h). */
double tnn__sum_of_losses(const float * losses, int64_t n, int64_t windows);
/* Appends the gradients of the logits. The gradient of each row of the logits is multiplied by the weight of its sequence.
 * If the logits exist only in parts, each part is computed again, because the weights depend on the losses of all rows.
 *
 * rows: the node that computes the losses; if each of several nodes computes the losses of some rows, the last of them.
 * pairs: [sequences / 2, 3]; its last two rows are the weights. sequence: the number of rows of a sequence. */
void tnn__weighted_backward(struct tnn_gradients * g, struct ggml_tensor * rows, struct ggml_tensor * pairs, int64_t sequence);

#endif
