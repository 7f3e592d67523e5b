/* kernels/sort.c - the order of the elements of a row, and the places of its largest elements.
 *
 * ggml's ARGSORT and TOP_K sort with std::sort, which reads out of bounds if an element is NaN, and they do not define the
 * order of equal elements. Here NaN comes last, and equal elements keep their order. */
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "ops/operands.h"

struct sort {
    bool descending;
};

/* Returns whether element i of row x comes before element j. */
static bool before(const float * x, bool descending, int32_t i, int32_t j) {
    const bool i_is_nan = x[i] != x[i], j_is_nan = x[j] != x[j];
    if (i_is_nan != j_is_nan) {
        return j_is_nan;
    }
    if (!i_is_nan && x[i] != x[j]) {
        return descending ? x[i] > x[j] : x[i] < x[j];
    }
    return i < j;
}

/* Moves places[at] down in a heap of n places. The top of the heap is the place whose element comes last in the
 * order. */
static void sift_down(const float * x, bool descending, int32_t * places, int64_t n, int64_t at) {
    for (;;) {
        int64_t last = at;
        for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < n; child++) {
            if (before(x, descending, places[last], places[child])) {
                last = child;
            }
        }
        if (last == at) {
            return;
        }
        const int32_t place = places[at];
        places[at]   = places[last];
        places[last] = place;
        at = last;
    }
}

/* Sets the first k places to the indices of the first k elements in sorted order. x has n elements. */
static void sort_row(const float * x, int64_t n, bool descending, int32_t * places, int64_t k) {
    for (int64_t i = 0; i < k; i++) {
        places[i] = (int32_t) i;
    }
    for (int64_t i = k / 2 - 1; i >= 0; i--) {
        sift_down(x, descending, places, k, i);
    }
    for (int64_t i = k; i < n; i++) {
        if (before(x, descending, (int32_t) i, places[0])) {
            places[0] = (int32_t) i;
            sift_down(x, descending, places, k, 0);
        }
    }
    for (int64_t end = k - 1; end > 0; end--) {
        const int32_t place = places[0];
        places[0]   = places[end];
        places[end] = place;
        sift_down(x, descending, places, end, 0);
    }
}

/* Operand: a. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct sort * p = k->params;
    const int64_t n = dst->src[0]->ne[0], first = dst->ne[0];
    (void) scratch;
    int64_t begin, end;
    tnn__part(ggml_nrows(dst), 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        sort_row(tnn__data(dst->src[0]) + row * n, n, p->descending, (int32_t *) dst->data + row * first, first);
    }
}

static const struct tnn_kernel_type argsort = { .name = "ARGSORT", .run = run, .makes_ids = true, .params_size = sizeof(struct sort) };
static const struct tnn_kernel_type top_k   = { .name = "TOP_K", .run = run, .makes_ids = true, .params_size = sizeof(struct sort) };

static tnn_tensor sorted(tnn_session * s, const struct tnn_kernel_type * type, struct ggml_tensor * x, int64_t first, bool descending) {
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const struct sort params = { .descending = descending };
    const int64_t ne[GGML_MAX_DIMS] = { first, x->ne[1], x->ne[2], x->ne[3] };
    return tnn__handle(s, tnn__kernel_node_of(s, type, &params, GGML_TYPE_I32, ne, &x, 1));
}

tnn_tensor tnn_argsort(tnn_session * s, tnn_tensor a, int32_t order) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__f32_operand(s, "a", a) : NULL;
    if (x == NULL) {
        return 0;
    }
    if (order != 0 && order != 1) {
        tnn__fail(s, TNN_E_VALUE, "order = %d must be 0 (ascending) or 1 (descending)", (int) order);
        return 0;
    }
    return sorted(s, &argsort, x, x->ne[0], order == 1);
}

tnn_tensor tnn_top_k(tnn_session * s, tnn_tensor a, int32_t k) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__f32_operand(s, "a", a) : NULL;
    if (x == NULL) {
        return 0;
    }
    if (k < 1 || k > x->ne[0]) {
        tnn__fail(s, TNN_E_VALUE, "k = %d must be between 1 and %lld (the length of a row of the tensor a)", (int) k, (long long) x->ne[0]);
        return 0;
    }
    return sorted(s, &top_k, x, k, true);
}
