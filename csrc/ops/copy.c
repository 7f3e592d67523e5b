/* ops/copy.c - copies into another tensor or another dtype. */
#include "ops/operands.h"
#include "ops/rules.h"

tnn_tensor tnn_cpy(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * from = tnn__tensor(s, "a", a);
    struct ggml_tensor * to   = from != NULL ? tnn__tensor(s, "b", b) : NULL;
    if (to == NULL || !tnn__want_float_type(s, "a", from) || !tnn__want_float_type(s, "b", to)) {
        return 0;
    }
    if (ggml_nelements(from) != ggml_nelements(to)) {
        tnn__fail(s, TNN_E_VALUE, "the tensor a has shape %s and the tensor b has shape %s; both must have the same number of elements",
                  tnn__shape(from), tnn__shape(to));
        return 0;
    }
    if (tnn__same_memory(from, to)) {
        tnn__fail(s, TNN_E_VALUE, "a and b share memory, so values could be overwritten before they are copied; use "
                                  "another b");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_cpy(s->ctx_c, from, to)) : 0;
}

tnn_tensor tnn_cast(tnn_session * s, tnn_tensor a, int32_t dtype) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !tnn__want_float_type(s, "a", t)) {
        return 0;
    }
    if (dtype != TNN_F32 && dtype != TNN_F16 && dtype != TNN_BF16) {
        tnn__fail(s, TNN_E_TYPE, "dtype = %d must be 0 (F32), 1 (F16) or 30 (BF16)", (int) dtype);
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_cast(s->ctx_c, t, (enum ggml_type) dtype)) : 0;
}

/* ------------------------------------------------------------------ derivatives */

static const char * refuses_copy(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    const struct ggml_tensor * b = t->src[1];
    /* b == t if the node is a cast */
    return b != t && tnn__grad_needed(g, b) ? "it overwrites a tensor that depends on a parameter (or is one)" : NULL;
}

const struct tnn_op_rule tnn__copy_rules[] = {
    { .op = GGML_OP_CPY, .differentiable = true, .refuses = refuses_copy, .skips = TNN_OPERAND(1) },
    { .op = GGML_OP_NONE },
};
