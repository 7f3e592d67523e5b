/* kernels/stored.c - converts rows of a stored matrix to f32 while a product packs them. */
#include "kernels/stored.h"

#include "ggml.h"

struct tnn_stored tnn__stored(const struct ggml_tensor * w, bool transposed) {
    if (w->type == GGML_TYPE_F32) {
        return (struct tnn_stored) { .data = NULL };
    }
    const struct ggml_type_traits * traits = ggml_get_type_traits(w->type);
    return (struct tnn_stored) {
        .data = w->data, .row_nbytes = w->nb[1], .row_size = w->ne[0], .block = traits->blck_size,
        .block_nbytes = (int64_t) traits->type_size, .to_float = traits->to_float, .transposed = transposed,
    };
}

const float * tnn__stored_row(const struct tnn_stored * w, int64_t row, int64_t begin, int64_t n, float * stage) {
    const int64_t first = begin / w->block, end = (begin + n + w->block - 1) / w->block; /* blocks; a row has whole ones */
    w->to_float(w->data + (size_t) row * w->row_nbytes + (size_t) (first * w->block_nbytes), stage, (end - first) * w->block);
    return stage + (begin - first * w->block);
}
