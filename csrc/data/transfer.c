/* data/transfer.c - copies values into tensors (uploads) and out of them (downloads). */
#include "data/canonical_nan.h"
#include "graph/handles.h"
#include "graph/nodes.h"
#include "machine/machine.h"
#include "memory/mapping.h"
#include "session.h"

#include <string.h>

static bool want_memory(tnn_session * s, const struct ggml_tensor * t) {
    if (t->data != NULL) {
        return true;
    }
    if (tnn__is_persistent(t)) {
        tnn__fail_stage(s, "a persistent tensor has no memory before tnn_finalize_weights, which must be called first");
    } else {
        tnn__fail(s, TNN_E_STATE, "t (%s) has no memory yet: realize the graph that contains it first",
                  ggml_get_name(t));
    }
    return false;
}

static bool want_count(tnn_session * s, const struct ggml_tensor * t, const void * data, int64_t n) {
    if (data == NULL) {
        tnn__fail(s, TNN_E_VALUE, "data must not be NULL");
        return false;
    }
    if (n != ggml_nelements(t)) {
        tnn__fail(s, TNN_E_VALUE, "n = %lld must be %lld, the number of elements of t (%s), of shape %s",
                  (long long) n, (long long) ggml_nelements(t), ggml_get_name(t), tnn__shape(t));
        return false;
    }
    return true;
}

/* Returns the entry of a tensor that the caller may write: an input with memory. Returns NULL with an error for any
 * other tensor. */
static struct tnn_entry * writable(tnn_session * s, const char * call, tnn_tensor h) {
    struct tnn_entry * e = tnn__enter(s, call) ? tnn__entry(s, "t", h) : NULL;
    if (e == NULL) {
        return NULL;
    }
    if (!e->is_input) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) is the result of an operator (%s); only declared tensors can be uploaded",
                  ggml_get_name(e->tensor),
                  ggml_op_name(e->tensor->op));
        return NULL;
    }
    if (e->is_mapped) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) is mapped from a file, so it cannot be written; use an unmapped weight",
                  ggml_get_name(e->tensor));
        return NULL;
    }
    return want_memory(s, e->tensor) ? e : NULL;
}

int tnn_upload_from_float_array(tnn_session * s, tnn_tensor t, const float * data, int64_t n) {
    struct tnn_entry * e = writable(s, __func__, t);
    if (e == NULL || !want_count(s, e->tensor, data, n)) {
        return tnn_last_error_code(s);
    }
    struct ggml_tensor * x = e->tensor;
    fenv_t callers;
    switch (x->type) {
        case GGML_TYPE_F32:
            memcpy(x->data, data, (size_t) n * sizeof(float));
            break;
        case GGML_TYPE_F16:
            /* Rounding to infinity must not end the process if the caller has enabled traps for overflow. */
            tnn__arithmetic_begin(&callers);
            ggml_fp32_to_fp16_row(data, x->data, n);
            tnn__arithmetic_end(&callers);
            break;
        case GGML_TYPE_BF16:
            ggml_fp32_to_bf16_row(data, x->data, n);
            break;
        default:
            return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s, but it must be f32, f16 or bf16; use tnn_upload_from_int_array",
                             ggml_get_name(x), ggml_type_name(x->type));
    }
    e->uploaded = true;
    return TNN_OK;
}

int tnn_upload_from_int_array(tnn_session * s, tnn_tensor t, const int32_t * data, int64_t n) {
    struct tnn_entry * e = writable(s, __func__, t);
    if (e == NULL || !want_count(s, e->tensor, data, n)) {
        return tnn_last_error_code(s);
    }
    if (e->tensor->type != GGML_TYPE_I32) {
        return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s, but it must be i32; use tnn_upload_from_float_array",
                         ggml_get_name(e->tensor),
                         ggml_type_name(e->tensor->type));
    }
    memcpy(e->tensor->data, data, (size_t) n * sizeof(int32_t));
    e->uploaded = true;
    return TNN_OK;
}

int tnn_zero_tensor(tnn_session * s, tnn_tensor t) {
    struct tnn_entry * e = writable(s, __func__, t);
    if (e == NULL) {
        return tnn_last_error_code(s);
    }
    memset(e->tensor->data, 0, ggml_nbytes(e->tensor));
    e->uploaded = true;
    return TNN_OK;
}

