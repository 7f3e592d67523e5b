/* kernels/stored.c - converts rows of a stored matrix to f32 while a product packs them. */
#include "kernels/stored.h"

#include "kernels/vec8.h"

#include <string.h>

static void copy_f32(const void * from, float * to, int64_t n) {
    memcpy(to, from, (size_t) n * sizeof(float));
}

void tnn__f16_to_f32(const void * from, float * to, int64_t n) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + V8_LANES <= n; i += V8_LANES) {
        const __m128i half = _mm_loadu_si128((const __m128i *) ((const uint16_t *) from + i));
        v8_store(to + i, (v8f) _mm256_cvtph_ps(half));
    }
#endif
    for (; i < n; i++) {
        to[i] = ggml_fp16_to_fp32(((const uint16_t *) from)[i]);
    }
}

struct tnn_stored tnn__stored(const struct ggml_tensor * w, bool transposed, int64_t head) {
    if (w->type == GGML_TYPE_F32 && head == 0) {
        return (struct tnn_stored) { .data = NULL };
    }
    const struct ggml_type_traits * traits = ggml_get_type_traits(w->type);
    return (struct tnn_stored) {
        .data = w->data, .type = w->type, .row_nbytes = w->nb[1], .row_size = w->ne[0], .block = traits->blck_size,
        .block_nbytes = (int64_t) traits->type_size,
        .to_float = w->type == GGML_TYPE_F32 ? copy_f32 : w->type == GGML_TYPE_F16 ? tnn__f16_to_f32 : traits->to_float,
        .transposed = transposed, .head = head,
    };
}

/* The interleaved order has the rows 0, d/2, 1, d/2 + 1, ... of a head of d rows. */
static int64_t place_of_row(int64_t row, int64_t head) {
    const int64_t i = row % head, half = head / 2;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}

const char * tnn__stored_block(const struct tnn_stored * w, int64_t row, int64_t block) {
    const int64_t place = w->head > 0 ? place_of_row(row, w->head) : row;
    return w->data + (size_t) place * w->row_nbytes + (size_t) (block * w->block_nbytes);
}

bool tnn__stored_stride(const struct tnn_stored * w, int64_t row, int64_t n, size_t * stride) {
    if (w->head == 0) {
        *stride = w->row_nbytes;
        return true;
    }
    *stride = 2 * w->row_nbytes;
    return row % (w->head / 2) + n <= w->head / 2; /* all rows are in the same half of a head */
}

const float * tnn__stored_row(const struct tnn_stored * w, int64_t row, int64_t begin, int64_t n, float * stage) {
    /* the indices of the first block and of the block after the last; a row consists of whole blocks */
    const int64_t first = begin / w->block, end = (begin + n + w->block - 1) / w->block;
    w->to_float(tnn__stored_block(w, row, first), stage, (end - first) * w->block);
    return stage + (begin - first * w->block);
}
