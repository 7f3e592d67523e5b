/* kernels/geglu.c - GEGLU: gelu(gate) * up, with the approximation of GELU by tanh.
 *
 * gelu(x) = x (1 + tanh(z)) / 2 with z = sqrt(2 / pi) (x + 0.044715 x^3). So gelu(x) = x sigmoid(2 z), and the sigmoid gives
 * the same bits on every machine.
 */
#include "graph/gradients.h"
#include "kernels/each_vector.h"
#include "kernels/gated.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"

#define SLOPE 1.59576912f /* 2 sqrt(2 / pi) */
#define CUBE  0.0713548163f /* 0.044715 * SLOPE */

/* Returns x, limited to a range outside which sigmoid(2 z) is 0 or 1. Within the range, no step of the computation
 * overflows. NaN stays NaN. */
static v8f limited(v8f x) {
    const v8f most = v8_set1(16.0f);
    return v8_select(x > most, most, v8_select(x < -most, -most, x));
}

/* Returns sigmoid(2 z) for a limited x. */
static v8f share(v8f x) {
    return v8_sigmoid(x * v8_fma(x * x, v8_set1(CUBE), v8_set1(SLOPE)));
}

/* Computes y = gelu(gate) * up. Operand: [2 d_ff, rows], each row holds its gate, then its up. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) k;
    (void) scratch;
    const int64_t d_ff = dst->ne[0];
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * gate = tnn__data(dst->src[0]) + row * 2 * d_ff;
        const float * up   = gate + d_ff;
        float       * y    = (float *) dst->data + row * d_ff;
        EACH_VECTOR(d_ff, { const v8f g = LOAD(gate); STORE(y, g * share(limited(g)) * LOAD(up)); })
    }
}

/* Computes, with s = sigmoid(2 z), dgate = dy up (s + gate s (1 - s) d(2 z)/dgate) and dup = dy gate s. Operands: dy,
 * the operand of y. */
static void run_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) k;
    (void) scratch;
    const int64_t d_ff = dst->ne[0] / 2;
    const v8f one = v8_set1(1.0f), slope = v8_set1(SLOPE), cube3 = v8_set1(3.0f * CUBE);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * dy    = tnn__data(dst->src[0]) + row * d_ff;
        const float * gate  = tnn__data(dst->src[1]) + row * 2 * d_ff;
        const float * up    = gate + d_ff;
        float       * dgate = (float *) dst->data + row * 2 * d_ff; /* may be the same memory as gate and up */
        float       * dup   = dgate + d_ff;
        EACH_VECTOR(d_ff, {
            const v8f g = LOAD(gate), u = LOAD(up), dv = LOAD(dy);
            const v8f x = limited(g), s = share(x);
            const v8f ds = s * (one - s) * v8_fma(x * x, cube3, slope);
            STORE(dgate, dv * u * v8_fma(x, ds, s));
            STORE(dup, dv * g * s);
        })
    }
}

static const struct tnn_kernel_type GEGLU_BACK = { .name = "GEGLU_BACK", .run = run_back, .in_place = TNN_OPERAND(1) };

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * args[] = { grad, node->src[0] };
    tnn__add_gradient(g, node->src[0], &GEGLU_BACK, NULL, args, 2);
}

static const struct tnn_kernel_type GEGLU = {
    .name = "GEGLU", .run = run, .backward = backward, .differentiable = TNN_OPERAND(0),
};

tnn_tensor tnn_fused_geglu(tnn_session * s, tnn_tensor gate_up) {
    return tnn__enter(s, __func__) ? tnn__gated_node(s, &GEGLU, gate_up) : 0;
}
