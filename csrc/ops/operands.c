/* ops/operands.c - checks of the arguments of operators. */
#include "ops/operands.h"

#include "graph/nodes.h"
#include "kernels/kernel.h"

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
    tnn__fail(s, TNN_E_TYPE, "%s has dtype %s, but it must be f32, f16, bf16 or quantized", arg, ggml_type_name(t->type));
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
    /* tnn_permute can move dimensions of size 1. ggml_is_contiguous ignores the strides of such dimensions, but ggml's
     * kernels use them. */
    const bool plain = t->nb[0] == ggml_type_size(t->type) && t->nb[2] == t->nb[1] * (size_t) t->ne[1] && t->nb[3] == t->nb[2] * (size_t) t->ne[2];
    if (ggml_is_contiguous(t) && plain) {
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
    tnn__fail(s, TNN_E_VALUE, "%s would have more than 2^31 - 1 elements, ggml's limit; use smaller operands", what);
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
    if (tnn__root(t)->op != GGML_OP_NONE) {
        tnn__fail(s, TNN_E_VALUE, "%s is computed by the graph (%s), but it must be an input", arg, ggml_get_name(t));
        return NULL;
    }
    return t;
}

struct ggml_tensor * tnn__ids_operand(tnn_session * s, const char * arg, tnn_tensor h, int64_t rows) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    if (t == NULL || !tnn__want_type(s, arg, t, GGML_TYPE_I32) || !tnn__want_contiguous(s, arg, t)) {
        return NULL;
    }
    const struct ggml_tensor * root = tnn__root(t);
    const struct tnn_kernel  * k    = tnn__kernel_of(root);
    if (root->op != GGML_OP_NONE && (k == NULL || !k->type->makes_ids)) {
        tnn__fail(s, TNN_E_VALUE, "%s (%s) must be an input, or a result of tnn_argsort or tnn_top_k", arg, ggml_get_name(t));
        return NULL;
    }
    if (root->op != GGML_OP_NONE && root->src[0]->ne[0] > rows) {
        tnn__fail(s, TNN_E_VALUE, "%s, a result of tnn_argsort or tnn_top_k, can have values up to %lld, but must have values "
                                  "below %lld (the number of rows)", arg, (long long) (root->src[0]->ne[0] - 1), (long long) rows);
        return NULL;
    }
    return t;
}

int tnn__check_ids(tnn_session * s, const struct ggml_tensor * ids, const struct ggml_tensor * of, int64_t rows) {
    const int32_t * values = ids->data;
    /* Only inputs are checked: ids that an operator computes are valid. */
    const int64_t   n      = tnn__root(ids)->op == GGML_OP_NONE ? ggml_nelements(ids) : 0;
    for (int64_t i = 0; i < n; i++) {
        if (values[i] < 0 || values[i] >= rows) {
            return tnn__fail(s, TNN_E_VALUE, "ids %s[%lld] = %d must be the number of a row of %s, which has %lld rows",
                             ggml_get_name(ids), (long long) i, (int) values[i], ggml_get_name(of), (long long) rows);
        }
    }
    return TNN_OK;
}

struct ggml_tensor * tnn__like_operand(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * x, const char * x_arg) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    if (t != NULL && !ggml_are_same_shape(t, x)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must have the shape of %s, %s", arg, tnn__shape(t), x_arg, tnn__shape(x));
        return NULL;
    }
    return t;
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
