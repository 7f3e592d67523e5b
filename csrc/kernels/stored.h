/* kernels/stored.h - matrices that are stored in another type than f32, for example quantized, as operands of products. */
#ifndef TNN_STORED_H
#define TNN_STORED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ggml.h"

/* A matrix whose rows are stored in another type than f32, for example quantized. Rows are converted while panels are packed, so the
 * bits of a product are those of the product with the converted matrix. */
struct tnn_stored {
    const char * data; /* NULL: there is no stored matrix */
    enum ggml_type type;
    size_t       row_nbytes;
    int64_t      row_size;            /* elements of a row */
    int64_t      block, block_nbytes; /* numbers of elements and of bytes that are converted together */
    void (*to_float)(const void * from, float * to, int64_t n);
    bool         transposed; /* B is the transpose of the matrix, so the rows of the matrix run along k */
    int64_t      first;      /* column 0 of B is this row (if transposed) or this column of the matrix */
    int64_t      head;       /* rows of a head, if the rows of each head are stored in interleaved order; otherwise 0 */
};

/* Describes a weight as the operand B of a product: the weight itself, or its transpose. The result has no data if the weight
 * is f32 and its rows are in order (head is 0). */
struct tnn_stored tnn__stored(const struct ggml_tensor * w, bool transposed, int64_t head);

/* Converts n elements of a row, from element begin on, and returns their address in the stage. Whole blocks are converted, so the
 * stage must have space for n elements and for a block at both ends. */
const float * tnn__stored_row(const struct tnn_stored * w, int64_t row, int64_t begin, int64_t n, float * stage);

/* Converts n f16 numbers to f32. */
void tnn__f16_to_f32(const void * from, float * to, int64_t n);

/* Returns the address of a block of a row. */
const char * tnn__stored_block(const struct tnn_stored * w, int64_t row, int64_t block);

/* Returns whether n rows, from `row` on, are stored in order, at equal distances. Writes the distance in bytes to stride. */
bool tnn__stored_stride(const struct tnn_stored * w, int64_t row, int64_t n, size_t * stride);

#endif
