/* kernels/rms_norm.c - RMSNorm, SwiGLU and the embedding's gradient: kernels that go row by row, or down columns in row order. */
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/vec8.h"

/* Runs body with i for whole vectors of a row, then once for its rest, of n; LOAD and STORE know which. */
#define EACH_VECTOR(size, ...)                                       \
    {                                                                \
        int64_t i = 0;                                               \
        for (; i + V8_LANES <= (size); i += V8_LANES) {              \
            const bool    whole = true;                              \
            const int64_t n     = V8_LANES;                          \
            __VA_ARGS__                                              \
        }                                                            \
        if (i < (size)) {                                            \
            const bool    whole = false;                             \
            const int64_t n     = (size) - i;                        \
            __VA_ARGS__                                              \
        }                                                            \
    }
#define LOAD(p)     (whole ? v8_load((p) + i) : v8_load_part((p) + i, n, 0.0f))
#define STORE(p, v) (whole ? v8_store((p) + i, (v)) : v8_store_part((p) + i, n, (v)))

static float reciprocal_rms(const float * x, int64_t d, float eps) {
    v8f sum = v8_set1(0.0f);
    EACH_VECTOR(d, { const v8f a = LOAD(x); sum = v8_fma(a, a, sum); })
    return 1.0f / sqrtf(v8_sum(sum) / (float) d + eps);
}

/* y = x / rms(x) * gamma. Operands: x, gamma. */
void tnn__rms_norm(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t d = dst->ne[0];
    const float * gamma = tnn__data(dst->src[1]);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * x = tnn__data(dst->src[0]) + row * d;
        float       * y = (float *) dst->data + row * d;
        const v8f     r = v8_set1(reciprocal_rms(x, d, k->eps));
        EACH_VECTOR(d, { STORE(y, LOAD(x) * r * LOAD(gamma)); })
    }
}

/* dx = r (g - x r^2 mean(g x)) (+ add), with g = dy * gamma and r = 1 / rms(x). Operands: dy, x, gamma, add. */
void tnn__rms_norm_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t d = dst->ne[0];
    const float * gamma = tnn__data(dst->src[2]);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * dy  = tnn__data(dst->src[0]) + row * d;
        const float * x   = tnn__data(dst->src[1]) + row * d;
        const float * add = k->has_add ? tnn__data(dst->src[3]) + row * d : NULL;
        float       * dx  = (float *) dst->data + row * d;
        const float   r   = reciprocal_rms(x, d, k->eps);
        v8f dot = v8_set1(0.0f);
        EACH_VECTOR(d, { dot = v8_fma(LOAD(dy) * LOAD(gamma), LOAD(x), dot); })
        const v8f scale = v8_set1(r), slope = v8_set1(-(r * r) * (v8_sum(dot) / (float) d));
        EACH_VECTOR(d, {
            const v8f g = v8_fma(LOAD(x), slope, LOAD(dy) * LOAD(gamma)) * scale;
            STORE(dx, add != NULL ? g + LOAD(add) : g);
        })
    }
}

/* dgamma = sum over rows of dy * x / rms(x), in their order. Operands: [dgamma so far,] dy, x. A thread owns columns. */
void tnn__rms_norm_back_gamma(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct ggml_tensor * dy = dst->src[k->continues ? 1 : 0];
    const struct ggml_tensor * x  = dst->src[k->continues ? 2 : 1];
    const int64_t d = dst->ne[0];
    int64_t begin, end;
    tnn__part(d, 16, ith, nth, &begin, &end);
    if (begin == end) {
        return;
    }
    float * dgamma = (float *) dst->data + begin;
    if (!tnn__grad_goes_on(k)) {
        memset(dgamma, 0, (size_t) (end - begin) * sizeof(float));
    }
    for (int64_t row = 0; row < x->ne[1]; row++) {
        const float * xr = tnn__data(x) + row * d;
        const float * g  = tnn__data(dy) + row * d + begin;
        const v8f     r  = v8_set1(reciprocal_rms(xr, d, k->eps));
        xr += begin;
        EACH_VECTOR(end - begin, { STORE(dgamma, v8_fma(LOAD(g) * r, LOAD(xr), LOAD(dgamma))); })
    }
}

static v8f sigmoid(v8f x) {
    const v8f one = v8_set1(1.0f);
    return one / (one + v8_exp(-x));
}

/* y = silu(gate) * up. Operand: rows of gate, then up. */
void tnn__swiglu(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) k;
    (void) scratch;
    const int64_t d_ff = dst->ne[0];
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * gate = tnn__data(dst->src[0]) + row * 2 * d_ff;
        const float * up   = gate + d_ff;
        float       * y    = (float *) dst->data + row * d_ff;
        EACH_VECTOR(d_ff, { const v8f g = LOAD(gate); STORE(y, g * sigmoid(g) * LOAD(up)); })
    }
}

/* With s = sigmoid(gate): dgate = dy up s (1 + gate (1 - s)), dup = dy gate s. Operands: dy, rows of gate, then up. */
void tnn__swiglu_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) k;
    (void) scratch;
    const int64_t d_ff = dst->ne[0] / 2;
    const v8f one = v8_set1(1.0f);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * dy    = tnn__data(dst->src[0]) + row * d_ff;
        const float * gate  = tnn__data(dst->src[1]) + row * 2 * d_ff;
        const float * up    = gate + d_ff;
        float       * dgate = (float *) dst->data + row * 2 * d_ff; /* may be where gate and up lie */
        float       * dup   = dgate + d_ff;
        EACH_VECTOR(d_ff, {
            const v8f g = LOAD(gate), u = LOAD(up), dv = LOAD(dy);
            const v8f s = sigmoid(g);
            STORE(dgate, dv * u * s * v8_fma(g, one - s, one));
            STORE(dup, dv * g * s);
        })
    }
}

/* The gradient of an embedding: each row of dy is added to the row of its id, in their order. Operands: [d so far,] dy, ids.
 * A thread owns rows of the table. */
void tnn__embedding_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct ggml_tensor * dy  = dst->src[k->continues ? 1 : 0];
    const int32_t            * ids = dst->src[k->continues ? 2 : 1]->data;
    const int64_t d = dst->ne[0];
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    if (!tnn__grad_goes_on(k)) {
        memset((float *) dst->data + begin * d, 0, (size_t) ((end - begin) * d) * sizeof(float));
    }
    for (int64_t row = 0; row < dy->ne[1]; row++) {
        if (ids[row] >= begin && ids[row] < end) {
            const float * g  = tnn__data(dy) + row * d;
            float       * to = (float *) dst->data + ids[row] * d;
            EACH_VECTOR(d, { STORE(to, LOAD(to) + LOAD(g)); })
        }
    }
}