/* Returns a tensor whose values can be read: an uploaded input or a computed output. Returns NULL with an error for any
 * other tensor. */
static struct ggml_tensor * readable(tnn_session * s, const char * call, tnn_tensor h) {
    struct tnn_entry * e = tnn__enter(s, call) ? tnn__entry(s, "t", h) : NULL;
    if (e == NULL || !want_memory(s, e->tensor)) {
        return NULL;
    }
    if ((s->tainted || tnn__is_mapped(s, e->tensor)) && tnn__mappings_begin(s) != TNN_OK) {
        return NULL;
    }
    struct ggml_tensor       * t    = e->tensor;
    const struct ggml_tensor * root = tnn__root(t);
    if (!ggml_is_contiguous(t)) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) is a strided view; make it contiguous with tnn_cont_2d", ggml_get_name(t));
        return NULL;
    }
    if (root->op == GGML_OP_NONE) {
        const struct tnn_entry * input = tnn__entry_of(s, root);
        if (input == NULL || !input->is_input) {
            tnn__fail(s, TNN_E_VALUE, "t (%s) is internal memory of an operator, not a tensor with values; use the result of the operator",
                      ggml_get_name(root));
            return NULL;
        }
        if (!input->uploaded) {
            tnn__fail(s, TNN_E_STATE, "t (%s) was never uploaded, so it has no values to download; upload it first",
                      ggml_get_name(root));
            return NULL;
        }
        return t;
    }
    if ((root->flags & TNN_FLAG_KEPT) == 0) {
        tnn__fail(s, TNN_E_STATE, "t (%s) is not an output of the realized graph: later nodes reuse its memory; call tnn_set_output before "
                                  "realizing",
                  ggml_get_name(t));
        return NULL;
    }
    if (!s->computed) {
        tnn__fail(s, TNN_E_STATE, "t (%s) is not computed yet; run the graph first", ggml_get_name(t));
        return NULL;
    }
    return t;
}

/* Copies values and replaces every NaN by the canonical NaN (canonical_nan.h). from and to may be the same array. */
static void copy_results(float * to, const float * from, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        to[i] = tnn__canonical_nan(from[i]);
    }
}

int tnn_download(tnn_session * s, tnn_tensor t, float * data, int64_t n) {
    const struct ggml_tensor * x = readable(s, __func__, t);
    if (x == NULL || !want_count(s, x, data, n)) {
        return tnn_last_error_code(s);
    }
    fenv_t callers;
    switch (x->type) {
        case GGML_TYPE_F32:
            copy_results(data, x->data, n);
            break;
        case GGML_TYPE_F16:
            tnn__arithmetic_begin(&callers);
            ggml_fp16_to_fp32_row(x->data, data, n);
            tnn__arithmetic_end(&callers);
            copy_results(data, data, n);
            break;
        case GGML_TYPE_BF16:
            ggml_bf16_to_fp32_row(x->data, data, n);
            copy_results(data, data, n);
            break;
        default:
            if (!tnn__is_matrix_type((int32_t) x->type)) {
                return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s, but it must be f32, f16, bf16 or quantized; use tnn_download_to_int_array",
                                 ggml_get_name(x), ggml_type_name(x->type));
            }
            tnn__arithmetic_begin(&callers);
            ggml_get_type_traits(x->type)->to_float(x->data, data, n);
            tnn__arithmetic_end(&callers);
            copy_results(data, data, n);
    }
    return tnn__is_mapped(s, x) ? tnn__mappings_end(s) : TNN_OK;
}

int tnn_download_to_int_array(tnn_session * s, tnn_tensor t, int32_t * data, int64_t n) {
    const struct ggml_tensor * x = readable(s, __func__, t);
    if (x == NULL || !want_count(s, x, data, n)) {
        return tnn_last_error_code(s);
    }
    if (x->type != GGML_TYPE_I32) {
        return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s, but it must be i32; use tnn_download", ggml_get_name(x),
                         ggml_type_name(x->type));
    }
    memcpy(data, x->data, (size_t) n * sizeof(int32_t));
    return TNN_OK;
}
