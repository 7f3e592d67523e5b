/* graph/flags.c - sets flags and names of tensors. */
#include "graph/handles.h"
#include "graph/nodes.h"
#include "memory/mapping.h"
#include "session.h"

#include <string.h>

/* Flags decide how a graph is expanded and where its tensors are placed, so a flag must be set before the graph is
 * realized. */
static struct ggml_tensor * flag_operand(tnn_session * s, const char * call, tnn_tensor h) {
    struct ggml_tensor * t = tnn__enter(s, call) ? tnn__tensor(s, "t", h) : NULL;
    /* The nodes of the second forward graph are appended after tnn_realize. */
    const bool for_second = s != NULL && s->stage == TNN_STAGE_FORWARD_REALIZED && !s->second_built;
    if (t != NULL && (s->stage == TNN_STAGE_BACKWARD_REALIZED
                      || (s->stage == TNN_STAGE_FORWARD_REALIZED && !(for_second && t->data == NULL)))) {
        tnn__fail_stage(s, "a tensor can be flagged only before the graph is realized");
        return NULL;
    }
    return t;
}

int tnn_set_param(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = flag_operand(s, __func__, t);
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    if (x->op != GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "t is the result of an operator (%s); a parameter must be a declared tensor",
                         ggml_op_name(x->op));
    }
    if (x->type != GGML_TYPE_F32) {
        return tnn__fail(s, TNN_E_TYPE, "t has dtype %s, but a parameter must be f32, the only dtype that ggml's CPU "
                                        "backend can train", ggml_type_name(x->type));
    }
    if (tnn__is_mapped(s, x)) {
        return tnn__fail(s, TNN_E_VALUE, "t (%s) is mapped from a file and cannot be trained", ggml_get_name(x));
    }
    if (s->gf != NULL) {
        return tnn__fail_stage(s, "a parameter must be flagged before the forward graph is built");
    }
    ggml_set_param(x);
    return TNN_OK;
}

int tnn_set_recompute(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = flag_operand(s, __func__, t);
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    if (x->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "t is an input, which is always kept; use the result of an operator");
    }
    if (s->gb != NULL) {
        return tnn__fail_stage(s, "a tensor must be flagged before tnn_build_backward");
    }
    x->flags |= TNN_FLAG_RECOMPUTE;
    return TNN_OK;
}

int tnn_set_loss(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = flag_operand(s, __func__, t);
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    if (!ggml_is_scalar(x) || x->type != GGML_TYPE_F32) {
        return tnn__fail(s, TNN_E_VALUE, "t has shape %s and dtype %s, but a loss must be an f32 scalar",
                         tnn__shape(x), ggml_type_name(x->type));
    }
    if (x->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "t is an input; a loss must be the result of an operator");
    }
    if (s->gb != NULL) {
        return tnn__fail_stage(s, "the loss must be flagged before tnn_build_backward");
    }
    ggml_set_loss(x);
    return TNN_OK;
}

int tnn_set_output(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = flag_operand(s, __func__, t);
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    ggml_set_output(x);
    return TNN_OK;
}

int tnn_tensor_set_interleaved(tnn_session * s, tnn_tensor t, int32_t d_head) {
    struct tnn_entry * e = tnn__enter(s, __func__) ? tnn__entry(s, "t", t) : NULL;
    if (e == NULL) {
        return tnn_last_error_code(s);
    }
    if (!e->is_mapped || !ggml_is_matrix(e->tensor)) {
        return tnn__fail(s, TNN_E_VALUE, "t (%s) has shape %s, but it must be a matrix that is mapped from a file", ggml_get_name(e->tensor),
                         tnn__shape(e->tensor));
    }
    if (d_head < 2 || d_head % 2 != 0 || e->tensor->ne[1] % d_head != 0) {
        return tnn__fail(s, TNN_E_VALUE, "d_head = %d must be even and divide the %lld rows of t (%s)", (int) d_head,
                         (long long) e->tensor->ne[1], ggml_get_name(e->tensor));
    }
    e->interleaved = d_head;
    return TNN_OK;
}

int tnn_tensor_set_bf16_products(tnn_session * s, tnn_tensor t) {
    struct tnn_entry * e = tnn__enter(s, __func__) ? tnn__entry(s, "t", t) : NULL;
    if (e == NULL) {
        return tnn_last_error_code(s);
    }
    if (!e->is_input || !ggml_is_matrix(e->tensor)) {
        return tnn__fail(s, TNN_E_VALUE, "t (%s) must be a declared matrix, got %s of shape %s", ggml_get_name(e->tensor),
                         e->is_input ? "a tensor" : "the result of an operator", tnn__shape(e->tensor));
    }
    e->bf16_products = true;
    return TNN_OK;
}

int tnn_tensor_set_name(tnn_session * s, tnn_tensor t, const char * name) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__tensor(s, "t", t) : NULL;
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    if (name == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "name must be a string, got NULL");
    }
    if (strlen(name) >= GGML_MAX_NAME) {
        return tnn__fail(s, TNN_E_VALUE, "name must be a string of at most %d bytes, got %zu",
                         GGML_MAX_NAME - 1, strlen(name));
    }
    ggml_set_name(x, name);
    return TNN_OK;
}
