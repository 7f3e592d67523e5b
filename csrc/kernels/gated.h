/* kernels/gated.h - code that the kernels of gated feed-forward networks share: the session call. */
#ifndef TNN_GATED_H
#define TNN_GATED_H

#include "kernels/kernel.h"

/* Appends a node of a kernel without parameters that maps gate_up [2 d_ff, rows] to [d_ff, rows]. Returns 0 with an
 * error. */
tnn_tensor tnn__gated_node(tnn_session * s, const struct tnn_kernel_type * type, tnn_tensor gate_up);

#endif
