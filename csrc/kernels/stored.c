/* kernels/stored.c - converts rows of a stored matrix to f32 while a product packs them. */
#include "kernels/stored.h"

#include <string.h>

#include "ggml.h"

static void copy_f32(const void * from, float * to, int64_t n) {
    memcpy(to, from, (size_t) n * sizeof(float));
}

struct tnn_stored tnn__stored(const struct ggml_tensor * w, bool transposed, int64_t head) {
    if (w->type == GGML_TYPE_F32 && head == 0) {
        return (struct tnn_stored) { .data = NULL };
    }
    const struct ggml_type_traits * traits = ggml_get_type_traits(w->type);
    return (struct tnn_stored) {
        .data = w->data, .row_nbytes = w->nb[1], .row_size = w->ne[0], .block = traits->blck_size,
        .block_nbytes = (int64_t) traits->type_size, .to_float = w->type == GGML_TYPE_F32 ? copy_f32 : traits->to_float,
        .transposed = transposed, .head = head,
    };
}

/* The interleaved order has the rows 0, d/2, 1, d/2 + 1, ... of a head of d rows. */
static int64_t place_of_row(int64_t row, int64_t head) {
    const int64_t i = row % head, half = head / 2;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}

const float * tnn__stored_row(const struct tnn_stored * w, int64_t row, int64_t begin, int64_t n, float * stage) {
    /* Numbers of blocks. A row consists of whole blocks. */
    const int64_t first = begin / w->block, end = (begin + n + w->block - 1) / w->block;
    const int64_t place = w->head > 0 ? place_of_row(row, w->head) : row;
    w->to_float(w->data + (size_t) place * w->row_nbytes + (size_t) (first * w->block_nbytes), stage, (end - first) * w->block);
    return stage + (begin - first * w->block);
}
