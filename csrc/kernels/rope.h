/* kernels/rope.h - rotary position embedding. */
#ifndef TNN_ROPE_H
#define TNN_ROPE_H

#include <stdbool.h>
#include <stdint.h>

/* Rotates rows of x, each by its row of a RoPE table [d, rows], and multiplies them by scale. Element i is paired with
 * element i + d/2 (NEOX). inverse: rotate in the opposite direction. x_row and out_row are the distances between two
 * rows. */
void tnn__rotate(const float * x, int64_t x_row, const float * table, int64_t rows, int64_t d, bool inverse, float scale, float * out,
                 int64_t out_row);

#endif
