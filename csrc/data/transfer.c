/* data/transfer.c - data in and out, and looking inside. */
#include "kernels/kernel.h"

#include <string.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ data */

static bool want_memory(tnn_session * s, const struct ggml_tensor * t) {
    if (t->data != NULL) {
        return true;
    }
    if (tnn__is_persistent(t)) {
        tnn__fail_stage(s, "a persistent tensor has memory after tnn_finalize_weights");
    } else {
        tnn__fail(s, TNN_E_STATE, "t (%s) has no memory: it is in no realized graph", ggml_get_name(t));
    }
    return false;
}

static bool want_count(tnn_session * s, const struct ggml_tensor * t, const void * data, int64_t n) {
    if (data != NULL && n == ggml_nelements(t)) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "n = %lld elements given, t (%s) of shape %s has %lld", (long long) n, ggml_get_name(t), tnn__shape(t),
              (long long) ggml_nelements(t));
    return false;
}

/* A tensor that the caller may write: an input with memory. */
static struct tnn_entry * writable(tnn_session * s, const char * call, tnn_tensor h) {
    struct tnn_entry * e = tnn__enter(s, call) ? tnn__entry(s, "t", h) : NULL;
    if (e == NULL) {
        return NULL;
    }
    if (!e->is_input) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) is the result of an operator (%s); only declared tensors take data", ggml_get_name(e->tensor),
                  ggml_op_name(e->tensor->op));
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
            tnn__arithmetic_begin(&callers); /* who has infinities trapped would be ended by this one */
            ggml_fp32_to_fp16_row(data, x->data, n);
            tnn__arithmetic_end(&callers);
            break;
        case GGML_TYPE_BF16:
            ggml_fp32_to_bf16_row(data, x->data, n);
            break;
        default:
            return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s; use tnn_upload_from_int_array", ggml_get_name(x), ggml_type_name(x->type));
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
        return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s; use tnn_upload_from_float_array", ggml_get_name(e->tensor),
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

/* A tensor whose memory holds what its name promises: an input that was uploaded, or a computed output. */
static struct ggml_tensor * readable(tnn_session * s, const char * call, tnn_tensor h) {
    struct tnn_entry * e = tnn__enter(s, call) ? tnn__entry(s, "t", h) : NULL;
    if (e == NULL || !want_memory(s, e->tensor)) {
        return NULL;
    }
    struct ggml_tensor       * t    = e->tensor;
    const struct ggml_tensor * root = t->view_src != NULL ? t->view_src : t;
    if (!ggml_is_contiguous(t)) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) is a strided view; make it contiguous with tnn_cont_2d", ggml_get_name(t));
        return NULL;
    }
    if (root->op == GGML_OP_NONE) {
        const struct tnn_entry * input = tnn__entry_of(s, root);
        if (input == NULL || !input->is_input) {
            tnn__fail(s, TNN_E_VALUE, "t (%s) is memory inside an operator, which holds nothing of its own", ggml_get_name(root));
            return NULL;
        }
        if (!input->uploaded) {
            tnn__fail(s, TNN_E_STATE, "t (%s) was never uploaded", ggml_get_name(root));
            return NULL;
        }
        return t;
    }
    if (((t->flags | root->flags) & GGML_TENSOR_FLAG_OUTPUT) == 0) {
        tnn__fail(s, TNN_E_STATE, "t (%s) is no output: its memory is lent to later nodes; call tnn_set_output before realizing",
                  ggml_get_name(t));
        return NULL;
    }
    if (!s->computed) {
        tnn__fail(s, TNN_E_STATE, "t (%s) is not computed yet", ggml_get_name(t));
        return NULL;
    }
    return t;
}

int tnn_download(tnn_session * s, tnn_tensor t, float * data, int64_t n) {
    const struct ggml_tensor * x = readable(s, __func__, t);
    if (x == NULL || !want_count(s, x, data, n)) {
        return tnn_last_error_code(s);
    }
    fenv_t callers;
    switch (x->type) {
        case GGML_TYPE_F32:
            memcpy(data, x->data, (size_t) n * sizeof(float));
            break;
        case GGML_TYPE_F16:
            tnn__arithmetic_begin(&callers);
            ggml_fp16_to_fp32_row(x->data, data, n);
            tnn__arithmetic_end(&callers);
            break;
        case GGML_TYPE_BF16:
            ggml_bf16_to_fp32_row(x->data, data, n);
            break;
        default:
            return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s; use tnn_download_to_int_array", ggml_get_name(x), ggml_type_name(x->type));
    }
    return TNN_OK;
}

