/* kernels/muon.c - the Muon step of a matrix: momentum, an approximate orthogonalization, and the update.
 *
 * The update of a matrix is its momentum U, with all singular values moved close to 1 by Newton-Schulz iterations:
 *
 *     X = U / |U|,  then five times  A = X X^T,  X = a X + (b A + c A A) X.
 *
 * The constants and the scale of the update are those of Keller Jordan, "Muon: An optimizer for hidden layers in neural
 * networks" (2024). Here Z = X / a^i stands for the X of iteration i, so that the product with Z needs no factor for Z
 * itself: Z = Z + (b/a A + c/a A A) Z, with A = a^(2i) Z Z^T. The last node multiplies by a^5. If the matrix has more
 * rows than columns, X is multiplied from the right, with A = X^T X. So the number of rows of A is always the length of
 * the matrix's shorter side. A is symmetric, so only about half of its elements are computed; the others are copies. */
#include "kernels/gemm.h"
#include "kernels/grad_norm.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/stochastic_bf16.h"
#include "kernels/vec8.h"
#include "ops/operands.h"
#include "ops/optimizer.h"

#include <math.h>

#define ITERATIONS 5
#define A_ 3.4445 /* a, b and c of the iteration */
#define B_ (-4.7750)
#define C_ 2.0315

#define PARTS   64 /* a matrix has this many parts, and the squares of each part are added separately */
/* Number of rows of a symmetric product that are computed at once. A tile has 6 or 8 rows, depending on the kernel, and
 * STRIPE is a multiple of both numbers. */
#define STRIPE  48

/* hp: learning rate, momentum, weight decay */
enum { LR, MOMENTUM, WEIGHT_DECAY, N_HP };

/* Returns whether the step changes nothing: the gradients are only accumulated, or their norm is not finite. norm: NULL,
 * or a result of tnn_fused_grad_norm. */
static bool idle(const struct tnn_kernel * k, const struct ggml_tensor * norm) {
    return !k->s->update || (norm != NULL && !isfinite(tnn__data(norm)[0]));
}

/* ------------------------------------------------------------------ momentum */

/* The state of a MOMENTUM node: the sums of squares of the parts of its result. */
struct squares {
    double partial[PARTS];
};

/* Computes m = mu m + (1 - mu) g and u = mu m + (1 - mu) g (Nesterov), where g is the clipped gradient. The result is u.
 * norm: NULL, or the norm and the clipping factor. key: NULL for a momentum in f32. For a momentum in bfloat16, the key of
 * its random bits; u is then computed from m before m is rounded. */
static inline __attribute__((always_inline)) void momentum(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth,
                                                           const struct ggml_tensor * norm, const uint32_t * key) {
    const float mu = tnn__data(dst->src[2])[MOMENTUM];
    const v8f keep = v8_set1(mu), rest = v8_set1(1.0f - mu), factor = v8_set1(norm != NULL ? tnn__data(norm)[1] : 1.0f);
    const float * g = tnn__data(dst->src[0]);
    float       * m = dst->src[1]->data, * u = dst->data;
    uint16_t    * half = dst->src[1]->data;
    struct squares * state = k->state;
    for (int part = ith; part < PARTS; part += nth) {
        int64_t begin, end;
        tnn__part(ggml_nelements(dst), 16, part, PARTS, &begin, &end);
        double lanes[V8_LANES] = { 0.0 };
        for (int64_t i = begin; i < end; i += V8_LANES) {
            const int64_t n    = tnn__min(V8_LANES, end - i);
            const bool    full = n == V8_LANES;
            const v8f gi  = (full ? v8_load(g + i) : v8_load_part(g + i, n, 0.0f)) * factor * rest;
            const v8f old = key != NULL ? v8_load_bf16(half + i, n) : full ? v8_load(m + i) : v8_load_part(m + i, n, 0.0f);
            const v8f mi  = old * keep + gi;
            const v8f ui  = mi * keep + gi;
            if (full) {
                v8_store(u + i, ui);
            } else {
                v8_store_part(u + i, n, ui);
            }
            if (key != NULL) {
                v8_store_bf16(half + i, n, v8_bf16_stochastic(mi, v8_random(*key, i) & 0xffffu));
            } else if (full) {
                v8_store(m + i, mi);
            } else {
                v8_store_part(m + i, n, mi);
            }
            for (int64_t j = 0; j < V8_LANES; j++) {
                lanes[j] += (double) ui[j] * (double) ui[j];
            }
        }
        state->partial[part] = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    }
}

