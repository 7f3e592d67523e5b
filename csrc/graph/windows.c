/* graph/windows.c - the windows of the batches of a training step, and the sums that are kept from one batch to the next. */
#include "graph/windows.h"

#include "data/canonical_nan.h"
#include "graph/handles.h"
#include "kernels/kernel.h"
#include "memory/allocate.h"
#include "memory/release.h"

#include <string.h>

#include "ggml-impl.h"

#define FIRST_BATCHES 63

int tnn_session_set_windows(tnn_session * s, int64_t n, int64_t first) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (n < 1 || n > TNN_MAX_ELEMENTS) {
        return tnn__fail(s, TNN_E_VALUE, "n = %lld must be between 1 and %lld", (long long) n, (long long) TNN_MAX_ELEMENTS);
    }
    if (first < 0 || first > TNN_MAX_ELEMENTS) {
        return tnn__fail(s, TNN_E_VALUE, "first = %lld must be between 0 and %lld", (long long) first, (long long) TNN_MAX_ELEMENTS);
    }
    if (s->ctx_c != NULL) {
        return tnn__fail(s, TNN_E_STATE, "tensors of a graph exist already; set the windows before the first tensor of a "
                                         "graph, or after tnn_reset_for_rebuild");
    }
    s->windows.n    = n;
    s->first_window = first;
    tnn__release_windows(s);
    return TNN_OK;
}

void tnn__windows_realize(tnn_session * s) {
    s->stored_size = 0;
    for (int i = 0; i < s->gb->n_nodes; i++) {
        struct tnn_kernel * k = tnn__kernel_of(s->gb->nodes[i]);
        if (!tnn__is_parameter_gradient(k)) {
            continue;
        }
        const struct tnn_kernel * before = k->continues ? tnn__kernel_of(s->gb->nodes[i]->src[0]) : NULL;
        if (before != NULL && before->type == k->type && k->type->at_once) {
            k->stored_at = before->stored_at; /* both nodes compute one sum: each adds some of its rows */
        } else {
            k->stored_at    = s->stored_size;
            s->stored_size += GGML_PAD((size_t) ggml_nelements(k->gradient_of), 16);
        }
    }
}

/* Allocates memory for the nodes that a batch stores, unless they have memory already. */
static int allocate_stored(tnn_session * s, struct tnn_windows * w) {
    struct tnn_window_end e;
    for (int64_t i = 0; i < w->n && w->keep; i++) {
        tnn__window_end(w, NULL, i, &e);
        if (!e.to_node || e.to.tier != TNN_STORED || w->stored[e.to.bank][e.to.level] != NULL) {
            continue;
        }
        float * memory = tnn__graph_alloc(s, s->stored_size * sizeof(float), "sums of gradients between the batches of a step");
        if (memory == NULL) {
            return s->code;
        }
        w->stored[e.to.bank][e.to.level] = memory;
        s->nbytes_c += s->stored_size * sizeof(float);
    }
    return TNN_OK;
}

void tnn__abandon_batch(tnn_session * s) {
    if (s->next_node >= 0) {
        s->next_node   = -1;
        s->next_window = -1; /* the batch may have overwritten sums of earlier batches */
        tnn__whole_step(&s->windows);
    }
}