int tnn_download_to_int_array(tnn_session * s, tnn_tensor t, int32_t * data, int64_t n) {
    const struct ggml_tensor * x = readable(s, __func__, t);
    if (x == NULL || !want_count(s, x, data, n)) {
        return tnn_last_error_code(s);
    }
    if (x->type != GGML_TYPE_I32) {
        return tnn__fail(s, TNN_E_TYPE, "t (%s) has dtype %s; use tnn_download", ggml_get_name(x), ggml_type_name(x->type));
    }
    memcpy(data, x->data, (size_t) n * sizeof(int32_t));
    return TNN_OK;
}

/* ------------------------------------------------------------------ introspection */

static struct ggml_tensor * looked_at(tnn_session * s, const char * call, tnn_tensor t) {
    const struct tnn_entry * e = tnn__enter(s, call) ? tnn__entry(s, "t", t) : NULL;
    return e != NULL ? e->tensor : NULL;
}

static int64_t failed(const tnn_session * s) {
    return -(int64_t) tnn_last_error_code(s);
}

static int64_t dimension(tnn_session * s, const char * call, tnn_tensor t, int i) {
    const struct ggml_tensor * x = looked_at(s, call, t);
    return x != NULL ? x->ne[i] : failed(s);
}

int64_t tnn_tensor_ne0(tnn_session * s, tnn_tensor t) {
    return dimension(s, __func__, t, 0);
}

int64_t tnn_tensor_ne1(tnn_session * s, tnn_tensor t) {
    return dimension(s, __func__, t, 1);
}

int64_t tnn_tensor_ne2(tnn_session * s, tnn_tensor t) {
    return dimension(s, __func__, t, 2);
}

int64_t tnn_tensor_ne3(tnn_session * s, tnn_tensor t) {
    return dimension(s, __func__, t, 3);
}

int64_t tnn_tensor_nbytes(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = looked_at(s, __func__, t);
    return x != NULL ? (int64_t) ggml_nbytes(x) : failed(s);
}

int64_t tnn_tensor_nelements(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = looked_at(s, __func__, t);
    return x != NULL ? ggml_nelements(x) : failed(s);
}

int64_t tnn_tensor_dtype(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = looked_at(s, __func__, t);
    return x != NULL ? (int64_t) x->type : failed(s);
}

int64_t tnn_tensor_flags(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = looked_at(s, __func__, t);
    return x != NULL ? (int64_t) x->flags & (TNN_FLAG_INPUT | TNN_FLAG_OUTPUT | TNN_FLAG_PARAM | TNN_FLAG_LOSS) : failed(s);
}

const char * tnn_tensor_name(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = looked_at(s, __func__, t);
    return x != NULL ? ggml_get_name(x) : NULL;
}

const char * tnn_tensor_op_name(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = looked_at(s, __func__, t);
    if (x == NULL) {
        return NULL;
    }
    const struct tnn_kernel * k = tnn__kernel_of(s, x);
    return k != NULL ? tnn__kernel_name(k) : ggml_op_name(tnn__is_loss_node(x) ? GGML_OP_CROSS_ENTROPY_LOSS : x->op);
}

tnn_tensor tnn_tensor_src(tnn_session * s, tnn_tensor t, int32_t i) {
    const struct ggml_tensor * x = looked_at(s, __func__, t);
    if (x == NULL) {
        return 0;
    }
    if (i < 0 || i >= GGML_MAX_SRC) {
        tnn__fail(s, TNN_E_VALUE, "i = %d must be between 0 and %d", (int) i, GGML_MAX_SRC - 1);
        return 0;
    }
    return x->src[i] != NULL ? tnn__handle(s, x->src[i]) : 0;
}

static struct ggml_cgraph * current_graph(const tnn_session * s) {
    return s->gb != NULL ? s->gb : s->gf;
}

int64_t tnn_graph_n_nodes(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return failed(s);
    }
    const struct ggml_cgraph * graph = current_graph(s);
    return graph != NULL ? graph->n_nodes : 0;
}

tnn_tensor tnn_graph_node(tnn_session * s, int64_t i) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    const struct ggml_cgraph * graph = current_graph(s);
    const int64_t n = graph != NULL ? graph->n_nodes : 0;
    if (i < 0 || i >= n) {
        tnn__fail(s, TNN_E_VALUE, "i = %lld is not a node; the graph has %lld", (long long) i, (long long) n);
        return 0;
    }
    return tnn__handle(s, graph->nodes[i]);
}
