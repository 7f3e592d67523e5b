/* ops/convolution.c - convolutions as products with patches. */
#include "ops/operands.h"
#include "ops/rules.h"

#define MOST_STEP (1 << 24) /* limit of strides, paddings and dilations, so that products with sizes fit int64_t */

struct direction {
    int32_t stride, padding, dilation;
    const char * names[3];
};

/* Checks one direction, and returns the size of the result in this direction, or 0 with an error. */
static int64_t out_size(tnn_session * s, const struct direction * d, int64_t size, int64_t kernel) {
    const int32_t values[] = { d->stride, d->padding, d->dilation };
    for (int i = 0; i < 3; i++) {
        const int least = i == 1 ? 0 : 1;
        if (values[i] < least || values[i] > MOST_STEP) {
            tnn__fail(s, TNN_E_VALUE, "%s = %d must be between %d and 2^24", d->names[i], (int) values[i], least);
            return 0;
        }
    }
    const int64_t rest = size + 2 * (int64_t) d->padding - (int64_t) d->dilation * (kernel - 1) - 1;
    if (rest < 0) {
        tnn__fail(s, TNN_E_VALUE, "the kernel spans %lld elements (%s = %d), but at most %lld are possible, the size of x with its padding",
                  (long long) (d->dilation * (kernel - 1) + 1), d->names[2], (int) d->dilation,
                  (long long) (size + 2 * (int64_t) d->padding));
        return 0;
    }
    return rest / d->stride + 1;
}

/* Checks the operands of a convolution. Returns the number of patches, or 0 with an error. */
static int64_t patches(tnn_session * s, const struct ggml_tensor * kernel, const struct ggml_tensor * x, const struct direction * w,
                       const struct direction * h) {
    const int channels = h != NULL ? 2 : 1;
    if (kernel->ne[channels] != x->ne[channels] || (h == NULL && x->ne[3] != 1)) {
        tnn__fail(s, TNN_E_VALUE, "kernel has shape %s and x has shape %s; their ne%d, the channels, must be equal%s", tnn__shape(kernel),
                  tnn__shape(x), channels, h == NULL ? ", and x must have at most three dimensions" : "");
        return 0;
    }
    if (ggml_nbytes(x) > INT32_MAX) { /* ggml keeps strides of x in int */
        tnn__fail(s, TNN_E_VALUE, "x, of shape %s, is larger than 2 GiB, ggml's limit for convolutions; use a smaller x", tnn__shape(x));
        return 0;
    }
    const int64_t out_w = out_size(s, w, x->ne[0], kernel->ne[0]);
    const int64_t out_h = out_w > 0 && h != NULL ? out_size(s, h, x->ne[1], kernel->ne[1]) : out_w > 0 ? 1 : 0;
    const int64_t n     = h != NULL ? x->ne[3] : x->ne[2];
    const int64_t patch = kernel->ne[0] * kernel->ne[1] * (h != NULL ? kernel->ne[2] : 1);
    if (out_h == 0) {
        return 0;
    }
    if (out_w > TNN_MAX_ELEMENTS / out_h || out_w * out_h > TNN_MAX_ELEMENTS / n || out_w * out_h * n > TNN_MAX_ELEMENTS / patch) {
        tnn__fail_elements(s, "the patches");
        return 0;
    }
    return out_w * out_h * n;
}

static struct ggml_tensor * kernel_operand(tnn_session * s, tnn_tensor kernel) {
    struct ggml_tensor * t = tnn__tensor(s, "kernel", kernel);
    if (t != NULL && t->type != GGML_TYPE_F32 && t->type != GGML_TYPE_F16) {
        tnn__fail(s, TNN_E_TYPE, "kernel has dtype %s, but it must be f32 or f16", ggml_type_name(t->type));
        return NULL;
    }
    return t != NULL && tnn__want_contiguous(s, "kernel", t) ? t : NULL;
}

