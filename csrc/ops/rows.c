/* ops/rows.c - reads and writes rows by their ids. */
#include "memory/allocate.h"
#include "ops/operands.h"
#include "ops/rules.h"

#include <stdlib.h>
#include <string.h>

tnn_tensor tnn_get_rows(tnn_session * s, tnn_tensor table, tnn_tensor ids) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__tensor(s, "table", table);
    struct ggml_tensor * i = t != NULL ? tnn__ids_operand(s, "ids", ids, t->ne[1]) : NULL;
    if (i != NULL && !ggml_is_vector(i)) {
        tnn__fail(s, TNN_E_VALUE, "ids has shape %s, but it must be one-dimensional", tnn__shape(i));
        return 0;
    }
    if (i == NULL || !tnn__want_matrix_type(s, "table", t) || !tnn__want_contiguous(s, "table", t)) {
        return 0;
    }
    if (!tnn__want_matrix(s, "table", t)) {
        return 0;
    }
    if (t->ne[0] > TNN_MAX_ELEMENTS / i->ne[0]) {
        tnn__fail_elements(s, "the result");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_get_rows(s->ctx_c, t, i)) : 0;
}

tnn_tensor tnn_set_rows(tnn_session * s, tnn_tensor dst, tnn_tensor rows, tnn_tensor ids) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * d = tnn__tensor(s, "dst", dst);
    struct ggml_tensor * r = d != NULL ? tnn__f32_operand(s, "rows", rows) : NULL;
    struct ggml_tensor * i = r != NULL ? tnn__index_operand(s, "ids", ids) : NULL;
    if (i == NULL || !tnn__want_float_type(s, "dst", d) || !tnn__want_contiguous(s, "dst", d)) {
        return 0;
    }
    if (!ggml_is_matrix(d) || !ggml_is_matrix(r) || d->ne[0] != r->ne[0] || r->ne[1] != i->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "rows has shape %s, but it must be [%lld, %lld]: the ne0 of dst, of shape %s, and "
                                  "the number of ids", tnn__shape(r),
                  (long long) d->ne[0], (long long) i->ne[0], tnn__shape(d));
        return 0;
    }
    if (tnn__same_memory(d, r)) {
        tnn__fail(s, TNN_E_VALUE, "rows and dst share memory, so rows could be overwritten before they are read; copy "
                                  "rows first");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_set_rows(s->ctx_c, d, r, i)) : 0;
}

/* ------------------------------------------------------------------ checks before each compute */

static int compare_ids(const void * a, const void * b) {
    const int32_t x = *(const int32_t *) a, y = *(const int32_t *) b;
    return (x > y) - (x < y);
}

/* If two threads wrote one row, the result would depend on their order. */
static int check_all_different(tnn_session * s, const struct ggml_tensor * ids) {
    const size_t bytes  = (size_t) ids->ne[0] * sizeof(int32_t);
    int32_t    * sorted = tnn__aligned_alloc(s, bytes, "a sorted copy of ids");
    int          rc     = TNN_OK;
    if (sorted == NULL) {
        return s->code;
    }
    memcpy(sorted, ids->data, bytes);
    qsort(sorted, (size_t) ids->ne[0], sizeof(int32_t), compare_ids);
    for (int64_t i = 1; i < ids->ne[0] && rc == TNN_OK; i++) {
        if (sorted[i] == sorted[i - 1]) {
            rc = tnn__fail(s, TNN_E_VALUE, "ids %s contains row %d twice; each id must be different",
                           ggml_get_name(ids), (int) sorted[i]);
        }
    }
    free(sorted);
    return rc;
}

static int check_get_rows(tnn_session * s, const struct ggml_tensor * node) {
    return tnn__check_ids(s, node->src[1], node->src[0], node->src[0]->ne[1]);
}

static int check_set_rows(tnn_session * s, const struct ggml_tensor * node) {
    const int rc = tnn__check_ids(s, node->src[1], node, node->ne[1]);
    return rc == TNN_OK ? check_all_different(s, node->src[1]) : rc;
}

const struct tnn_op_rule tnn__rows_rules[] = {
    { .op = GGML_OP_GET_ROWS, .differentiable = true, .skips = TNN_OPERAND(1), .check = check_get_rows },
    { .op = GGML_OP_SET_ROWS, .check = check_set_rows },
    { .op = GGML_OP_NONE },
};
