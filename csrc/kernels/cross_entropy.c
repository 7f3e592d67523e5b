/* kernels/cross_entropy.c - cross entropy on target ids: the mean over the rows whose target is not the ignored id.
 *
 * Equal to CROSS_ENTROPY_LOSS on one-hot labels within rounding, without the labels: a row is one number.
 */
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/vec8.h"

/* max of a row, and sum of exp(x - max) in eight lanes */
static float row_max(const float * x, int64_t n) {
    v8f max = v8_set1(-INFINITY);
    int64_t i = 0;
    for (; i + V8_LANES <= n; i += V8_LANES) {
        max = v8_max(v8_load(x + i), max);
    }
    if (i < n) {
        max = v8_max(v8_load_part(x + i, n - i, -INFINITY), max);
    }
    return v8_max_lane(max);
}

/* Writes exp(x - max) to out where out is not NULL. */
static float exp_sum(const float * x, int64_t n, float max, float * out) {
    const v8f shift = v8_set1(max);
    v8f sum = v8_set1(0.0f);
    int64_t i = 0;
    for (; i + V8_LANES <= n; i += V8_LANES) {
        const v8f e = v8_exp(v8_load(x + i) - shift);
        if (out != NULL) {
            v8_store(out + i, e);
        }
        sum += e;
    }
    if (i < n) {
        const v8f e = v8_exp(v8_load_part(x + i, n - i, -INFINITY) - shift);
        if (out != NULL) {
            v8_store_part(out + i, n - i, e);
        }
        sum += e;
    }
    return v8_sum(sum);
}

/* -log softmax(x)[target] of each row; 0 where the target is ignored. Operands: logits, targets. */
void tnn__cross_entropy_rows(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t   n      = dst->src[0]->ne[0];
    const int32_t * target = dst->src[1]->data;
    float         * loss   = dst->data;
    int64_t begin, end;
    tnn__part(dst->ne[0], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        if (target[row] == k->ignore_id) {
            loss[row] = 0.0f;
            continue;
        }
        const float * x   = tnn__data(dst->src[0]) + row * n;
        const float   max = row_max(x, n);
        loss[row] = (float) (log((double) exp_sum(x, n, max, NULL)) + (double) max - (double) x[target[row]]);
    }
}

static int64_t count_targets(const struct tnn_kernel * k, const struct ggml_tensor * targets) {
    const int32_t * target = targets->data;
    int64_t count = 0;
    for (int64_t row = 0; row < targets->ne[0]; row++) {
        count += target[row] != k->ignore_id;
    }
    return count;
}

/* Mean of the rows' losses, added in f64 in their order. Operands: rows, targets. */
void tnn__cross_entropy(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) nth;
    (void) scratch;
    if (ith != 0) {
        return;
    }
    double sum = 0.0;
    for (int64_t row = 0; row < dst->src[0]->ne[0]; row++) {
        sum += (double) tnn__data(dst->src[0])[row];
    }
    *(float *) dst->data = (float) (sum / (double) count_targets(k, dst->src[1]));
}

/* dlogits = (softmax(x) - one-hot) / number of targets; 0 where the target is ignored. Operands: logits, targets. */
void tnn__cross_entropy_back(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const int64_t   n      = dst->ne[0];
    const int32_t * target = dst->src[1]->data;
    const float     weight = 1.0f / (float) count_targets(k, dst->src[1]);
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        const float * x = tnn__data(dst->src[0]) + row * n;
        float       * g = (float *) dst->data + row * n; /* may be where the logits lie */
        if (target[row] == k->ignore_id) {
            memset(g, 0, (size_t) n * sizeof(float));
            continue;
        }
        const float max   = row_max(x, n);
        const float scale = weight / exp_sum(x, n, max, g);
        for (int64_t i = 0; i < n; i++) {
            g[i] *= scale;
        }
        g[target[row]] -= weight;
    }
}
