/* kernels/row_loops_code.h - the code of the loops of kernels/row_loops.h, compiled once for each vector width.
 *
 * For vectors of sixteen, the file that includes this file defines FOR_SIXTEENS. The elements after the last whole vector
 * of sixteen are computed in vectors of eight. Without FOR_SIXTEENS, all elements are computed in vectors of eight.
 */
#include "kernels/each_vector.h"
#include "kernels/row_loops.h"

static float row_max(const float * x, int64_t n, float max) {
    v8f     lanes = v8_set1(max);
    int64_t begin = 0;
#ifdef FOR_SIXTEENS
    v16f wide = vec_set1(max);
    for (; begin + LANES <= n; begin += LANES) {
        wide = v16_max(v16_load(x + begin), wide);
    }
    lanes = v8_max(v16_low(wide), v16_high(wide));
#endif
    const int64_t rest = n - begin;
    EACH_VECTOR(rest, { lanes = v8_max(LOAD_OR(x + begin, -INFINITY), lanes); })
    return v8_max_lane(lanes);
}

static void add_exp(const float * x, int64_t n, float max, float * out, float lanes[V8_LANES]) {
    v8f     sum   = v8_load(lanes);
    int64_t begin = 0;
#ifdef FOR_SIXTEENS
    const v16f wide_max = vec_set1(max);
    for (; begin + LANES <= n; begin += LANES) {
        const v16f e = v16_exp(v16_load(x + begin) - wide_max);
        if (out != NULL) {
            v16_store(out + begin, e);
        }
        sum += v16_low(e);
        sum += v16_high(e);
    }
#endif
    const v8f     shift = v8_set1(max);
    const int64_t rest  = n - begin;
    EACH_VECTOR(rest, {
        const v8f e = v8_exp(LOAD_OR(x + begin, -INFINITY) - shift);
        if (out != NULL) {
            STORE(out + begin, e);
        }
        sum += e;
    })
    v8_store(lanes, sum);
}

static void normalise(float * p, const float * dp, int64_t n, float by, float lanes[V8_LANES]) {
    v8f     dot = v8_load(lanes);
    int64_t i   = 0;
#ifdef FOR_SIXTEENS
    const v16f wide_by = vec_set1(by);
    for (; i + LANES <= n; i += LANES) {
        const v16f y = v16_load(p + i) * wide_by, d = v16_load(dp + i);
        v16_store(p + i, y);
        dot = v8_fma(v16_low(y), v16_low(d), dot);
        dot = v8_fma(v16_high(y), v16_high(d), dot);
    }
#endif
    for (; i < n; i += V8_LANES) {
        const v8f y = v8_load(p + i) * v8_set1(by);
        v8_store(p + i, y);
        dot = v8_fma(y, v8_load(dp + i), dot);
    }
    v8_store(lanes, dot);
}

static void subtract_mean(const float * p, float * dp, int64_t n, float mean) {
    int64_t begin = 0;
#ifdef FOR_SIXTEENS
    const v16f wide_mean = vec_set1(mean);
    for (; begin + LANES <= n; begin += LANES) {
        v16_store(dp + begin, v16_load(p + begin) * (v16_load(dp + begin) - wide_mean));
    }
#endif
    const v8f     shift = v8_set1(mean);
    const int64_t rest  = n - begin;
    EACH_VECTOR(rest, { STORE(dp + begin, LOAD(p + begin) * (LOAD(dp + begin) - shift)); })
}

static void swiglu(const float * gate, const float * up, float * y, int64_t n) {
    int64_t begin = 0;
#ifdef FOR_SIXTEENS
    for (; begin + LANES <= n; begin += LANES) {
        const v16f g = v16_load(gate + begin);
        v16_store(y + begin, g * v16_sigmoid(g) * v16_load(up + begin));
    }
#endif
    const int64_t rest = n - begin;
    EACH_VECTOR(rest, { const v8f g = LOAD(gate + begin); STORE(y + begin, g * v8_sigmoid(g) * LOAD(up + begin)); })
}

static void swiglu_back(const float * dy, const float * gate, const float * up, float * dgate, float * dup, int64_t n) {
    int64_t begin = 0;
#ifdef FOR_SIXTEENS
    const v16f ones = vec_set1(1.0f);
    for (; begin + LANES <= n; begin += LANES) {
        const v16f g = v16_load(gate + begin), u = v16_load(up + begin), dv = v16_load(dy + begin);
        const v16f s = v16_sigmoid(g);
        v16_store(dgate + begin, dv * u * s * v16_fma(g, ones - s, ones));
        v16_store(dup + begin, dv * g * s);
    }
#endif
    const v8f     one  = v8_set1(1.0f);
    const int64_t rest = n - begin;
    EACH_VECTOR(rest, {
        const v8f g = LOAD(gate + begin), u = LOAD(up + begin), dv = LOAD(dy + begin);
        const v8f s = v8_sigmoid(g);
        STORE(dgate + begin, dv * u * s * v8_fma(g, one - s, one));
        STORE(dup + begin, dv * g * s);
    })
}
