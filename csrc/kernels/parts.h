/* kernels/parts.h - how work is divided among threads. */
#ifndef TNN_PARTS_H
#define TNN_PARTS_H

#include <stdint.h>

static inline int64_t tnn__min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* Divides 0..n into nth nearly equal parts at multiples of unit, and returns the ends of part ith. */
static inline void tnn__part(int64_t n, int64_t unit, int ith, int nth, int64_t * begin, int64_t * end) {
    const int64_t units = (n + unit - 1) / unit;
    *begin = units * ith / nth * unit;
    *end   = units * (ith + 1) / nth * unit;
    *begin = *begin < n ? *begin : n;
    *end   = *end < n ? *end : n;
}

#endif
