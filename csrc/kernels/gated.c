/* kernels/gated.c - the session call of the kernels of gated feed-forward networks. */
#include "kernels/gated.h"

#include "ops/operands.h"

tnn_tensor tnn__gated_node(tnn_session * s, const struct tnn_kernel_type * type, tnn_tensor gate_up) {
    struct ggml_tensor * t = tnn__rows_operand(s, "gate_up", gate_up);
    if (t == NULL) {
        return 0;
    }
    if (t->ne[0] % 2 != 0) {
        tnn__fail(s, TNN_E_VALUE, "gate_up has shape %s, but it must be [2 d_ff, rows]", tnn__shape(t));
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__handle(s, tnn__kernel_node(s, type, NULL, t->ne[0] / 2, t->ne[1], &t, 1));
}