/* Operands: gradient, m, hp, [norm and clipping factor]. */
static void run_momentum(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    if (!idle(k, dst->src[3])) {
        momentum(k, dst, ith, nth, dst->src[3], NULL);
    }
}

/* Operands: gradient, m in bfloat16, hp, step, [norm and clipping factor]. */
static void run_momentum_bf16(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    if (!idle(k, dst->src[4])) {
        const uint32_t key = tnn__rounding_key(*(const int32_t *) k->params, *(const int32_t *) dst->src[3]->data);
        momentum(k, dst, ith, nth, dst->src[4], &key);
    }
}

static const struct tnn_kernel_type MUON_MOMENTUM = {
    .name = "MUON_MOMENTUM", .run = run_momentum, .writes = TNN_OPERAND(1), .for_optimizer = true, .state_size = sizeof(struct squares),
};
static const struct tnn_kernel_type MUON_MOMENTUM_BF16 = {
    .name = "MUON_MOMENTUM_BF16", .run = run_momentum_bf16, .writes = TNN_OPERAND(1), .for_optimizer = true,
    .state_size = sizeof(struct squares), .params_size = sizeof(int32_t),
};

/* Computes z = u / |u|, or 0 if u is 0. Operands: u, the result of a MOMENTUM node; [norm and clipping factor]. The last
 * operand, in brackets, is optional: a tensor with the norm of the gradient and the clipping factor. */
static void run_unit(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    if (idle(k, dst->src[1])) {
        return;
    }
    const struct squares * state = *(const struct squares * const *) k->params;
    double sum = 0.0;
    for (int part = 0; part < PARTS; part++) {
        sum += state->partial[part];
    }
    const double  length = sqrt(sum);
    /* The division is in f64, because 1 / length would not be finite in f32 for a very short u. */
    const float * u = tnn__data(dst->src[0]);
    float       * z = dst->data;
    int64_t begin, end;
    tnn__part(ggml_nelements(dst), 16, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        z[i] = length > 0.0 ? (float) ((double) u[i] / length) : 0.0f;
    }
}

static const struct tnn_kernel_type MUON_UNIT = {
    .name = "MUON_UNIT", .run = run_unit, .in_place = TNN_OPERAND(0), .for_optimizer = true, .params_size = sizeof(const struct squares *),
};

/* ------------------------------------------------------------------ Newton-Schulz */

/* Returns the thread that computes a stripe. Later stripes are shorter, so every second round gives the stripes to
 * the threads in reverse order. */
static int owner(int64_t stripe, int nth) {
    const int place = (int) (stripe % nth);
    return stripe / nth % 2 == 0 ? place : nth - 1 - place;
}

/* Computes the symmetric matrix scale * C, where C is the product g. If other is not NULL, adds (B_ / A_) * other.
 * Each stripe of rows is computed from the diagonal to the right, and each element is also written to its transposed
 * place. */
static void symmetric(const struct tnn_gemm * g, float scale, const float * other, int ith, int nth, void * scratch) {
    const int64_t size = g->m;
    for (int64_t stripe = 0, begin = 0; begin < size; stripe++, begin += STRIPE) {
        if (owner(stripe, nth) != ith) {
            continue;
        }
        struct tnn_gemm part = *g;
        const int64_t end = tnn__min(begin + STRIPE, size);
        part.m  = end - begin;
        part.n  = size - begin;
        part.a += begin * g->a_row;
        part.b += begin * g->b_col;
        part.c += begin * size + begin;
        tnn__gemm(&part, scratch);
        for (int64_t i = begin; i < end; i++) {
            for (int64_t j = i; j < size; j++) {
                float value = g->c[i * size + j] * scale;
                if (other != NULL) {
                    value += (float) (B_ / A_) * other[i * size + j];
                }
                g->c[i * size + j] = value;
                g->c[j * size + i] = value;
            }
        }
    }
}

