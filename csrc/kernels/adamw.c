/* kernels/adamw.c - the AdamW step on clipped gradients, in a graph and on a slice of a weight. */
#include "kernels/grad_norm.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/stochastic_bf16.h"
#include "kernels/vec8.h"
#include "machine/machine.h"
#include "ops/operands.h"
#include "ops/optimizer.h"

/* Moments in bfloat16: the seed of the weight, and the number of the step. */
struct rounding {
    int32_t seed, step;
};

/* Updates the elements begin to end - 1 of w, m and v by the operations of ggml's AdamW, in the same order. The
 * gradient is g times clip. hp: the seven values of tnn_opt_step_adamw. m and v are f32, or bfloat16 if rounding is not
 * NULL. In bfloat16, w is computed from the moments before they are rounded. */
static inline __attribute__((always_inline)) void update(float * w, void * m, void * v, const float * g, int64_t begin, int64_t end,
                                                         const float * hp, float clip, const struct rounding * rounding) {
    const v8f alpha = v8_set1(hp[0]), beta1 = v8_set1(hp[1]), beta2 = v8_set1(hp[2]), eps = v8_set1(hp[3]);
    const v8f keep = v8_set1(1.0f - hp[0] * hp[4]), beta1h = v8_set1(hp[5]), beta2h = v8_set1(hp[6]);
    const v8f rest1 = v8_set1(1.0f - hp[1]), rest2 = v8_set1(1.0f - hp[2]);
    const v8f factor = v8_set1(clip);
    const bool     bf16 = rounding != NULL;
    const uint32_t key  = bf16 ? tnn__rounding_key(rounding->seed, rounding->step) : 0;
    float    * mf = m, * vf = v;
    uint16_t * mh = m, * vh = v;
    for (int64_t i = begin; i < end; i += V8_LANES) {
        const int64_t n    = end - i < V8_LANES ? end - i : V8_LANES;
        const bool    full = n == V8_LANES;
        v8f gi = full ? v8_load(g + i) : v8_load_part(g + i, n, 0.0f);
        v8f mi = bf16 ? v8_load_bf16(mh + i, full ? V8_LANES : n) : full ? v8_load(mf + i) : v8_load_part(mf + i, n, 0.0f);
        v8f vi = bf16 ? v8_load_bf16(vh + i, full ? V8_LANES : n) : full ? v8_load(vf + i) : v8_load_part(vf + i, n, 0.0f);
        v8f wi = full ? v8_load(w + i) : v8_load_part(w + i, n, 0.0f);
        gi = gi * factor;
        mi = mi * beta1 + gi * rest1;
        vi = vi * beta2 + gi * gi * rest2;
        wi = wi * keep - alpha * (mi * beta1h) / (v8_sqrt(vi * beta2h) + eps);
        if (full) {
            v8_store(w + i, wi);
        } else {
            v8_store_part(w + i, n, wi);
        }
        if (bf16) {
            const v8u random = v8_random(key, i);
            v8_store_bf16(mh + i, full ? V8_LANES : n, v8_bf16_stochastic(mi, random & 0xffffu));
            v8_store_bf16(vh + i, full ? V8_LANES : n, v8_bf16_stochastic(vi, random >> 16));
        } else if (full) {
            v8_store(mf + i, mi);
            v8_store(vf + i, vi);
        } else {
            v8_store_part(mf + i, n, mi);
            v8_store_part(vf + i, n, vi);
        }
    }
}

/* Computes the AdamW step with moments in f32. If the norm is not finite, w, m and v stay unchanged. Operands: w,
 * gradient, m, v, hp, [norm and clipping factor]. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const float * norm = dst->src[5] != NULL ? tnn__data(dst->src[5]) : NULL;
    if (!k->s->update || (norm != NULL && !isfinite(norm[0]))) {
        return;
    }
    int64_t begin, end;
    tnn__part(ggml_nelements(dst), 16, ith, nth, &begin, &end);
    update(dst->data, dst->src[2]->data, dst->src[3]->data, tnn__data(dst->src[1]), begin, end, tnn__data(dst->src[4]),
           norm != NULL ? norm[1] : 1.0f, NULL);
}

/* Computes the AdamW step with moments in bfloat16. Operands: w, gradient, m, v, hp, step, [norm and clipping factor]. */
static void run_bf16(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const float * norm = dst->src[6] != NULL ? tnn__data(dst->src[6]) : NULL;
    if (!k->s->update || (norm != NULL && !isfinite(norm[0]))) {
        return;
    }
    const struct rounding rounding = { *(const int32_t *) k->params, *(const int32_t *) dst->src[5]->data };
    int64_t begin, end;
    tnn__part(ggml_nelements(dst), 16, ith, nth, &begin, &end);
    update(dst->data, dst->src[2]->data, dst->src[3]->data, tnn__data(dst->src[1]), begin, end, tnn__data(dst->src[4]),
           norm != NULL ? norm[1] : 1.0f, &rounding);
}

static const struct tnn_kernel_type ADAMW = {
    .name = "ADAMW", .run = run, .writes = TNN_OPERAND(2) | TNN_OPERAND(3), .optimizer_step = true, .for_optimizer = true,
};
static const struct tnn_kernel_type ADAMW_BF16 = {
    .name = "ADAMW_BF16", .run = run_bf16, .writes = TNN_OPERAND(2) | TNN_OPERAND(3), .optimizer_step = true, .for_optimizer = true,
    .params_size = sizeof(int32_t),
};

tnn_tensor tnn_fused_adamw(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp, tnn_tensor norm,
                           tnn_tensor step, int32_t seed) {
    struct ggml_tensor * args[TNN_ADAMW_OPERANDS + 2];
    int n_args = TNN_ADAMW_OPERANDS;
    const enum ggml_type moments = step != 0 ? GGML_TYPE_BF16 : GGML_TYPE_F32;
    if (!tnn__enter(s, __func__) || !tnn__want_backward_built(s) || !tnn__adamw_operands(s, w, grad, m, v, hp, moments, args)) {
        return 0;
    }
    if (step != 0 && (args[n_args++] = tnn__step_operand(s, step)) == NULL) {
        return 0;
    }
    if (norm != 0 && (args[n_args++] = tnn__grad_norm_operand(s, norm)) == NULL) {
        return 0;
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    struct ggml_tensor * node = step != 0 ? tnn__kernel_node(s, &ADAMW_BF16, &seed, 0, 0, args, n_args)
                                          : tnn__kernel_node(s, &ADAMW, NULL, 0, 0, args, n_args);
    if (node != NULL) {
        ggml_format_name(node, "step of %.50s", ggml_get_name(args[0]));
    }
    return tnn__handle(s, node);
}

int tnn_slice_adamw(float * w, float * m, float * v, const float * g, int64_t n, const float * hp, float factor) {
    if (w == NULL || m == NULL || v == NULL || g == NULL || hp == NULL || n < 0) {
        return TNN_E_VALUE;
    }
    fenv_t callers;
    tnn__arithmetic_begin(&callers);
    update(w, m, v, g, 0, n, hp, factor, NULL);
    tnn__arithmetic_end(&callers);
    return TNN_OK;
}
