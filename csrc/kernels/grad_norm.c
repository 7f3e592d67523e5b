/* kernels/grad_norm.c - computes the norm of all gradients together, and the factor by which they are clipped. The
 * sums of the squares of a slice of a gradient can also be computed separately. */
#include "kernels/grad_norm.h"

#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "machine/machine.h"
#include "ops/operands.h"
#include "ops/optimizer.h"

#include <math.h>

#define PARTS 64

/* The state of a GRAD_SQUARES node. */
struct squares {
    double                 partial[PARTS];
    const struct squares * next; /* the state of the next GRAD_SQUARES node, or NULL */
};

/* Returns the sum of squares of the elements begin to end - 1 in f64, in four lanes. */
static double sum_of_squares(const float * g, int64_t begin, int64_t end) {
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
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

/* Computes the sum of squares of a gradient in f64, as PARTS partial sums. The division into parts does not depend on
 * the number of threads. The sums stay in the state of the node. The norm is computed from these states. Operands:
 * gradient, [the node of the previous gradient]. */
static void run_squares(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    struct squares * state = k->state;
    for (int part = ith; part < PARTS; part += nth) {
        int64_t begin, end;
        tnn__part(ggml_nelements(dst->src[0]), 1, part, PARTS, &begin, &end);
        state->partial[part] = sum_of_squares(tnn__data(dst->src[0]), begin, end);
    }
}

/* Computes [norm, factor]: the norm of all gradients times clip[1], and the factor by which each gradient is multiplied
 * so that the norm is at most clip[0] (0: no limit). The sums of all gradients are added in f64, in their order.
 * Operands: the last GRAD_SQUARES node, clip. */
static void run_norm(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) nth;
    (void) scratch;
    if (ith != 0) {
        return;
    }
    const float * clip = tnn__data(dst->src[1]);
    double squares = 0.0;
    for (const struct squares * of = *(const struct squares * const *) k->params; of != NULL; of = of->next) {
        for (int part = 0; part < PARTS; part++) {
            squares += of->partial[part];
        }
    }
    const double norm = sqrt(squares) * (double) clip[1];
    float      * out  = dst->data;
    out[0] = (float) norm;
    out[1] = clip[1] * (clip[0] > 0.0f && norm > (double) clip[0] ? (float) ((double) clip[0] / norm) : 1.0f);
}

static const struct tnn_kernel_type GRAD_SQUARES = {
    .name = "GRAD_SQUARES", .run = run_squares, .order_only = TNN_OPERAND(1), .for_optimizer = true, .state_size = sizeof(struct squares),
};

/* The norm reads the states of all GRAD_SQUARES nodes. Operand 0 of the norm is the last GRAD_SQUARES node. Operand 1
 * of each GRAD_SQUARES node is the previous GRAD_SQUARES node. */
static const struct ggml_tensor * other_squares(const struct ggml_tensor * node, const struct ggml_tensor * previous) {
    return previous == NULL ? node->src[0]->src[1] : previous->src[1];
}

/* The parameter of a norm node points to the state of the first GRAD_SQUARES node. */
static const struct tnn_kernel_type GRAD_NORM = {
    .name = "GRAD_NORM", .run = run_norm, .also_reads = other_squares, .params_size = sizeof(const struct squares *),
};

bool tnn__is_grad_norm(const struct ggml_tensor * node) {
    return tnn__is_kernel(node, &GRAD_NORM);
}

struct ggml_tensor * tnn__grad_norm_operand(tnn_session * s, tnn_tensor norm) {
    struct ggml_tensor * t = tnn__tensor(s, "norm", norm);
    if (t != NULL && !tnn__is_grad_norm(t)) {
        tnn__fail(s, TNN_E_VALUE, "norm (%s) must be a result of tnn_fused_grad_norm", ggml_get_name(t));
        return NULL;
    }
    return t;
}

bool tnn__want_backward_built(tnn_session * s) {
    if (s->stage == TNN_STAGE_BACKWARD_BUILT) {
        return true;
    }
    tnn__fail_stage(s, "an optimizer step of a fused graph must be appended after tnn_build_backward and before "
                       "tnn_realize_backward");
    return false;
}

tnn_tensor tnn_fused_grad_norm(tnn_session * s, const tnn_tensor * grads, int32_t n, tnn_tensor clip) {
    if (!tnn__enter(s, __func__) || !tnn__want_backward_built(s)) {
        return 0;
    }
    struct ggml_tensor * tc = tnn__hyper_parameters(s, clip, 2);
    if (tc == NULL || !tnn__want_list(s, "grads", grads, n, INT32_MAX)) {
        return 0;
    }
    for (int i = 0; i < n; i++) {
        if (tnn__f32_operand(s, "grads", grads[i]) == NULL) {
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, n) || !tnn__reserve_nodes(s, n + 1)) {
        return 0;
    }
    struct ggml_tensor   * last  = NULL;
    const struct squares * first = NULL;
    for (int i = 0; i < n; i++) {
        struct ggml_tensor * g      = tnn__tensor(s, "grads", grads[i]);
        struct ggml_tensor * args[] = { g, last };
        struct ggml_tensor * node   = tnn__kernel_node(s, &GRAD_SQUARES, NULL, 1, 1, args, last != NULL ? 2 : 1);
        if (node == NULL) {
            return 0;
        }
        struct squares * state = tnn__kernel_of(node)->state;
        if (last != NULL) {
            ((struct squares *) tnn__kernel_of(last)->state)->next = state;
        }
        first = first != NULL ? first : state;
        last  = node;
        ggml_format_name(node, "squares of %.50s", ggml_get_name(g));
    }
    struct ggml_tensor * args[] = { last, tc };
    return tnn__handle(s, tnn__kernel_node(s, &GRAD_NORM, &first, 2, 1, args, 2));
}

int tnn_slice_squares(const float * g, int64_t n, int64_t size, int32_t first, int32_t end, double * sums) {
    if (g == NULL || sums == NULL || size < 0 || size > TNN_MAX_ELEMENTS || first < 0 || end < first || end > PARTS) {
        return TNN_E_VALUE;
    }
    const int64_t at = size * first / PARTS;
    if (n != size * end / PARTS - at) {
        return TNN_E_VALUE;
    }
    fenv_t callers;
    tnn__arithmetic_begin(&callers);
    for (int part = first; part < end; part++) {
        sums[part] = sum_of_squares(g, size * part / PARTS - at, size * (part + 1) / PARTS - at);
    }
    tnn__arithmetic_end(&callers);
    return TNN_OK;
}
