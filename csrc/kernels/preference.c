/* kernels/preference.c - the losses of preference pairs (DPO and related losses), from the losses of the rows.
 *
 * The sequences of a batch come in pairs. The first sequence of a pair is preferred (chosen), and the second is not
 * (rejected). The change of a sequence is its log-probability minus its log-probability in the reference model. The
 * margin of a pair is the change of its chosen sequence minus the change of its rejected sequence.
 *
 * PREFERENCE_PAIRS computes the loss of each pair, and for each sequence the derivative of the mean loss with respect to
 * the sum of the row losses of the sequence. The gradient of the cross entropy of each row is multiplied by this
 * derivative, the weight of the sequence.
 */
#include "graph/gradients.h"
#include "kernels/cross_entropy.h"
#include "kernels/parts.h"
#include "ops/operands.h"

#include <math.h>

struct pairs {
    int32_t kind;      /* enum tnn_preference */
    int32_t ignore;    /* the target id that is ignored */
    int64_t sequences; /* number of sequences */
};

/* The values of the operand `settings`. */
enum { BETA, LABEL_SMOOTHING, DIVISOR, SETTINGS };

/* A sequence. loss: the sum of its row losses, which is its negative log-probability. counted: number of its targets. */
struct sequence {
    double  loss;
    int64_t counted;
};

static struct sequence add_rows(const float * losses, const int32_t * targets, int32_t ignore, int64_t n) {
    struct sequence sum = { 0.0, 0 };
    for (int64_t row = 0; row < n; row++) {
        sum.loss += (double) losses[row];
        sum.counted += targets[row] != ignore;
    }
    return sum;
}

/* Rounds x to the sum of two f32 numbers, which is how a caller passes the log-probability in the reference model.
 * So if a model equals its reference model, the margin is exactly 0. */
static double in_two_parts(double x) {
    const float high = (float) x;
    return (double) high + (double) (float) (x - (double) high);
}

/* Returns -log(sigmoid(z)), and sets *sigmoid to sigmoid(-z). For a large |z|, log(1 + e) would
 * lose the digits of e = exp(-|z|). */
static double minus_log_sigmoid(double z, double * sigmoid) {
    const double e     = exp(-fabs(z));
    const double log_1_e = e < 0x1p-27 ? e : log(1.0 + e);
    *sigmoid = z > 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e);
    return z > 0.0 ? log_1_e : log_1_e - z;
}

/* Returns the loss of a pair. Sets *slope to the derivative of the loss with respect to the margin. */
static double loss_of_pair(int32_t kind, const float * settings, double margin, double * slope) {
    const double beta = (double) settings[BETA], smoothing = (double) settings[LABEL_SMOOTHING];
    if (kind == TNN_PREFERENCE_IPO) {
        const double distance = margin - 1.0 / (2.0 * beta);
        *slope = 2.0 * distance;
        return distance * distance;
    }
    if (kind == TNN_PREFERENCE_HINGE) {
        *slope = 1.0 - beta * margin > 0.0 ? -beta : 0.0;
        return 1.0 - beta * margin > 0.0 ? 1.0 - beta * margin : 0.0;
    }
    double wrong, right;
    const double loss    = minus_log_sigmoid(beta * margin, &wrong);
    const double flipped = minus_log_sigmoid(-beta * margin, &right);
    *slope = beta * (smoothing * right - (1.0 - smoothing) * wrong);
    return (1.0 - smoothing) * loss + smoothing * flipped;
}

/* Computes [pairs, 3]: the losses of the pairs, then the weights of the sequences. Operands: losses of the rows, targets,
 * log-probabilities in the reference model, settings. */
static void run_pairs(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) scratch;
    const struct pairs * p         = k->params;
    const int64_t        n         = p->sequences, rows = dst->src[0]->ne[0] / n;
    const float        * losses    = tnn__data(dst->src[0]), * settings = tnn__data(dst->src[3]);
    const float        * reference = tnn__data(dst->src[2]);
    const int32_t      * targets   = dst->src[1]->data;
    float              * loss      = dst->data, * weight = loss + n / 2;
    const bool           means     = p->kind == TNN_PREFERENCE_IPO;
    const double         divisor   = (double) settings[DIVISOR];
    int64_t begin, end;
    tnn__part(n / 2, 1, ith, nth, &begin, &end);
    for (int64_t pair = begin; pair < end; pair++) {
        double change[2], scale[2], slope;
        for (int64_t i = 2 * pair; i < 2 * pair + 2; i++) {
            const struct sequence one = add_rows(losses + i * rows, targets + i * rows, p->ignore, rows);
            const double before = (double) reference[i] + (double) reference[n + i];
            scale[i % 2]  = means && one.counted > 0 ? 1.0 / (double) one.counted : 1.0;
            change[i % 2] = (-in_two_parts(one.loss) - before) * scale[i % 2];
        }
        loss[pair]           = (float) loss_of_pair(p->kind, settings, change[0] - change[1], &slope);
        weight[2 * pair]     = (float) (-slope * scale[0] / divisor);
        weight[2 * pair + 1] = (float) (slope * scale[1] / divisor);
    }
}

