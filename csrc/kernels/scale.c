/* kernels/scale.c - y = factor x. */
#include "graph/gradients.h"
#include "kernels/each_vector.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "ops/operands.h"

/* Computes y = factor x. Operand: x, [columns, rows]. The gradient of x is computed in the same way from the gradient
 * of y. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const v8f factor = v8_set1(*(const float *) k->params);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    const int64_t count = (end - begin) * dst->ne[0];
    const float * x = tnn__data(dst->src[0]) + begin * dst->ne[0]; /* x may be the same memory as y */
    float       * y = (float *) dst->data + begin * dst->ne[0];
    EACH_VECTOR(count, { STORE(y, factor * LOAD(x)); })
}

static const struct tnn_kernel_type SCALE_BACK = {
    .name = "FUSED_SCALE_BACK", .run = run, .in_place = TNN_OPERAND(0), .params_size = sizeof(float),
};

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    tnn__add_gradient(g, node->src[0], &SCALE_BACK, tnn__kernel_of(node)->params, &grad, 1);
}

static const struct tnn_kernel_type SCALE = {
    .name = "FUSED_SCALE", .run = run, .backward = backward, .differentiable = TNN_OPERAND(0), .in_place = TNN_OPERAND(0),
    .params_size = sizeof(float),
};

tnn_tensor tnn_fused_scale(tnn_session * s, tnn_tensor x, float factor) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * t = tnn__rows_operand(s, "x", x);
    if (t == NULL || !tnn__want_finite(s, "factor", factor) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__handle(s, tnn__kernel_node(s, &SCALE, &factor, t->ne[0], t->ne[1], &t, 1));
}
