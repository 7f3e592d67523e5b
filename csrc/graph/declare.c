/* graph/declare.c - makes the tensors that the caller declares, and the ggml contexts that hold them. */
#include "graph/declare.h"

#include "graph/handles.h"
#include "memory/allocate.h"
#include "memory/caches.h"
#include "memory/mapping.h"
#include "memory/release.h"

#include <stdlib.h>

/* Checks the sizes of a new tensor: every dimension is at least 1, and the number of elements fits an int. */
static bool check_sizes(tnn_session * s, const int64_t * ne, int n_dims) {
    static const char * const names[] = { "cols", "rows", "ne2", "ne3" };
    int64_t elements = 1;
    for (int i = 0; i < n_dims; i++) {
        if (ne[i] < 1) {
            tnn__fail(s, TNN_E_VALUE, "%s = %lld must be at least 1", n_dims == 1 ? "n" : names[i], (long long) ne[i]);
            return false;
        }
        if (ne[i] > TNN_MAX_ELEMENTS / elements) {
            tnn__fail(s, TNN_E_VALUE, "%s = %lld makes the tensor larger than 2^31 - 1 elements, ggml's limit",
                      n_dims == 1 ? "n" : names[i], (long long) ne[i]);
            return false;
        }
        elements *= ne[i];
    }
    return true;
}

/* Returns a ggml context that uses the memory mem, or NULL with an error. */
static struct ggml_context * context_new(tnn_session * s, size_t mem_size, void * mem) {
    struct tnn_reserve reserve = { 0 };
    if (!tnn__reserve_for_ggml(s, &reserve, (struct tnn_needs) { .small = 1 })) {
        return NULL;
    }
    const struct ggml_init_params params = { .mem_size = mem_size, .mem_buffer = mem, .no_alloc = true };
    struct ggml_context * ctx = ggml_init(params);
    tnn__reserve_close(&reserve);
    return ctx;
}

/* ------------------------------------------------------------------ weights */

#define CHUNK_TENSORS 1024

static bool reserve_weight(tnn_session * s) {
    if (s->chunks_w != NULL && s->chunks_w->n < CHUNK_TENSORS) {
        return true;
    }
    const size_t       size = CHUNK_TENSORS * ggml_tensor_overhead();
    struct tnn_chunk * c    = tnn__zeroed_alloc(s, sizeof(*c), "a list of tensor headers");
    if (c == NULL || (c->mem = tnn__aligned_alloc(s, size, "tensor headers")) == NULL) {
        free(c);
        return false;
    }
    c->ctx = context_new(s, size, c->mem);
    if (c->ctx == NULL) {
        free(c->mem);
        free(c);
        return false;
    }
    c->next     = s->chunks_w;
    s->chunks_w = c;
    return true;
}

static tnn_tensor declare_persistent(tnn_session * s, const char * call, enum ggml_type type, const int64_t * ne, int n_dims) {
    if (!tnn__enter(s, call)) {
        return 0;
    }
    if (s->stage != TNN_STAGE_DECLARE) {
        tnn__fail(s, TNN_E_STATE, "persistent tensors must be declared before tnn_finalize_weights and before the "
                                  "first tensor of a graph");
        return 0;
    }
    if (!check_sizes(s, ne, n_dims)) {
        return 0;
    }
    if (s->weights.n >= TNN_MAX_PERSISTENT) {
        tnn__fail(s, TNN_E_STATE, "a session can have at most %lld persistent tensors, and this session already has this number",
                  (long long) TNN_MAX_PERSISTENT);
        return 0;
    }
    if (!reserve_weight(s) || !tnn__table_grow(s, &s->weights)) {
        return 0;
    }
    struct ggml_tensor * t = ggml_new_tensor(s->chunks_w->ctx, type, n_dims, ne);
    s->chunks_w->n++;
    const tnn_tensor h = tnn__table_add(s, &s->weights, 0, t);
    s->weights.entries[s->weights.n - 1].is_input = true;
    s->weights.entries[s->weights.n - 1].uploaded = true; /* zeros */
    return h;
}

tnn_tensor tnn_input_1d_f32_persistent(tnn_session * s, int64_t n) {
    const int64_t ne[] = { n };
    return declare_persistent(s, __func__, GGML_TYPE_F32, ne, 1);
}

tnn_tensor tnn_input_2d_f32_persistent(tnn_session * s, int64_t rows, int64_t cols) {
    const int64_t ne[] = { cols, rows };
    return declare_persistent(s, __func__, GGML_TYPE_F32, ne, 2);
}

tnn_tensor tnn_input_3d_f32_persistent(tnn_session * s, int64_t ne2, int64_t rows, int64_t cols) {
    const int64_t ne[] = { cols, rows, ne2 };
    return declare_persistent(s, __func__, GGML_TYPE_F32, ne, 3);
}

tnn_tensor tnn_input_4d_f32_persistent(tnn_session * s, int64_t ne3, int64_t ne2, int64_t rows, int64_t cols) {
    const int64_t ne[] = { cols, rows, ne2, ne3 };
    return declare_persistent(s, __func__, GGML_TYPE_F32, ne, 4);
}

