/* graph/inspect.c - returns shapes, dtypes, operators and nodes to callers that inspect a graph. */
#include "graph/handles.h"
#include "kernels/kernel.h"
#include "ops/cross_entropy.h"

#include "ggml-impl.h"

static struct ggml_tensor * inspected(tnn_session * s, const char * call, tnn_tensor t) {
    const struct tnn_entry * e = tnn__enter(s, call) ? tnn__entry(s, "t", t) : NULL;
    return e != NULL ? e->tensor : NULL;
}

static int64_t failed(const tnn_session * s) {
    return -(int64_t) tnn_last_error_code(s);
}

static int64_t dimension(tnn_session * s, const char * call, tnn_tensor t, int i) {
    const struct ggml_tensor * x = inspected(s, call, t);
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
    const struct ggml_tensor * x = inspected(s, __func__, t);
    return x != NULL ? (int64_t) ggml_nbytes(x) : failed(s);
}

int64_t tnn_tensor_nelements(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = inspected(s, __func__, t);
    return x != NULL ? ggml_nelements(x) : failed(s);
}

int64_t tnn_tensor_dtype(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = inspected(s, __func__, t);
    return x != NULL ? (int64_t) x->type : failed(s);
}

int64_t tnn_tensor_flags(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = inspected(s, __func__, t);
    return x != NULL ? (int64_t) x->flags & (TNN_FLAG_INPUT | TNN_FLAG_OUTPUT | TNN_FLAG_PARAM | TNN_FLAG_LOSS) : failed(s);
}

int64_t tnn_tensor_op(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = inspected(s, __func__, t);
    return x != NULL ? (int64_t) (tnn__is_loss_node(x) ? GGML_OP_CROSS_ENTROPY_LOSS : x->op) : failed(s);
}

const char * tnn_tensor_name(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = inspected(s, __func__, t);
    return x != NULL ? ggml_get_name(x) : NULL;
}

const char * tnn_tensor_op_name(tnn_session * s, tnn_tensor t) {
    const struct ggml_tensor * x = inspected(s, __func__, t);
    if (x == NULL) {
        return NULL;
    }
    const struct tnn_kernel * k = tnn__kernel_of(x);
    return k != NULL ? k->type->name : ggml_op_name(tnn__is_loss_node(x) ? GGML_OP_CROSS_ENTROPY_LOSS : x->op);
}

tnn_tensor tnn_tensor_src(tnn_session * s, tnn_tensor t, int32_t i) {
    const struct ggml_tensor * x = inspected(s, __func__, t);
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
    return s->gb != NULL ? s->gb : s->current != NULL ? s->current : s->gf;
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
        tnn__fail(s, TNN_E_VALUE, "i = %lld must be at least 0 and below %lld, the number of nodes",
                  (long long) i, (long long) n);
        return 0;
    }
    return tnn__handle(s, graph->nodes[i]);
}