/* Computes A = scale Z Z^T, or scale Z^T Z if Z has more rows than columns. Operands: z, [norm and clipping factor]. */
static void run_gram(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * z = dst->src[0];
    if (idle(k, dst->src[1])) {
        return;
    }
    const int64_t columns = z->ne[0];
    const bool    tall    = z->ne[1] > columns;
    const struct tnn_gemm g = {
        .m = dst->ne[1], .n = dst->ne[0], .k = tall ? z->ne[1] : columns,
        .a = tnn__data(z), .a_row = tall ? 1 : columns, .a_col = tall ? columns : 1,
        .b = tnn__data(z), .b_row = tall ? columns : 1, .b_col = tall ? 1 : columns,
        .c = dst->data, .c_row = dst->ne[0],
    };
    symmetric(&g, *(const float *) k->params, NULL, ith, nth, scratch);
}

/* Computes P = b/a A + c/a A A. Operands: A, [norm and clipping factor]. */
static void run_polynomial(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * a = dst->src[0];
    if (idle(k, dst->src[1])) {
        return;
    }
    const int64_t size = a->ne[0];
    const struct tnn_gemm g = {
        .m = size, .n = size, .k = size,
        .a = tnn__data(a), .a_row = size, .a_col = 1,
        .b = tnn__data(a), .b_row = size, .b_col = 1,
        .c = dst->data, .c_row = size,
    };
    symmetric(&g, (float) (C_ / A_), tnn__data(a), ith, nth, scratch);
}

/* Computes Z + P Z, or Z + Z P if Z has more rows than columns. Operands: z, P, [norm and clipping factor]. */
static void run_product(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct ggml_tensor * z = dst->src[0], * p = dst->src[1];
    if (idle(k, dst->src[2])) {
        return;
    }
    const int64_t columns = z->ne[0], size = p->ne[0];
    const bool    tall    = z->ne[1] > columns;
    const float * left = tnn__data(tall ? z : p), * right = tnn__data(tall ? p : z);
    const struct tnn_gemm g = {
        .m = z->ne[1], .n = columns, .k = size,
        .a = left, .a_row = size, .a_col = 1, /* a row of Z has `size` elements here, because Z is tall */
        .b = right, .b_row = columns, .b_col = 1,
        .c = dst->data, .c_row = columns,
        .add = tnn__data(z),
    };
    tnn__gemm_share(&g, ith, nth, scratch);
}

static size_t scratch_size(const void * params) {
    (void) params;
    return tnn__gemm_scratch();
}

/* Only half of the product is computed, because the result is symmetric. */
static int64_t cost_of_gram(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    (void) k;
    return ggml_nelements(node->src[0]) * node->ne[0] / 2;
}

static int64_t cost_of_product(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    (void) k;
    return ggml_nelements(node) * node->src[1]->ne[0];
}

static const struct tnn_kernel_type MUON_GRAM = {
    .name = "MUON_GRAM", .run = run_gram, .for_optimizer = true, .multiply_adds = cost_of_gram, .scratch = scratch_size,
    .params_size = sizeof(float),
};
static const struct tnn_kernel_type MUON_POLYNOMIAL = {
    .name = "MUON_POLYNOMIAL", .run = run_polynomial, .for_optimizer = true, .multiply_adds = cost_of_gram, .scratch = scratch_size,
};
static const struct tnn_kernel_type MUON_PRODUCT = {
    .name = "MUON_PRODUCT", .run = run_product, .for_optimizer = true, .multiply_adds = cost_of_product, .scratch = scratch_size,
};

/* ------------------------------------------------------------------ the step */

/* Computes w = (1 - lr weight_decay) w - lr sqrt(max(1, rows / columns)) X, where X = a^5 Z. Operands: w, z, m, hp,
 * [norm and clipping factor]. m is the moment of the step; only the MOMENTUM node changes it. */
static void run_step(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const float * hp = tnn__data(dst->src[3]);
    if (idle(k, dst->src[4])) {
        return;
    }
    const double ratio = (double) dst->ne[1] / (double) dst->ne[0];
    const double x     = A_ * A_ * A_ * A_ * A_;
    const v8f    keep  = v8_set1(1.0f - hp[LR] * hp[WEIGHT_DECAY]);
    const v8f    rate  = v8_set1((float) ((double) hp[LR] * (ratio > 1.0 ? sqrt(ratio) : 1.0) * x));
    const float * z = tnn__data(dst->src[1]);
    float       * w = dst->data;
    int64_t begin, end;
    tnn__part(ggml_nelements(dst), 16, ith, nth, &begin, &end);
    for (int64_t i = begin; i < end; i += V8_LANES) {
        const int64_t n = tnn__min(V8_LANES, end - i);
        if (n == V8_LANES) {
            v8_store(w + i, v8_load(w + i) * keep - rate * v8_load(z + i));
        } else {
            v8_store_part(w + i, n, v8_load_part(w + i, n, 0.0f) * keep - rate * v8_load_part(z + i, n, 0.0f));
        }
    }
}