tnn_tensor tnn_im2col(tnn_session * s, tnn_tensor kernel, tnn_tensor x, int32_t s0, int32_t s1, int32_t p0, int32_t p1, int32_t d0,
                      int32_t d1, int32_t is_2d) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    const struct direction w = { s0, p0, d0, { "s0", "p0", "d0" } }, h = { s1, p1, d1, { "s1", "p1", "d1" } };
    struct ggml_tensor * k = kernel_operand(s, kernel);
    struct ggml_tensor * t = k != NULL ? tnn__f32_operand(s, "x", x) : NULL;
    if (t == NULL) {
        return 0;
    }
    if (is_2d != 0 && is_2d != 1) {
        tnn__fail(s, TNN_E_VALUE, "is_2d = %d must be 0 or 1", (int) is_2d);
        return 0;
    }
    if (patches(s, k, t, &w, is_2d ? &h : NULL) == 0 || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_im2col(s->ctx_c, k, t, s0, is_2d ? s1 : 0, p0, is_2d ? p1 : 0, d0, is_2d ? d1 : 0, is_2d, GGML_TYPE_F32));
}

/* Checks the size of the result, which ggml permutes with strides in int. */
static bool want_result(tnn_session * s, int64_t n_patches, int64_t out_channels) {
    if (out_channels <= INT32_MAX / (int64_t) sizeof(float) / n_patches) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "the result would be larger than 2 GiB, ggml's limit for convolutions; use a smaller x");
    return false;
}

tnn_tensor tnn_conv_1d(tnn_session * s, tnn_tensor kernel, tnn_tensor x, int32_t s0, int32_t p0, int32_t d0) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    const struct direction w = { s0, p0, d0, { "s0", "p0", "d0" } };
    struct ggml_tensor * k = kernel_operand(s, kernel);
    struct ggml_tensor * t = k != NULL ? tnn__f32_operand(s, "x", x) : NULL;
    if (t == NULL) {
        return 0;
    }
    if (k->ne[3] != 1) {
        tnn__fail(s, TNN_E_VALUE, "kernel has shape %s, but it must be [kw, channels, out_channels]", tnn__shape(k));
        return 0;
    }
    const int64_t n = patches(s, k, t, &w, NULL);
    if (n == 0 || !want_result(s, n, k->ne[2]) || !tnn__reserve_nodes(s, 5)) {
        return 0;
    }
    return tnn__appended(s, 5, ggml_conv_1d(s->ctx_c, k, t, s0, p0, d0));
}

tnn_tensor tnn_conv_2d(tnn_session * s, tnn_tensor kernel, tnn_tensor x, int32_t s0, int32_t s1, int32_t p0, int32_t p1, int32_t d0,
                       int32_t d1) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    const struct direction w = { s0, p0, d0, { "s0", "p0", "d0" } }, h = { s1, p1, d1, { "s1", "p1", "d1" } };
    struct ggml_tensor * k = kernel_operand(s, kernel);
    struct ggml_tensor * t = k != NULL ? tnn__f32_operand(s, "x", x) : NULL;
    const int64_t        n = t != NULL ? patches(s, k, t, &w, &h) : 0;
    if (n == 0 || !want_result(s, n, k->ne[3]) || !tnn__reserve_nodes(s, 7)) {
        return 0;
    }
    return tnn__appended(s, 7, ggml_conv_2d(s->ctx_c, k, t, s0, s1, p0, p1, d0, d1));
}

static const char * refuses_im2col(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    return tnn__grad_needed(g, t->src[0]) ? "its kernel, of which only the shape is used, depends on a parameter; use tnn_detach" : NULL;
}

const struct tnn_op_rule tnn__convolution_rules[] = {
    { .op = GGML_OP_IM2COL, .differentiable = true, .refuses = refuses_im2col, .skips = TNN_OPERAND(0) },
    { .op = GGML_OP_NONE },
};