tnn_tensor tnn_input_1d_i32_persistent(tnn_session * s, int64_t n) {
    const int64_t ne[] = { n };
    return declare_persistent(s, __func__, GGML_TYPE_I32, ne, 1);
}

tnn_tensor tnn_input_2d_persistent_typed(tnn_session * s, int64_t rows, int64_t cols, int32_t dtype) {
    const int64_t ne[] = { cols, rows };
    if (dtype != TNN_F32 && dtype != TNN_F16 && dtype != TNN_BF16) {
        if (tnn__enter(s, __func__)) {
            tnn__fail(s, TNN_E_TYPE, "dtype = %d must be 0 (F32), 1 (F16) or 30 (BF16)", (int) dtype);
        }
        return 0;
    }
    return declare_persistent(s, __func__, (enum ggml_type) dtype, ne, 2);
}

tnn_tensor tnn_kv_cache(tnn_session * s, int64_t rows, int64_t cols, int32_t dtype) {
    const int64_t ne[] = { cols, rows };
    if (dtype != TNN_F32 && dtype != TNN_F16) {
        if (tnn__enter(s, __func__)) {
            tnn__fail(s, TNN_E_TYPE, "dtype = %d must be 0 (F32) or 1 (F16)", (int) dtype);
        }
        return 0;
    }
    const tnn_tensor h = declare_persistent(s, __func__, (enum ggml_type) dtype, ne, 2);
    if (h != 0) {
        s->weights.entries[s->weights.n - 1].is_cache = true;
    }
    return h;
}

/* Declares a weight whose memory is at an offset of the file that was attached last. */
static tnn_tensor declare_mapped(tnn_session * s, const char * call, int32_t dtype, int64_t offset, const int64_t * ne, int n_dims) {
    if (!tnn__enter(s, call)) {
        return 0;
    }
    if (!tnn__is_matrix_type(dtype)) {
        tnn__fail(s, TNN_E_TYPE, "dtype = %d must be 0 (F32), 1 (F16), 30 (BF16) or a quantized type that ggml "
                                 "multiplies", (int) dtype);
        return 0;
    }
    const enum ggml_type type  = (enum ggml_type) dtype;
    const int64_t        block = ggml_blck_size(type);
    if (!check_sizes(s, ne, n_dims)) {
        return 0;
    }
    if (ne[0] % block != 0) {
        tnn__fail(s, TNN_E_VALUE, "a row has %lld elements, but the number must be a multiple of %lld, the block size of %s",
                  (long long) ne[0],
                  (long long) block, ggml_type_name(type));
        return 0;
    }
    size_t nbytes = ggml_row_size(type, ne[0]);
    for (int i = 1; i < n_dims; i++) {
        nbytes *= (size_t) ne[i];
    }
    char           * bytes = tnn__mapped_bytes(s, type, offset, nbytes);
    const tnn_tensor h     = bytes != NULL ? declare_persistent(s, call, type, ne, n_dims) : 0;
    if (h != 0) {
        struct tnn_entry * e = &s->weights.entries[s->weights.n - 1];
        e->is_mapped         = true;
        ggml_backend_tensor_alloc(tnn__mapped_buffer(s), e->tensor, bytes);
    }
    return h;
}

tnn_tensor tnn_input_1d_persistent_mmap(tnn_session * s, int64_t n, int32_t dtype, int64_t offset) {
    const int64_t ne[] = { n };
    return declare_mapped(s, __func__, dtype, offset, ne, 1);
}

tnn_tensor tnn_input_2d_persistent_mmap(tnn_session * s, int64_t rows, int64_t cols, int32_t dtype, int64_t offset) {
    const int64_t ne[] = { cols, rows };
    return declare_mapped(s, __func__, dtype, offset, ne, 2);
}

tnn_tensor tnn_input_3d_persistent_mmap(tnn_session * s, int64_t matrices, int64_t rows, int64_t cols, int32_t dtype, int64_t offset) {
    const int64_t ne[] = { cols, rows, matrices };
    return declare_mapped(s, __func__, dtype, offset, ne, 3);
}

tnn_tensor tnn_rope_freq_factors_alloc(tnn_session * s, int64_t n) {
    const int64_t ne[] = { n };
    return declare_persistent(s, __func__, GGML_TYPE_F32, ne, 1);
}

