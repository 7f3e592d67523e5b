/* kernels/row_loops.h - the loops over a row that compute exponentials (in softmax and SwiGLU), and the loops of their gradients.
 *
 * There is one version for each vector width, compiled from kernels/row_loops_code.h. All versions compute the same bits: a
 * sum over a row has eight lanes, and element i is added to lane i % 8. The sum of a row that is computed in several parts
 * goes on in the same lanes, so each part but the last must have a multiple of eight elements.
 */
#ifndef TNN_ROW_LOOPS_H
#define TNN_ROW_LOOPS_H

#include "kernels/vec8.h"

#include <stddef.h>
#include <stdint.h>

struct tnn_row_loops {
    /* Returns the largest of max and of n elements of x. Elements that are NaN do not count. */
    float (*row_max)(const float * x, int64_t n, float max);
    /* Adds exp(x - max) of n elements to the lanes. Writes the exponentials to out if out is not NULL. out may be x. */
    void (*add_exp)(const float * x, int64_t n, float max, float * out, float lanes[V8_LANES]);
    /* Multiplies n elements of p by a number, and adds p dp to the lanes. n is a multiple of eight. */
    void (*normalise)(float * p, const float * dp, int64_t n, float by, float lanes[V8_LANES]);
    /* Replaces n elements of dp by p (dp - mean). */
    void (*subtract_mean)(const float * p, float * dp, int64_t n, float mean);
    /* Computes y = silu(gate) up for n elements. */
    void (*swiglu)(const float * gate, const float * up, float * y, int64_t n);
    /* Computes, with s = sigmoid(gate), dgate = dy up s (1 + gate (1 - s)) and dup = dy gate s for n elements. dgate
     * and dup may be the same memory as gate and up. */
    void (*swiglu_back)(const float * dy, const float * gate, const float * up, float * dgate, float * dup, int64_t n);
};

extern const struct tnn_row_loops tnn__row_loops_v8, tnn__row_loops_avx512;

/* Returns the loops for the instruction set in use. */
const struct tnn_row_loops * tnn__row_loops(void);

/* Returns the largest of n elements. */
static inline float tnn__row_max(const float * x, int64_t n) {
    return tnn__row_loops()->row_max(x, n, -INFINITY);
}

/* Returns the sum of exp(x - max) of n elements. Writes the exponentials to out if out is not NULL. out may be x. */
static inline float tnn__exp_sum(const float * x, int64_t n, float max, float * out) {
    float lanes[V8_LANES] = { 0.0f };
    tnn__row_loops()->add_exp(x, n, max, out, lanes);
    return v8_sum(v8_load(lanes));
}

#endif