static const struct tnn_kernel_type MUON = {
    .name = "MUON", .run = run_step, .writes = TNN_OPERAND(2), .optimizer_step = true, .for_optimizer = true,
};

/* ------------------------------------------------------------------ the session call */

/* Appends a node over the operands args[0..n_args) and, if norm is not NULL, norm. */
static struct ggml_tensor * node(tnn_session * s, const struct tnn_kernel_type * type, const void * params, const int64_t ne[2],
                                 struct ggml_tensor ** args, int n_args, struct ggml_tensor * norm) {
    args[n_args] = norm;
    return tnn__kernel_node(s, type, params, ne[0], ne[1], args, n_args + (norm != NULL ? 1 : 0));
}

/* Appends the nodes from the gradient to Z of the last iteration. step: NULL for a momentum in f32. Returns NULL with an
 * error. */
static struct ggml_tensor * orthogonalized(tnn_session * s, struct ggml_tensor * grad, struct ggml_tensor * m, struct ggml_tensor * hp,
                                           struct ggml_tensor * norm, struct ggml_tensor * step, int32_t seed) {
    const int64_t whole[2] = { grad->ne[0], grad->ne[1] };
    const int64_t size     = tnn__min(whole[0], whole[1]), square[2] = { size, size };
    struct ggml_tensor * args[5] = { grad, m, hp, step };
    struct ggml_tensor * u = step != NULL ? node(s, &MUON_MOMENTUM_BF16, &seed, whole, args, 4, norm)
                                          : node(s, &MUON_MOMENTUM, NULL, whole, args, 3, norm);
    if (u == NULL) {
        return NULL;
    }
    const struct squares * state = tnn__kernel_of(u)->state;
    args[0] = u;
    struct ggml_tensor * z = node(s, &MUON_UNIT, &state, whole, args, 1, norm);
    double power = 1.0; /* a^i */
    for (int i = 0; i < ITERATIONS && z != NULL; i++, power *= A_) {
        const float scale = (float) (power * power);
        args[0] = z;
        struct ggml_tensor * gram = args[0] = node(s, &MUON_GRAM, &scale, square, args, 1, norm);
        struct ggml_tensor * p    = gram != NULL ? node(s, &MUON_POLYNOMIAL, NULL, square, args, 1, norm) : NULL;
        args[0] = z;
        args[1] = p;
        z = p != NULL ? node(s, &MUON_PRODUCT, NULL, whole, args, 2, norm) : NULL;
    }
    return z;
}

tnn_tensor tnn_fused_muon(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor hp, tnn_tensor norm,
                          tnn_tensor step, int32_t seed) {
    struct ggml_tensor * args[TNN_MUON_OPERANDS + 1], * tn = NULL, * ts = NULL;
    const enum ggml_type moments = step != 0 ? GGML_TYPE_BF16 : GGML_TYPE_F32;
    if (!tnn__enter(s, __func__) || !tnn__want_backward_built(s) || !tnn__muon_operands(s, w, grad, m, hp, moments, args)) {
        return 0;
    }
    if (step != 0 && (ts = tnn__step_operand(s, step)) == NULL) {
        return 0;
    }
    if (norm != 0 && (tn = tnn__grad_norm_operand(s, norm)) == NULL) {
        return 0;
    }
    if (!tnn__reserve_nodes(s, 3 + 3 * ITERATIONS)) {
        return 0;
    }
    struct ggml_tensor * tw = args[0], * tm = args[2], * th = args[3];
    struct ggml_tensor * z  = orthogonalized(s, args[1], tm, th, tn, ts, seed);
    if (z == NULL) {
        return 0;
    }
    struct ggml_tensor * operands[5] = { tw, z, tm, th };
    const int64_t in_place[2] = { 0, 0 };
    struct ggml_tensor * result = node(s, &MUON, NULL, in_place, operands, 4, tn);
    if (result != NULL) {
        ggml_format_name(result, "step of %.50s", ggml_get_name(tw));
    }
    return tnn__handle(s, result);
}
