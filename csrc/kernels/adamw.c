/* kernels/adamw.c - the norm of all gradients, clipping by it, and AdamW. */
#include "kernels/gemm.h"
#include "kernels/kernel.h"
#include "kernels/vec8.h"

/* Sums of squares of a gradient, in f64, in TNN_SQUARES_PARTS parts whose ends do not depend on the number of threads. They stay
 * in the kernel, for the norm. Operands: gradient, [the gradient's before]. */
void tnn__grad_squares(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    struct tnn_kernel * state = (struct tnn_kernel *) k;
    const float       * g     = tnn__data(dst->src[0]);
    for (int part = ith; part < TNN_SQUARES_PARTS; part += nth) {
        int64_t begin, end;
        tnn__part(ggml_nelements(dst->src[0]), 1, part, TNN_SQUARES_PARTS, &begin, &end);
        double lanes[4] = { 0.0, 0.0, 0.0, 0.0 };
        int64_t i = begin;
        for (; i + 4 <= end; i += 4) {
            for (int j = 0; j < 4; j++) {
                lanes[j] += (double) g[i + j] * (double) g[i + j];
            }
        }
        for (; i < end; i++) {
            lanes[0] += (double) g[i] * (double) g[i];
        }
        state->partial[part] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }
}

/* [norm, factor]: the norm of all gradients times clip[1], and what each gradient is multiplied by so that the norm becomes at
 * most clip[0] (0: no limit). The parts of all gradients are added in f64, in their order. Operands: the last gradient's, clip. */
void tnn__grad_norm(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) nth;
    (void) scratch;
    if (ith != 0) {
        return;
    }
    const float * clip = tnn__data(dst->src[1]);
    double squares = 0.0;
    for (const struct tnn_kernel * of = k->following; of != NULL; of = of->following) {
        for (int part = 0; part < TNN_SQUARES_PARTS; part++) {
            squares += of->partial[part];
        }
    }
    const double norm = sqrt(squares) * (double) clip[1];
    float      * out  = dst->data;
    out[0] = (float) norm;
    out[1] = clip[1] * (clip[0] > 0.0f && norm > (double) clip[0] ? (float) ((double) clip[0] / norm) : 1.0f);
}

/* ggml's AdamW, operation for operation, on the gradient times factor. Operands: w, gradient, m, v, hp, [norm and factor].
 * A norm that is not finite leaves w, m and v as they are. */
void tnn__adamw(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const float * hp   = tnn__data(dst->src[4]);
    const float * norm = dst->src[5] != NULL ? tnn__data(dst->src[5]) : NULL;
    if (!k->s->update || (norm != NULL && !isfinite(norm[0]))) {
        return;
    }
    const v8f alpha = v8_set1(hp[0]), beta1 = v8_set1(hp[1]), beta2 = v8_set1(hp[2]), eps = v8_set1(hp[3]);
    const v8f keep = v8_set1(1.0f - hp[0] * hp[4]), beta1h = v8_set1(hp[5]), beta2h = v8_set1(hp[6]);
    const v8f rest1 = v8_set1(1.0f - hp[1]), rest2 = v8_set1(1.0f - hp[2]);
    const v8f factor = v8_set1(norm != NULL ? norm[1] : 1.0f);
    float * w = dst->data, * m = dst->src[2]->data, * v = dst->src[3]->data;
    const float * g = tnn__data(dst->src[1]);
    int64_t begin, end;
    tnn__part(ggml_nelements(dst), 16, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i += V8_LANES) {
        const int64_t n    = end - i < V8_LANES ? end - i : V8_LANES;
        const bool    full = n == V8_LANES;
        v8f gi = full ? v8_load(g + i) : v8_load_part(g + i, n, 0.0f);
        v8f mi = full ? v8_load(m + i) : v8_load_part(m + i, n, 0.0f);
        v8f vi = full ? v8_load(v + i) : v8_load_part(v + i, n, 0.0f);
        v8f wi = full ? v8_load(w + i) : v8_load_part(w + i, n, 0.0f);
        gi = gi * factor;
        mi = mi * beta1 + gi * rest1;
        vi = vi * beta2 + gi * gi * rest2;
        wi = wi * keep - alpha * (mi * beta1h) / (v8_sqrt(vi * beta2h) + eps);
        if (full) {
            v8_store(m + i, mi);
            v8_store(v + i, vi);
            v8_store(w + i, wi);
        } else {
            v8_store_part(m + i, n, mi);
            v8_store_part(v + i, n, vi);
            v8_store_part(w + i, n, wi);
        }
    }
}
