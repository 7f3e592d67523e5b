/* ops/operands.c - what the operators ask of their arguments: the tensor, or NULL with an error naming the argument; true, or
 * an error naming it. */
#include "session.h"

#include <math.h>

/* ------------------------------------------------------------------ of any operator */

bool tnn__want_type(tnn_session * s, const char * arg, const struct ggml_tensor * t, enum ggml_type type) {
    if (t->type == type) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, must be %s", arg, ggml_type_name(t->type), ggml_type_name(type));
    return false;
}

bool tnn__want_float_type(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_BF16) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, must be f32, f16 or bf16", arg, ggml_type_name(t->type));
    return false;
}

bool tnn__want_contiguous(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (ggml_is_contiguous(t)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s is not contiguous (a strided view); make it so with tnn_cont_2d", arg);
    return false;
}

bool tnn__want_finite(tnn_session * s, const char * arg, float x) {
    if (isfinite(x)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s = %g must be finite", arg, (double) x);
    return false;
}

bool tnn__want_eps(tnn_session * s, float eps) {
    if (isfinite(eps) && eps >= 0.0f) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "eps = %g must be finite and not negative", (double) eps);
    return false;
}

void tnn__fail_elements(tnn_session * s, const char * what) {
    tnn__fail(s, TNN_E_VALUE, "%s would have more than 2^31 - 1 elements, ggml's limit", what);
}

/* An f32 contiguous operand. */
struct ggml_tensor * tnn__f32_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    return t != NULL && tnn__want_type(s, arg, t, GGML_TYPE_F32) && tnn__want_contiguous(s, arg, t) ? t : NULL;
}

/* An i32 vector whose values are known before the graph runs: an input, or a view of one. */
struct ggml_tensor * tnn__index_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    if (t == NULL || !tnn__want_type(s, arg, t, GGML_TYPE_I32) || !tnn__want_contiguous(s, arg, t)) {
        return NULL;
    }
    if (!ggml_is_vector(t)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, must be one-dimensional", arg, tnn__shape(t));
        return NULL;
    }
    return t; /* no operator makes an i32 tensor but the views, so the root is an input */
}

/* ------------------------------------------------------------------ of an optimizer */

/* An f32 tensor of w's shape. */
struct ggml_tensor * tnn__like(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * w) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    if (t != NULL && !ggml_are_same_shape(t, w)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, must be that of w, %s", arg, tnn__shape(t), tnn__shape(w));
        return NULL;
    }
    return t;
}

struct ggml_tensor * tnn__parameter_operand(tnn_session * s, tnn_tensor w) {
    struct ggml_tensor * t = tnn__f32_operand(s, "w", w);
    if (t != NULL && !(t->flags & GGML_TENSOR_FLAG_PARAM)) {
        tnn__fail(s, TNN_E_VALUE, "w (%s) is not a parameter; call tnn_set_param first", ggml_get_name(t));
        return NULL;
    }
    return t;
}

/* A tensor that the optimizer writes must be memory of its own: an input. */
bool tnn__want_input(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (t->op == GGML_OP_NONE) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s is the result of an operator (%s), must be a declared tensor", arg, ggml_op_name(t->op));
    return false;
}

bool tnn__same_memory(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    return (a->view_src != NULL ? a->view_src : a) == (b->view_src != NULL ? b->view_src : b);
}

/* What an optimizer step reads must not be what its threads write meanwhile. */
bool tnn__want_apart(tnn_session * s, const char * arg, const struct ggml_tensor * t, struct ggml_tensor * const * written, int n) {
    for (int i = 0; i < n; i++) {
        if (tnn__same_memory(t, written[i])) {
            tnn__fail(s, TNN_E_VALUE, "%s lies in the memory of a tensor that this operator writes (%s, of shape %s)", arg,
                      ggml_get_name(written[i]), tnn__shape(written[i]));
            return false;
        }
    }
    return true;
}

struct ggml_tensor * tnn__hyper_parameters(tnn_session * s, tnn_tensor hp, int64_t n) {
    struct ggml_tensor * t = tnn__f32_operand(s, "hp", hp);
    if (t != NULL && ggml_nelements(t) != n) {
        tnn__fail(s, TNN_E_VALUE, "hp has shape %s, must be [%lld]", tnn__shape(t), (long long) n);
        return NULL;
    }
    return t;
}
