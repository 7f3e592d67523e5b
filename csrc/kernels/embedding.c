/* kernels/embedding.c - the gradient of an embedding table. The forward operator is ggml's GET_ROWS (tnn_get_rows). */
#include "kernels/embedding.h"

#include "graph/gradients.h"
#include "kernels/each_vector.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"

/* Computes the gradient of an embedding: row i of dy is added to row ids[i] of the gradient, in the order of i. Each
 * thread computes some rows of the gradient. Operands: [earlier part,] dy, ids. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct ggml_tensor * dy  = tnn__operand(k, dst, 0);
    const int32_t            * ids = tnn__operand(k, dst, 1)->data;
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

static const struct tnn_kernel_type EMBEDDING_BACK = { .name = "EMBEDDING_BACK", .run = run, .sum = TNN_SUM_IN_PLACE };

void tnn__embedding_backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    struct ggml_tensor * args[] = { grad, node->src[1] };
    tnn__add_gradient(g, node->src[0], &EMBEDDING_BACK, NULL, args, 2);
}
