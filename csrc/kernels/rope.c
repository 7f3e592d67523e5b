/* kernels/rope.c - rotary position embedding: computes the table of rotations, and rotates rows. */
#include "kernels/rope.h"

#include "kernels/kernel.h"
#include "kernels/parts.h"
#include "kernels/vec8.h"
#include "ops/operands.h"

void tnn__rotate(const float * x, int64_t x_row, const float * table, int64_t rows, int64_t d, bool inverse, float scale, float * out,
                 int64_t out_row) {
    const int64_t half = d / 2;
    const v8f     by   = v8_set1(scale);
    for (int64_t row = 0; row < rows; row++, x += x_row, out += out_row, table += d) {
        int64_t i = 0;
        for (; i + V8_LANES <= half; i += V8_LANES) {
            const v8f c = v8_load(table + i), s0 = v8_load(table + half + i), s = inverse ? -s0 : s0;
            const v8f a = v8_load(x + i), b = v8_load(x + half + i);
            v8_store(out + i, (a * c - b * s) * by);
            v8_store(out + half + i, (a * s + b * c) * by);
        }
        for (; i < half; i++) {
            const float c = table[i], s = inverse ? -table[half + i] : table[half + i];
            const float a = x[i], b = x[half + i];
            out[i]        = (a * c - b * s) * scale;
            out[half + i] = (a * s + b * c) * scale;
        }
    }
}

/* ------------------------------------------------------------------ the table */

struct rope_table {
    int32_t d_head;
    float   freq_base, freq_scale, attn_factor;
};

/* Computes the cosine and sine of each pair's angle at each position, in f64 and rounded to f32. A row has d_head/2
 * cosines, then d_head/2 sines. angle = freq_scale * position * base^(-2 pair / d_head) / factor. Operands: positions,
 * [frequency factors]. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct rope_table * p = k->params;
    const int32_t * position = dst->src[0]->data;
    const float   * factor   = dst->src[1] != NULL ? tnn__data(dst->src[1]) : NULL;
    const int64_t   pairs    = p->d_head / 2;
    int64_t begin, end;
    tnn__part(pairs, 1, ith, nth, &begin, &end);
    for (int64_t pair = begin; pair < end; pair++) {
        const double frequency = (double) p->freq_scale * pow((double) p->freq_base, -2.0 * (double) pair / (double) p->d_head)
                               / (factor != NULL ? (double) factor[pair] : 1.0);
        for (int64_t row = 0; row < dst->ne[1]; row++) {
            float * out = (float *) dst->data + row * dst->ne[0];
            const double angle = (double) position[row] * frequency;
            out[pair]         = (float) cos(angle) * p->attn_factor;
            out[pairs + pair] = (float) sin(angle) * p->attn_factor;
        }
    }
}

static const struct tnn_kernel_type ROPE_TABLE = { .name = "ROPE_TABLE", .run = run, .params_size = sizeof(struct rope_table) };

tnn_tensor tnn_fused_rope_table(tnn_session * s, tnn_tensor positions, tnn_tensor freq_factors, int32_t d_head, float freq_base,
                                float freq_scale, float attn_factor) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * args[2] = { tnn__index_operand(s, "positions", positions), NULL };
    if (args[0] == NULL || !tnn__want_finite(s, "freq_scale", freq_scale) || !tnn__want_finite(s, "attn_factor", attn_factor)
        || !tnn__want_freq_base(s, freq_base)) {
        return 0;
    }
    if (d_head < 2 || d_head % 2 != 0) {
        tnn__fail(s, TNN_E_VALUE, "d_head = %d must be even and at least 2", (int) d_head);
        return 0;
    }
    if (d_head > TNN_MAX_ELEMENTS / args[0]->ne[0]) {
        tnn__fail_elements(s, "the table");
        return 0;
    }
    if (freq_factors != 0) {
        args[1] = tnn__f32_operand(s, "freq_factors", freq_factors);
        if (args[1] == NULL) {
            return 0;
        }
        if (!ggml_is_vector(args[1]) || args[1]->ne[0] != d_head / 2) {
            tnn__fail(s, TNN_E_VALUE, "freq_factors has shape %s, but it must be [d_head / 2] = [%d]",
                      tnn__shape(args[1]), (int) d_head / 2);
            return 0;
        }
    }
    if (!tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    const struct rope_table p = { .d_head = d_head, .freq_base = freq_base, .freq_scale = freq_scale, .attn_factor = attn_factor };
    return tnn__handle(s, tnn__kernel_node(s, &ROPE_TABLE, &p, d_head, args[0]->ne[0], args, args[1] != NULL ? 2 : 1));
}