int tnn_finalize_weights(tnn_session * s) {
    if (!tnn__enter(s, "tnn_finalize_weights")) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_DECLARE) {
        return tnn__fail(s, TNN_E_STATE, "the weights are already finalized; tnn_finalize_weights must be called once, "
                                         "before the first tensor of a graph");
    }
    if (tnn__place_caches(s) != TNN_OK) {
        return s->code;
    }
    const size_t align = ggml_backend_buft_get_alignment(ggml_backend_cpu_buffer_type());
    size_t       size  = 0;
    for (int64_t i = 0; i < s->weights.n; i++) {
        const struct tnn_entry * e = &s->weights.entries[i];
        /* This sum cannot overflow: there are at most 2^21 tensors of less than 2^33 bytes. */
        size += e->is_mapped || e->is_cache ? 0 : GGML_PAD(ggml_nbytes(e->tensor), align);
    }
    if (size > 0) {
        s->buf_w = tnn__buffer_alloc(s, size, "the weights");
        if (s->buf_w == NULL) {
            return s->code;
        }
        ggml_backend_buffer_clear(s->buf_w, 0);
        char * at = ggml_backend_buffer_get_base(s->buf_w);
        for (int64_t i = 0; i < s->weights.n; i++) {
            struct ggml_tensor * t = s->weights.entries[i].tensor;
            if (s->weights.entries[i].is_mapped || s->weights.entries[i].is_cache) {
                continue;
            }
            ggml_backend_tensor_alloc(s->buf_w, t, at);
            at += GGML_PAD(ggml_nbytes(t), align);
        }
    }
    s->stage = TNN_STAGE_BUILD;
    return TNN_OK;
}

/* ------------------------------------------------------------------ the tensors of a graph */

/* The compute context has memory for `capacity` tensors and for both graphs. */
static bool open_compute_context(tnn_session * s) {
    if (s->ctx_c != NULL) {
        return true;
    }
    const size_t graph_size = (size_t) (s->capacity + s->weights.n);
    const size_t size = (size_t) s->capacity * ggml_tensor_overhead() + ggml_graph_overhead_custom(graph_size, false)
                      + ggml_graph_overhead_custom(graph_size, true) + 1024;
    s->mem_c = tnn__aligned_alloc(s, size, "a graph of this capacity");
    if (s->mem_c == NULL) {
        return false;
    }
    s->ctx_c = context_new(s, size, s->mem_c);
    if (s->ctx_c == NULL) {
        free(s->mem_c);
        s->mem_c = NULL;
        return false;
    }
    return true;
}

bool tnn__reserve_nodes(tnn_session * s, int n) {
    if (s->stage == TNN_STAGE_DECLARE && s->weights.n > 0) {
        tnn__fail_stage(s, "a graph can be built only after tnn_finalize_weights");
        return false;
    }
    /* Nodes appended after tnn_realize belong to the second forward graph. */
    if (s->stage == TNN_STAGE_BACKWARD_REALIZED || s->second_built) {
        tnn__fail_stage(s, "nodes can be appended only before the last graph is realized");
        return false;
    }
    if (!open_compute_context(s)) {
        return false;
    }
    if (s->n_tensors_c + n > s->capacity) {
        tnn__fail(s, TNN_E_STATE, "the graph is full: it has %lld tensors and its capacity is %lld; "
                  "set a larger one with tnn_session_set_graph_capacity before building the graph",
                  (long long) s->n_tensors_c, (long long) s->capacity);
        return false;
    }
    if (s->stage == TNN_STAGE_DECLARE) { /* a session without weights has nothing to finalize */
        s->stage = TNN_STAGE_BUILD;
    }
    return true;
}

static tnn_tensor declare_input(tnn_session * s, const char * call, enum ggml_type type, const int64_t * ne, int n_dims) {
    if (!tnn__enter(s, call) || !check_sizes(s, ne, n_dims) || !tnn__reserve_nodes(s, 1) || !tnn__table_grow(s, &s->nodes)) {
        return 0;
    }
    struct ggml_tensor * t = ggml_new_tensor(s->ctx_c, type, n_dims, ne);
    s->n_tensors_c++;
    ggml_set_input(t);
    const tnn_tensor h = tnn__table_add(s, &s->nodes, s->generation, t);
    s->nodes.entries[s->nodes.n - 1].is_input = true;
    return h;
}

tnn_tensor tnn_input_1d_f32(tnn_session * s, int64_t n) {
    const int64_t ne[] = { n };
    return declare_input(s, __func__, GGML_TYPE_F32, ne, 1);
}

tnn_tensor tnn_input_2d_f32(tnn_session * s, int64_t rows, int64_t cols) {
    const int64_t ne[] = { cols, rows };
    return declare_input(s, __func__, GGML_TYPE_F32, ne, 2);
}

tnn_tensor tnn_input_1d_i32(tnn_session * s, int64_t n) {
    const int64_t ne[] = { n };
    return declare_input(s, __func__, GGML_TYPE_I32, ne, 1);
}

tnn_tensor tnn_input_1d_i32_ctx(tnn_session * s, int64_t n) {
    const int64_t ne[] = { n };
    return declare_input(s, __func__, GGML_TYPE_I32, ne, 1);
}

int64_t tnn_row_size(int32_t dtype, int64_t n) {
    const bool known = dtype >= 0 && dtype < GGML_TYPE_COUNT && ggml_blck_size((enum ggml_type) dtype) > 0;
    if (!known || ggml_type_size((enum ggml_type) dtype) == 0) {
        return -TNN_E_TYPE;
    }
    if (n < 1 || n > TNN_MAX_ELEMENTS || n % ggml_blck_size((enum ggml_type) dtype) != 0) {
        return -TNN_E_VALUE;
    }
    return (int64_t) ggml_row_size((enum ggml_type) dtype, n);
}
