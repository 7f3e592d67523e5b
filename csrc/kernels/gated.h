/* kernels/gated.h - code that the kernels of gated feed-forward networks share: a sigmoid, and the session call. */
#ifndef TNN_GATED_H
#define TNN_GATED_H

#include "kernels/kernel.h"
#include "kernels/vec8.h"

static inline v8f tnn__sigmoid(v8f x) {
    const v8f one = v8_set1(1.0f);
    return one / (one + v8_exp(-x));
}

/* Appends a node of a kernel without parameters that maps gate_up [2 d_ff, rows] to [d_ff, rows]. Returns 0 with an
 * error. */
tnn_tensor tnn__gated_node(tnn_session * s, const struct tnn_kernel_type * type, tnn_tensor gate_up);

#endif