/* Computes the sum of the losses of the pairs, in the order of kernels/window_sums.h, and divides the sum by the divisor.
 * Operands: result of PREFERENCE_PAIRS, settings. */
static void run_mean(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    (void) nth;
    (void) scratch;
    if (ith != 0) {
        return;
    }
    const int64_t pairs = ((const struct pairs *) k->params)->sequences / 2;
    const double  sum   = tnn__sum_of_losses(tnn__data(dst->src[0]), pairs, pairs);
    *(float *) dst->data = (float) (sum / (double) tnn__data(dst->src[1])[DIVISOR]);
}

/* Checks that the sum of the losses is not divided by 0, and that the loss has a minimum. */
static int check_settings(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * node) {
    (void) k;
    const float * settings = tnn__data(node->src[1]);
    static const char * const NAMES[SETTINGS] = { "beta", "label_smoothing", "divisor" };
    for (int i = 0; i < SETTINGS; i++) {
        const float x  = settings[i];
        const bool  ok = i == LABEL_SMOOTHING ? x >= 0.0f && x < 0.5f : x > 0.0f && x < INFINITY;
        if (!ok) {
            return tnn__fail(s, TNN_E_VALUE, "settings[%d], which is %s, must be %s, got %g", i, NAMES[i],
                             i == LABEL_SMOOTHING ? "at least 0 and below 0.5" : "finite and above 0", (double) x);
        }
    }
    return TNN_OK;
}

static void backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    (void) grad;
    struct ggml_tensor * pairs = node->src[0], * rows = pairs->src[0];
    const int64_t        n     = ((const struct pairs *) tnn__kernel_of(pairs)->params)->sequences;
    tnn__weighted_backward(g, rows, pairs, rows->ne[0] / n);
}

static const struct tnn_kernel_type PREFERENCE = {
    .name = "PREFERENCE", .run = run_mean, .backward = backward, .differentiable = TNN_OPERAND(0), .is_loss = true,
    .check = check_settings, .params_size = sizeof(struct pairs),
};
static const struct tnn_kernel_type PREFERENCE_PAIRS = {
    .name = "PREFERENCE_PAIRS", .run = run_pairs, .part_of = &PREFERENCE, .reads_row_losses = true,
    .params_size = sizeof(struct pairs),
};

/* Returns an operand that must be an f32 input of n elements, whose values are known before the graph runs. */
static struct ggml_tensor * input_operand(tnn_session * s, const char * arg, tnn_tensor h, int64_t n, const char * what) {
    struct ggml_tensor * t = tnn__f32_operand(s, arg, h);
    if (t != NULL && (ggml_nelements(t) != n || !tnn__entry_of(s, t)->is_input)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must be an input of %s", arg, tnn__shape(t), what);
        return NULL;
    }
    return t;
}

tnn_tensor tnn_fused_preference_loss(tnn_session * s, tnn_tensor cross_entropy, tnn_tensor reference, tnn_tensor settings,
                                     int32_t kind) {
    struct ggml_tensor * ce = tnn__enter(s, __func__) ? tnn__tensor(s, "cross_entropy", cross_entropy) : NULL;
    if (ce == NULL) {
        return 0;
    }
    if (!tnn__is_cross_entropy(ce)) {
        tnn__fail(s, TNN_E_VALUE, "cross_entropy (%s) must be a result of tnn_fused_cross_entropy or tnn_fused_output_loss",
                  ggml_get_name(ce));
        return 0;
    }
    if (kind < TNN_PREFERENCE_SIGMOID || kind > TNN_PREFERENCE_IPO) {
        tnn__fail(s, TNN_E_VALUE, "kind = %d must be a value of enum tnn_preference, 0 to %d", (int) kind, TNN_PREFERENCE_IPO);
        return 0;
    }
    struct ggml_tensor * tr = tnn__f32_operand(s, "reference", reference), * rows = ce->src[0];
    if (tr == NULL) {
        return 0;
    }
    const int64_t sequences = tr->ne[0];
    if (sequences % 2 != 0 || rows->ne[0] % sequences != 0) {
        tnn__fail(s, TNN_E_VALUE, "reference has shape %s, but it must be [sequences, 2], and the number of sequences must be even "
                                  "and divide the %lld rows of cross_entropy", tnn__shape(tr), (long long) rows->ne[0]);
        return 0;
    }
    tr = input_operand(s, "reference", reference, 2 * sequences, "shape [sequences, 2]");
    struct ggml_tensor * ts = tr != NULL ? input_operand(s, "settings", settings, SETTINGS, "shape [3]") : NULL;
    if (ts == NULL || !tnn__reserve_nodes(s, 2)) {
        return 0;
    }
    const struct pairs   params = { .kind = kind, .ignore = tnn__ignored_id(ce), .sequences = sequences };
    struct ggml_tensor * args[] = { rows, ce->src[1], tr, ts };
    struct ggml_tensor * pairs  = tnn__kernel_node(s, &PREFERENCE_PAIRS, &params, sequences / 2, 3, args, 4);
    if (pairs == NULL) {
        return 0;
    }
    ggml_set_name(pairs, "pairs");
    args[0] = pairs;
    args[1] = ts;
    return tnn__handle(s, tnn__kernel_node(s, &PREFERENCE, &params, 1, 1, args, 2));
}
