/* kernels/linear.c - y = x W^T + b for several weights at once, and its gradients.
 *
 * Operands of LINEAR: x, weights..., biases..., what to add. The outputs of the weights lie side by side in a row of y.
 */
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/vec8.h"

void tnn__linear(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * x = dst->src[0];
    const struct ggml_tensor * add = k->has_add ? dst->src[1 + k->n_weights * (k->has_bias ? 2 : 1)] : NULL;
    int64_t column = 0;
    for (int i = 0; i < k->n_weights; i++) {
        const struct ggml_tensor * w = dst->src[1 + i];
        const struct tnn_gemm g = {
            .m = x->ne[1], .n = w->ne[1], .k = w->ne[0],
            .a = tnn__data(x), .a_row = x->ne[0], .a_col = 1,
            .b = tnn__data(w), .b_row = 1, .b_col = w->ne[0], /* W^T */
            .c = (float *) dst->data + column, .c_row = dst->ne[0],
            .bias = k->has_bias ? tnn__data(dst->src[1 + k->n_weights + i]) : NULL,
            .add  = add != NULL ? tnn__data(add) + column : NULL,
        };
        tnn__gemm_share(&g, ith, nth, scratch);
        column += w->ne[1];
    }
}

/* dx = sum over the weights of dy W (+ add). Operands: dy, weights..., add. One chain through all weights. */
void tnn__linear_back_x(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * dy  = dst->src[0];
    const struct ggml_tensor * add = k->has_add ? dst->src[1 + k->n_weights] : NULL;
    int64_t column = 0;
    for (int i = 0; i < k->n_weights; i++) {
        const struct ggml_tensor * w = dst->src[1 + i];
        const struct tnn_gemm g = {
            .m = dst->ne[1], .n = dst->ne[0], .k = w->ne[1],
            .a = tnn__data(dy) + column, .a_row = dy->ne[0], .a_col = 1,
            .b = tnn__data(w), .b_row = w->ne[0], .b_col = 1,
            .c = dst->data, .c_row = dst->ne[0],
            .accumulate = i > 0,
            .add = add != NULL && i == k->n_weights - 1 ? tnn__data(add) : NULL,
        };
        tnn__gemm_share(&g, ith, nth, scratch);
        column += w->ne[1];
    }
}

/* dW = dy^T x, over the columns of dy that are this weight's. Operands: [dW so far,] dy, x. */
void tnn__linear_back_w(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * dy = dst->src[k->continues ? 1 : 0];
    const struct ggml_tensor * x  = dst->src[k->continues ? 2 : 1];
    const struct tnn_gemm g = {
        .m = dst->ne[1], .n = dst->ne[0], .k = x->ne[1],
        .a = tnn__data(dy) + k->column, .a_row = 1, .a_col = dy->ne[0], /* dy^T */
        .b = tnn__data(x), .b_row = x->ne[0], .b_col = 1,
        .c = dst->data, .c_row = dst->ne[0],
        .accumulate = tnn__grad_goes_on(k),
    };
    tnn__gemm_share(&g, ith, nth, scratch);
}

/* db = the rows of dy summed, in their order, over the columns that are this bias's. Operands: [db so far,] dy. */
void tnn__linear_back_bias(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct ggml_tensor * dy = dst->src[k->continues ? 1 : 0];
    float * db = dst->data;
    int64_t begin, end;
    tnn__part(dst->ne[0], 16, ith, nth, &begin, &end);
    if (!tnn__grad_goes_on(k)) {
        memset(db + begin, 0, (size_t) (end - begin) * sizeof(float));
    }
    for (int64_t row = 0; row < dy->ne[1]; row++) {
        const float * g = tnn__data(dy) + row * dy->ne[0] + k->column;
        for (int64_t j = begin; j < end; j++) {
            db[j] += g[j];
        }
    }
}
