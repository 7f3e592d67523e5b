/* ops/shape.c - operators that do not change values: concatenation, transposition, shapes and views. */
#include "ops/operands.h"
#include "ops/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Concatenates with ggml's SET, because ggml has no derivative for CONCAT. SET has a derivative and writes the same
 * bits. The SETs together overwrite every element of the new tensor. */
static tnn_tensor concatenate(tnn_session * s, struct ggml_tensor * const * parts, int n, int dim, int64_t length) {
    int64_t ne[GGML_MAX_DIMS];
    memcpy(ne, parts[0]->ne, sizeof(ne));
    ne[dim] = length;
    struct ggml_tensor * result = ggml_new_tensor(s->ctx_c, GGML_TYPE_F32, GGML_MAX_DIMS, ne);
    size_t offset = 0;
    for (int i = 0; i < n; i++) {
        result = ggml_set(s->ctx_c, result, parts[i], result->nb[1], result->nb[2], result->nb[3], offset);
        offset += (size_t) parts[i]->ne[dim] * result->nb[dim];
    }
    return tnn__appended(s, n + 1, result);
}

/* Checks that part i has the shape of the first part, except along dim. */
static bool want_part(tnn_session * s, int i, const struct ggml_tensor * t, const struct ggml_tensor * first, int dim) {
    for (int d = 0; d < GGML_MAX_DIMS; d++) {
        if (d != dim && t->ne[d] != first->ne[d]) {
            tnn__fail(s, TNN_E_VALUE, "parts[%d] has shape %s, but it must have the shape of parts[0], %s, except for ne%d",
                      i, tnn__shape(t),
                      tnn__shape(first), dim);
            return false;
        }
    }
    return true;
}

#define MAX_PARTS 4096

/* t has space for n tensors. */
static tnn_tensor concat_checked(tnn_session * s, const tnn_tensor * parts, struct ggml_tensor ** t, int32_t n, int32_t dim) {
    int64_t length = 0;
    if (dim < 0 || dim >= GGML_MAX_DIMS) {
        tnn__fail(s, TNN_E_VALUE, "dim = %d must be between 0 and %d", (int) dim, GGML_MAX_DIMS - 1);
        return 0;
    }
    const struct ggml_tensor * first = tnn__f32_operand(s, "parts[0]", parts[0]);
    for (int i = 0; i < n && first != NULL; i++) {
        char arg[32];
        snprintf(arg, sizeof(arg), "parts[%d]", i);
        t[i] = tnn__f32_operand(s, arg, parts[i]);
        if (t[i] == NULL || !want_part(s, i, t[i], first, dim)) {
            return 0;
        }
        length += t[i]->ne[dim];
    }
    if (first == NULL) {
        return 0;
    }
    const int64_t rest = ggml_nelements(first) / first->ne[dim];
    if (length > (INT64_C(1) << 28) / rest) { /* an offset of ggml's SET must be below 2^30 bytes */
        tnn__fail(s, TNN_E_VALUE, "the result would have %lld elements, but ggml's SET supports at most 2^28", (long long) (length * rest));
        return 0;
    }
    return tnn__reserve_nodes(s, n + 1) ? concatenate(s, t, n, dim, length) : 0;
}

tnn_tensor tnn_concat(tnn_session * s, tnn_tensor a, tnn_tensor b, int32_t dim) {
    const tnn_tensor parts[] = { a, b };
    struct ggml_tensor * t[2];
    return tnn__enter(s, __func__) ? concat_checked(s, parts, t, 2, dim) : 0;
}

tnn_tensor tnn_concat_n(tnn_session * s, const tnn_tensor * parts, int32_t n, int32_t dim) {
    if (!tnn__enter(s, __func__) || !tnn__want_list(s, "parts", parts, n, MAX_PARTS)) {
        return 0;
    }
    struct ggml_tensor ** t = malloc((size_t) n * sizeof(*t));
    if (t == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "cannot concatenate %d parts: out of memory", (int) n);
        return 0;
    }
    const tnn_tensor result = concat_checked(s, parts, t, n, dim);
    free(t);
    return result;
}

