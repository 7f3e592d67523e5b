/* kernels/swiglu.c - SwiGLU: silu(gate) * up. */
#include "graph/gradients.h"
#include "kernels/gated.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/row_loops.h"

/* Computes y = silu(gate) * up. Operand: [2 d_ff, rows], each row holds its gate, then its up. */
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
        tnn__row_loops()->swiglu(gate, up, y, d_ff);
    }
}

/* Computes, with s = sigmoid(gate), dgate = dy up s (1 + gate (1 - s)) and dup = dy gate s. Operands: dy, the operand
 * of y. */
static void run_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) k;
    (void) scratch;
    const int64_t d_ff = dst->ne[0] / 2;
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * dy    = tnn__data(dst->src[0]) + row * d_ff;
        const float * gate  = tnn__data(dst->src[1]) + row * 2 * d_ff;
        const float * up    = gate + d_ff;
        float       * dgate = (float *) dst->data + row * 2 * d_ff;
        float       * dup   = dgate + d_ff;
        tnn__row_loops()->swiglu_back(dy, gate, up, dgate, dup, d_ff);
    }
}

static const struct tnn_kernel_type SWIGLU_BACK = { .name = "SWIGLU_BACK", .run = run_back, .in_place = TNN_OPERAND(1) };

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * args[] = { grad, node->src[0] };
    tnn__add_gradient(g, node->src[0], &SWIGLU_BACK, NULL, args, 2);
}

static const struct tnn_kernel_type SWIGLU = {
    .name = "SWIGLU", .run = run, .backward = backward, .differentiable = TNN_OPERAND(0),
};

tnn_tensor tnn_fused_swiglu(tnn_session * s, tnn_tensor gate_up) {
    return tnn__enter(s, __func__) ? tnn__gated_node(s, &SWIGLU, gate_up) : 0;
}
