/* memory/caches.c - the caches of keys and values: persistent tensors that start as zeros, and whose pages get memory from
 * the system only when they are first written. A cache can hold the longest text, and most texts are shorter. */
#include "memory/caches.h"

#include "graph/handles.h"
#include "memory/allocate.h"

#include <stdlib.h>

#define WHAT "the caches of keys and values"

static void set_rows(struct ggml_tensor * t, int64_t rows) {
    t->ne[1] = rows;
    t->nb[2] = t->nb[1] * (size_t) rows;
    t->nb[3] = t->nb[2];
}

static size_t padded(const struct ggml_tensor * t, size_t align) {
    return GGML_PAD(ggml_nbytes(t), align);
}

/* Gives each cache memory for this number of rows; 0: for its present number of rows. If memory runs out, nothing changes. */
static int place(tnn_session * s, int64_t rows) {
    const size_t align = ggml_backend_buft_get_alignment(ggml_backend_cpu_buffer_type());
    size_t       size  = 0;
    for (int64_t i = 0; i < s->weights.n; i++) {
        struct ggml_tensor t = *s->weights.entries[i].tensor;
        if (s->weights.entries[i].is_cache) {
            set_rows(&t, rows > 0 ? rows : t.ne[1]);
            size += padded(&t, align);
        }
    }
    if (size == 0) {
        return TNN_OK;
    }
    struct tnn_reserve reserve = { 0 };
    char * const memory = tnn__zeroed_alloc(s, size + align, WHAT);
    if (memory == NULL || !tnn__reserve_for_ggml(s, &reserve, (struct tnn_needs) { .small = 1 })) {
        free(memory);
        return s->code;
    }
    char * at = (char *) GGML_PAD((uintptr_t) memory, align);
    ggml_backend_buffer_t buffer = ggml_backend_cpu_buffer_from_ptr(at, size);
    tnn__reserve_close(&reserve);
    for (int64_t i = 0; i < s->weights.n; i++) {
        struct ggml_tensor * t = s->weights.entries[i].tensor;
        if (s->weights.entries[i].is_cache) {
            set_rows(t, rows > 0 ? rows : t->ne[1]);
            t->buffer = NULL;
            t->data   = NULL;
            ggml_backend_tensor_alloc(buffer, t, at);
            at += padded(t, align);
        }
    }
    ggml_backend_buffer_free(s->buf_caches);
    free(s->caches);
    s->buf_caches = buffer;
    s->caches     = memory;
    return TNN_OK;
}

int tnn__place_caches(tnn_session * s) {
    return place(s, 0);
}

int tnn_resize_kv_caches(tnn_session * s, int64_t rows) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BUILD || s->ctx_c != NULL) {
        return tnn__fail(s, TNN_E_STATE, "caches can be resized only after tnn_finalize_weights or tnn_reset_for_rebuild, and before "
                                         "the first tensor of a graph is declared");
    }
    if (s->caches == NULL) {
        return tnn__fail(s, TNN_E_STATE, "this session has no caches; declare them with tnn_kv_cache");
    }
    int64_t most = TNN_MAX_ELEMENTS;
    for (int64_t i = 0; i < s->weights.n; i++) {
        const struct tnn_entry * e = &s->weights.entries[i];
        if (e->is_cache && TNN_MAX_ELEMENTS / e->tensor->ne[0] < most) {
            most = TNN_MAX_ELEMENTS / e->tensor->ne[0];
        }
    }
    if (rows < 1 || rows > most) {
        return tnn__fail(s, TNN_E_VALUE, "rows = %lld must be between 1 and %lld", (long long) rows, (long long) most);
    }
    return place(s, rows);
}
