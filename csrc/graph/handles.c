/* graph/handles.c - handles, the numbers that stand for tensors outside of the shim.
 *
 * A handle contains the serial number of its session and the generation of its graph, so that a foreign or stale handle
 * is recognised. */
#include "graph/handles.h"

#include <stdio.h>
#include <stdlib.h>

static tnn_tensor make_handle(const tnn_session * s, uint64_t generation, int64_t index) {
    return (tnn_tensor) ((s->serial << (TNN_GENERATION_BITS + TNN_INDEX_BITS)) | (generation << TNN_INDEX_BITS) | (uint64_t) (index + 1));
}

struct tnn_entry * tnn__entry(tnn_session * s, const char * arg, tnn_tensor h) {
    if (h <= 0) {
        tnn__fail(s, TNN_E_TYPE, "%s = %lld is not a tensor handle; pass the result of a call that returns a tensor", arg, (long long) h);
        return NULL;
    }
    const uint64_t bits       = (uint64_t) h;
    const uint64_t serial     = bits >> (TNN_GENERATION_BITS + TNN_INDEX_BITS);
    const uint64_t generation = (bits >> TNN_INDEX_BITS) & TNN_BITS(TNN_GENERATION_BITS);
    const int64_t  index      = (int64_t) (bits & TNN_BITS(TNN_INDEX_BITS)) - 1;
    if (serial != s->serial) {
        tnn__fail(s, TNN_E_STATE, "%s is a tensor of another session; pass a tensor of this session", arg);
        return NULL;
    }
    if (generation != 0 && generation != s->generation) {
        tnn__fail(s, TNN_E_STATE, "%s is a stale handle: its graph was dropped by tnn_reset_for_rebuild; use a tensor "
                                  "of the current graph", arg);
        return NULL;
    }
    struct tnn_table * table = generation == 0 ? &s->weights : &s->nodes;
    if (index < 0 || index >= table->n) {
        tnn__fail(s, TNN_E_TYPE, "%s = %lld is not a tensor handle; pass the result of a call that returns a tensor", arg, (long long) h);
        return NULL;
    }
    return &table->entries[index];
}

struct ggml_tensor * tnn__tensor(tnn_session * s, const char * arg, tnn_tensor h) {
    struct tnn_entry * e = tnn__entry(s, arg, h);
    /* Some operators have a source that is only memory for their result. tnn_tensor_src returns a handle for such
     * a source too. */
    if (e != NULL && e->tensor->op == GGML_OP_NONE && !e->is_input) {
        tnn__fail(s, TNN_E_VALUE, "%s is internal memory of an operator, not a tensor with values; use the result of the operator", arg);
        return NULL;
    }
    return e != NULL ? e->tensor : NULL;
}

/* ggml leaves the use of tensor->extra to the owner of the buffer, so the shim stores the handle there. */
static tnn_tensor stored_handle(const struct ggml_tensor * t) {
    return (tnn_tensor) (intptr_t) t->extra;
}

struct tnn_entry * tnn__entry_of(tnn_session * s, const struct ggml_tensor * t) {
    const uint64_t bits = (uint64_t) stored_handle(t);
    if (bits == 0) {
        return NULL;
    }
    struct tnn_table * table = ((bits >> TNN_INDEX_BITS) & TNN_BITS(TNN_GENERATION_BITS)) == 0 ? &s->weights : &s->nodes;
    return &table->entries[(int64_t) (bits & TNN_BITS(TNN_INDEX_BITS)) - 1];
}

bool tnn__is_persistent(const struct ggml_tensor * t) {
    const uint64_t bits = (uint64_t) stored_handle(t);
    return bits != 0 && ((bits >> TNN_INDEX_BITS) & TNN_BITS(TNN_GENERATION_BITS)) == 0;
}

bool tnn__is_matrix_type(int32_t dtype) {
    if (dtype == TNN_F32 || dtype == TNN_F16 || dtype == TNN_BF16) {
        return true;
    }
    return dtype >= 0 && dtype < GGML_TYPE_COUNT && ggml_is_quantized((enum ggml_type) dtype)
        && ggml_get_type_traits((enum ggml_type) dtype)->to_float != NULL && ggml_get_type_traits_cpu((enum ggml_type) dtype)->vec_dot != NULL;
}

bool tnn__table_grow(tnn_session * s, struct tnn_table * table) {
    if (table->n < table->size) {
        return true;
    }
    const int64_t size = table->size > 0 ? 2 * table->size : 256;
    struct tnn_entry * entries = realloc(table->entries, (size_t) size * sizeof(*entries));
    if (entries == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "cannot allocate %lld tensor handles: out of memory", (long long) size);
        return false;
    }
    table->entries = entries;
    table->size    = size;
    return true;
}

tnn_tensor tnn__table_add(tnn_session * s, struct tnn_table * table, uint64_t generation, struct ggml_tensor * t) {
    if (!tnn__table_grow(s, table)) {
        return 0;
    }
    const tnn_tensor h = make_handle(s, generation, table->n);
    table->entries[table->n++] = (struct tnn_entry) { .tensor = t, .is_input = false, .uploaded = false };
    t->extra = (void *) (intptr_t) h;
    return h;
}

tnn_tensor tnn__handle(tnn_session * s, struct ggml_tensor * t) {
    if (t == NULL) {
        return 0;
    }
    return t->extra != NULL ? stored_handle(t) : tnn__table_add(s, &s->nodes, s->generation, t);
}

struct tnn_shape tnn__shape_of(const struct ggml_tensor * t) {
    struct tnn_shape shape;
    const int        n    = ggml_n_dims(t);
    int              used = snprintf(shape.text, sizeof(shape.text), "[%lld", (long long) t->ne[0]);
    for (int i = 1; i < n; i++) {
        used += snprintf(shape.text + used, sizeof(shape.text) - (size_t) used, ", %lld", (long long) t->ne[i]);
    }
    snprintf(shape.text + used, sizeof(shape.text) - (size_t) used, "]");
    return shape;
}