/* The reshape changes nothing in the forward pass. In the backward pass it makes the transposed gradient contiguous,
 * which most of ggml's kernels require. */
tnn_tensor tnn_transpose(tnn_session * s, tnn_tensor a) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !tnn__want_float_type(s, "a", t) || !tnn__want_contiguous(s, "a", t)) {
        return 0;
    }
    if (!tnn__want_matrix(s, "a", t) || !tnn__reserve_nodes(s, 3)) {
        return 0;
    }
    struct ggml_tensor * same = ggml_reshape_2d(s->ctx_c, t, t->ne[0], t->ne[1]);
    return tnn__appended(s, 3, ggml_cont(s->ctx_c, ggml_transpose(s->ctx_c, same)));
}

/* Checks that the shape has exactly as many elements as t. */
static bool want_same_elements(tnn_session * s, const struct ggml_tensor * t, const int64_t * ne, int n_dims) {
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) {
        if (ne[i] < 1 || ne[i] > TNN_MAX_ELEMENTS / n) {
            tnn__fail(s, TNN_E_VALUE, "ne%d = %lld does not fit: the sizes must be at least 1, and their product must be "
                                      "%lld, the number of elements of the tensor a",
                      i, (long long) ne[i], (long long) ggml_nelements(t));
            return false;
        }
        n *= ne[i];
    }
    if (n != ggml_nelements(t)) {
        tnn__fail(s, TNN_E_VALUE, "the new shape has %lld elements, but the tensor a, of shape %s, has %lld; both numbers must be equal",
                  (long long) n, tnn__shape(t), (long long) ggml_nelements(t));
        return false;
    }
    return true;
}

tnn_tensor tnn_cont_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    const int64_t ne[] = { ne0, ne1 };
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !tnn__want_float_type(s, "a", t) || !want_same_elements(s, t, ne, 2) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_cont_2d(s->ctx_c, t, ne0, ne1));
}

static struct ggml_tensor * reshape_operand(tnn_session * s, const char * call, tnn_tensor a, const int64_t * ne, int n_dims) {
    if (!tnn__enter(s, call)) {
        return NULL;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    return t != NULL && tnn__want_elements(s, "a", t) && tnn__want_contiguous(s, "a", t) && want_same_elements(s, t, ne, n_dims) && tnn__reserve_nodes(s, 1) ? t : NULL;
}

tnn_tensor tnn_reshape_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1) {
    const int64_t ne[] = { ne0, ne1 };
    struct ggml_tensor * t = reshape_operand(s, __func__, a, ne, 2);
    return t != NULL ? tnn__appended(s, 1, ggml_reshape_2d(s->ctx_c, t, ne0, ne1)) : 0;
}

tnn_tensor tnn_reshape_3d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t ne2) {
    const int64_t ne[] = { ne0, ne1, ne2 };
    struct ggml_tensor * t = reshape_operand(s, __func__, a, ne, 3);
    return t != NULL ? tnn__appended(s, 1, ggml_reshape_3d(s->ctx_c, t, ne0, ne1, ne2)) : 0;
}

/* Checks that a view starts at an element and ends inside the tensor a. A view of a strided view is refused, because
 * its gradient would not be a view. */
