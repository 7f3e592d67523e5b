/* ops/operands.c - checks of the arguments of operators. */
#include "ops/operands.h"

#include "graph/nodes.h"

#include <math.h>

tnn_tensor tnn__appended(tnn_session * s, int n, struct ggml_tensor * result) {
    s->n_tensors_c += n;
    return tnn__handle(s, result);
}

bool tnn__want_type(tnn_session * s, const char * arg, const struct ggml_tensor * t, enum ggml_type type) {
    if (t->type == type) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, but it must be %s", arg, ggml_type_name(t->type), ggml_type_name(type));
    return false;
}

bool tnn__want_float_type(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_BF16) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, but it must be f32, f16 or bf16", arg, ggml_type_name(t->type));
    return false;
}

bool tnn__want_matrix_type(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (tnn__is_matrix_type((int32_t) t->type)) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, must be f32, f16, bf16 or quantized", arg, ggml_type_name(t->type));
    return false;
}

bool tnn__want_elements(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (!ggml_is_quantized(t->type)) {
        return true;
    }
    tnn__fail(s, TNN_E_TYPE, "%s has the quantized dtype %s, whose elements cannot be addressed", arg, ggml_type_name(t->type));
    return false;
}

bool tnn__want_contiguous(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (ggml_is_contiguous(t)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s is a strided view, but must be contiguous; make a contiguous copy with tnn_cont_2d",
              arg);
    return false;
}

bool tnn__want_list(tnn_session * s, const char * arg, const tnn_tensor * list, int32_t n, int32_t limit) {
    if (n < 1 || n > limit) {
        tnn__fail(s, TNN_E_VALUE, "n = %d must be between 1 and %d", (int) n, (int) limit);
        return false;
    }
    if (list == NULL) {
        tnn__fail(s, TNN_E_VALUE, "%s must not be NULL", arg);
        return false;
    }
    return true;
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

bool tnn__want_freq_base(tnn_session * s, float freq_base) {
    if (isfinite(freq_base) && freq_base > 0.0f) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "freq_base = %g must be finite and positive", (double) freq_base);
    return false;
}

bool tnn__want_matrix(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (ggml_is_matrix(t)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must be two-dimensional", arg, tnn__shape(t));
    return false;
}

void tnn__fail_elements(tnn_session * s, const char * what) {
    tnn__fail(s, TNN_E_VALUE, "%s would have more than 2^31 - 1 elements, ggml's limit", what);
}

struct ggml_tensor * tnn__f32_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    return t != NULL && tnn__want_type(s, arg, t, GGML_TYPE_F32) && tnn__want_contiguous(s, arg, t) ? t : NULL;
}

struct ggml_tensor * tnn__rows_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    return t != NULL && tnn__want_matrix(s, arg, t) ? t : NULL;
}

struct ggml_tensor * tnn__index_operand(tnn_session * s, const char * arg, tnn_tensor h) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    if (t == NULL || !tnn__want_type(s, arg, t, GGML_TYPE_I32) || !tnn__want_contiguous(s, arg, t)) {
        return NULL;
    }
    if (!ggml_is_vector(t)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must be one-dimensional", arg, tnn__shape(t));
        return NULL;
    }
    return t; /* only views make i32 tensors from i32 tensors, so the root of t is an input */
}

struct ggml_tensor * tnn__per_column(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * x) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    if (t != NULL && (ggml_nelements(t) != x->ne[0] || t->ne[0] != x->ne[0])) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must be [%lld] for x of shape %s",
                  arg, tnn__shape(t), (long long) x->ne[0],
                  tnn__shape(x));
        return NULL;
    }
    return t;
}

bool tnn__same_memory(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    return tnn__root(a) == tnn__root(b);
}

bool tnn__want_apart(tnn_session * s, const char * arg, const struct ggml_tensor * t, struct ggml_tensor * const * written, int n) {
    for (int i = 0; i < n; i++) {
        if (tnn__same_memory(t, written[i])) {
            tnn__fail(s, TNN_E_VALUE, "%s must not share memory with a tensor that this operator writes (%s, of shape "
                                      "%s)", arg,
                      ggml_get_name(written[i]), tnn__shape(written[i]));
            return false;
        }
    }
    return true;
}