int tnn__windows_begin(tnn_session * s, int32_t mode) {
    const bool adds = (mode & TNN_STEP_ACCUMULATE) != 0, updates = (mode & TNN_STEP_NO_UPDATE) == 0;
    if (adds && !s->gradients_kept) {
        return tnn__fail(s, TNN_E_STATE, "to accumulate, each gradient must be flagged with tnn_set_output before "
                                         "tnn_realize_backward");
    }
    if (adds && s->next_window < 0) {
        return tnn__fail(s, TNN_E_STATE, "TNN_STEP_ACCUMULATE adds to the gradients of an earlier call, but there are none; first call "
                                         "tnn_train_step for the same step with TNN_STEP_NO_UPDATE");
    }
    if (s->first_window > 0 && updates) {
        return tnn__fail(s, TNN_E_STATE, "mode = %d cannot update the weights, because this session computes only the windows of a "
                                         "step from window %lld on; add TNN_STEP_NO_UPDATE to mode",
                         (int) mode, (long long) s->first_window);
    }
    if (s->first_window > 0 && !s->gradients_kept) {
        return tnn__fail(s, TNN_E_STATE, "the first window of this session is %lld, so each gradient must be flagged with "
                                         "tnn_set_output before tnn_realize_backward",
                         (long long) s->first_window);
    }
    struct tnn_windows w = s->windows;
    w.begin  = s->first_window;
    w.at     = adds ? s->next_window : s->first_window;
    w.keep   = !updates && s->gradients_kept;
    w.single = w.n == 1 && w.at == 0 && !w.keep;
    const int rc = allocate_stored(s, &w);
    memcpy(s->windows.stored, w.stored, sizeof(w.stored));
    if (rc == TNN_OK) {
        s->windows = w;
    }
    return rc;
}

void tnn__windows_end(tnn_session * s, bool done) {
    if (done) {
        s->next_window = s->windows.keep ? s->windows.at + s->windows.n : -1;
    }
    tnn__whole_step(&s->windows);
}

int tnn_reserve_batches(tnn_session * s, int64_t batches) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_reserve_batches can be called only after tnn_realize_backward");
    }
    if (batches < 1 || batches > TNN_MAX_ELEMENTS) {
        return tnn__fail(s, TNN_E_VALUE, "batches = %lld must be between 1 and %lld", (long long) batches,
                         (long long) TNN_MAX_ELEMENTS);
    }
    if (!s->gradients_kept) {
        return tnn__fail(s, TNN_E_STATE, "to accumulate, each gradient must be flagged with tnn_set_output before "
                                         "tnn_realize_backward");
    }
    struct tnn_windows w = s->windows;
    w.begin = s->first_window;
    w.keep  = true;
    /* The last batch of a step stores nothing, unless other processes compute windows of the step too. Each level of
     * the tree (kernels/window_sums.h) is first stored by one of the batches 0 to FIRST_BATCHES, or by a batch with a
     * number 2^i - 1, so the loop skips the other batches. */
    const int64_t storing = s->first_window > 0 ? batches : batches - 1;
    int rc = TNN_OK;
    for (int64_t batch = 0; batch < storing && rc == TNN_OK; batch = batch < FIRST_BATCHES ? batch + 1 : 2 * batch + 1) {
        w.at = w.begin + batch * w.n;
        rc   = allocate_stored(s, &w);
    }
    memcpy(s->windows.stored, w.stored, sizeof(w.stored));
    return rc;
}

/* Returns whether the node begins a part of the gradient of `of`: one of the sums that tnn_gradient_parts counts. Each
 * such sum has a place of its own in the stored nodes (kernels/window_sums.h). */
static bool begins_part(const struct ggml_tensor * node, const struct ggml_tensor * of) {
    const struct tnn_kernel * k = tnn__kernel_of(node);
    if (!tnn__is_parameter_gradient(k) || k->gradient_of != of) {
        return false;
    }
    const struct tnn_kernel * before = k->continues ? tnn__kernel_of(node->src[0]) : NULL;
    return before == NULL || before->type != k->type || before->stored_at != k->stored_at;
}

/* Returns the place of part number `part` of a gradient (counted from 0), or -1 if the gradient has fewer parts. n: NULL,
 * or receives the number of parts. */
static int64_t find_part(const tnn_session * s, const struct ggml_tensor * of, int64_t part, int64_t * n) {
    int64_t count = 0, place = -1;
    for (int i = 0; i < s->gb->n_nodes; i++) {
        if (begins_part(s->gb->nodes[i], of)) {
            place = count == part ? (int64_t) tnn__kernel_of(s->gb->nodes[i])->stored_at : place;
            count++;
        }
    }
    if (n != NULL) {
        *n = count;
    }
    return place;
}