static struct ggml_tensor * view_operand(tnn_session * s, const char * call, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t nb1,
                                         int64_t offset) {
    if (!tnn__enter(s, call)) {
        return NULL;
    }
    struct ggml_tensor * t = tnn__tensor(s, "a", a);
    if (t == NULL || !tnn__want_elements(s, "a", t) || !tnn__want_contiguous(s, "a", t)) {
        return NULL;
    }
    const int64_t size = (int64_t) ggml_type_size(t->type);
    const int64_t all  = (int64_t) ggml_nbytes(t);
    if (ne0 < 1 || ne0 > all / size) {
        tnn__fail(s, TNN_E_VALUE, "ne0 = %lld must be between 1 and %lld", (long long) ne0, (long long) (all / size));
        return NULL;
    }
    if (ne1 < 1 || ne1 > all / size) {
        tnn__fail(s, TNN_E_VALUE, "ne1 = %lld must be between 1 and %lld", (long long) ne1, (long long) (all / size));
        return NULL;
    }
    if (nb1 < ne0 * size || nb1 % size != 0 || nb1 > all) {
        tnn__fail(s, TNN_E_VALUE, "nb1 = %lld must be a multiple of %lld, at least ne0 * %lld = %lld, and at most %lld "
                                  "(the size of the tensor a)", (long long) nb1,
                  (long long) size, (long long) size, (long long) (ne0 * size), (long long) all);
        return NULL;
    }
    if (offset < 0 || offset % size != 0 || offset >= all) {
        tnn__fail(s, TNN_E_VALUE, "offset = %lld must be a multiple of %lld between 0 and %lld",
                  (long long) offset, (long long) size,
                  (long long) (all - size));
        return NULL;
    }
    if (ne1 - 1 > (all - offset - ne0 * size) / nb1 || all - offset < ne0 * size) {
        tnn__fail(s, TNN_E_VALUE, "the view must end inside the tensor a, of shape %s, got ne0 = %lld, ne1 = %lld, nb1 = %lld, "
                                  "offset = %lld", tnn__shape(t),
                  (long long) ne0, (long long) ne1, (long long) nb1, (long long) offset);
        return NULL;
    }
    /* ggml requires ne0 * ne1 elements after the offset even if the rows are strided. These elements exist, because nb1
     * is at least the size of ne0 elements. */
    return tnn__reserve_nodes(s, 1) ? t : NULL;
}

tnn_tensor tnn_view_1d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t offset) {
    const int64_t row = ne0 >= 1 && ne0 <= TNN_MAX_ELEMENTS ? ne0 * 4 : 4;
    struct ggml_tensor * t = tnn__enter(s, __func__) ? tnn__tensor(s, "a", a) : NULL;
    if (t == NULL) {
        return 0;
    }
    t = view_operand(s, __func__, a, ne0, 1, row / 4 * (int64_t) ggml_type_size(t->type), offset);
    return t != NULL ? tnn__appended(s, 1, ggml_view_1d(s->ctx_c, t, ne0, (size_t) offset)) : 0;
}

tnn_tensor tnn_view_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t nb1, int64_t offset) {
    struct ggml_tensor * t = view_operand(s, __func__, a, ne0, ne1, nb1, offset);
    return t != NULL ? tnn__appended(s, 1, ggml_view_2d(s->ctx_c, t, ne0, ne1, (size_t) nb1, (size_t) offset)) : 0;
}

/* ------------------------------------------------------------------ derivatives */

/* The derivatives of SET and VIEW store byte strides and offsets in int32. */
static bool fits_int32(const struct ggml_tensor * t) {
    return ggml_nelements(t) * (int64_t) sizeof(float) <= INT32_MAX;
}

static const char * refuses_large(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    (void) g;
    return !fits_int32(t) || !fits_int32(t->src[0]) ? "it is larger than 2 GiB, ggml's limit for its derivative" : NULL;
}

const struct tnn_op_rule tnn__shape_rules[] = {
    { .op = GGML_OP_SET, .differentiable = true, .refuses = refuses_large },
    { .op = GGML_OP_VIEW, .differentiable = true, .refuses = refuses_large },
    { .op = GGML_OP_CONT, .differentiable = true },
    { .op = GGML_OP_RESHAPE, .differentiable = true },
    { .op = GGML_OP_TRANSPOSE, .differentiable = true },
    { .op = GGML_OP_NONE },
};