static struct ggml_tensor * parameter(tnn_session * s, tnn_tensor t) {
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED) {
        tnn__fail_stage(s, "the places of gradients are known only after tnn_realize_backward");
        return NULL;
    }
    struct ggml_tensor * w = tnn__tensor(s, "t", t);
    if (w != NULL && find_part(s, w, 0, NULL) < 0) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) must be a parameter that fused operators use", ggml_get_name(w));
        return NULL;
    }
    return w;
}

int64_t tnn_gradient_parts(tnn_session * s, tnn_tensor t) {
    if (!tnn__enter(s, __func__)) {
        return -TNN_E_STATE;
    }
    const struct ggml_tensor * w = parameter(s, t);
    int64_t n = 0;
    if (w == NULL) {
        return -s->code;
    }
    find_part(s, w, 0, &n);
    return n;
}

int64_t tnn_gradient_place(tnn_session * s, tnn_tensor t, int32_t part) {
    if (!tnn__enter(s, __func__)) {
        return -TNN_E_STATE;
    }
    const struct ggml_tensor * w = parameter(s, t);
    if (w == NULL) {
        return -s->code;
    }
    int64_t n;
    const int64_t place = find_part(s, w, part, &n);
    return place >= 0 ? place : -tnn__fail(s, TNN_E_VALUE, "part = %d must be between 0 and %lld", (int) part, (long long) n - 1);
}

/* Returns whether the gradients in n elements of a stored node, from element `at` on, are complete in the batch of tnn_begin_step. */
static bool are_complete(const tnn_session * s, int64_t at, int64_t n) {
    for (int i = s->next_node; i < s->gb->n_nodes; i++) {
        const struct tnn_kernel * k = tnn__kernel_of(s->gb->nodes[i]);
        if (tnn__is_parameter_gradient(k) && (int64_t) k->stored_at < at + n
            && at < (int64_t) k->stored_at + ggml_nelements(k->gradient_of)) {
            return false;
        }
    }
    return true;
}

int tnn_download_window_sum(tnn_session * s, int64_t first, int32_t level, int64_t at, float * data, int64_t n) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    const bool begun = s->next_node >= 0;
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED || (s->next_window < 0 && !begun)) {
        return tnn__fail(s, TNN_E_STATE, "there is no unfinished step; flag the gradients with tnn_set_output, then call "
                                         "tnn_train_step with TNN_STEP_NO_UPDATE");
    }
    const int64_t begin = s->first_window, end = begun ? s->windows.at + s->windows.n : s->next_window;
    const int64_t size = level >= 0 && level < TNN_LEVELS ? INT64_C(1) << level : 0;
    if (size == 0 || first < begin || first > end - size || first % size != 0) {
        return tnn__fail(s, TNN_E_VALUE, "first = %lld and level = %d must name a node of the tree over the windows %lld to %lld: 2^level "
                                         "windows, of which the first is a multiple of 2^level",
                         (long long) first, (int) level, (long long) begin, (long long) end - 1);
    }
    const bool right  = (first >> level & 1) != 0;
    const bool waits  = right ? first - size < begin : first > end - 2 * size;
    const float * sum = s->windows.stored[right ? TNN_LEFT : TNN_RIGHT][level];
    if (!waits || sum == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "first = %lld and level = %d name a node whose parent also lies within the windows "
                                         "%lld to %lld; use the largest node that contains window %lld and lies within these windows",
                         (long long) first, (int) level, (long long) begin, (long long) end - 1, (long long) first);
    }
    if (at < 0 || n < 0 || n > (int64_t) s->stored_size || at > (int64_t) s->stored_size - n || (n > 0 && data == NULL)) {
        return tnn__fail(s, TNN_E_VALUE, "at = %lld and n = %lld must lie within the %lld elements of a node", (long long) at,
                         (long long) n, (long long) s->stored_size);
    }
    if (begun && !are_complete(s, at, n)) {
        return tnn__fail(s, TNN_E_STATE, "at = %lld and n = %lld belong to a gradient that is not complete; call tnn_continue_step for "
                                         "its parameter first", (long long) at, (long long) n);
    }
    for (int64_t i = 0; i < n; i++) {
        data[i] = tnn__canonical_nan(sum[at + i]);
    }
    return TNN_OK;
}
