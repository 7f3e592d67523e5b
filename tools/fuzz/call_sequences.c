/* call_sequences.c - sequences of calls that random single calls rarely form, such as a whole training step. Each call may be refused. */
#include "array_calls.h"

#include <stdlib.h>
#include <string.h>

#define LARGEST (1 << 16) /* number of elements; larger inputs are filled with zeros */

/* A call of the session with the checks of calls.c: TRY(status, tnn_set_output, s, t). */
#define TRY(kind, function, ...) (begin(d, #function), end_##kind(d, function(__VA_ARGS__)))

void call_use_session(struct decoder * d) {
    d->here = &d->slots[byte_of(d) % (MAX_SESSIONS + 1)];
}

static bool is_input(tnn_session * s, tnn_tensor t) {
    const char * op = tnn_tensor_op_name(s, t);
    return op != NULL && strcmp(op, "NONE") == 0;
}

/* Fills every input, usually with useful values. */
void call_feed(struct decoder * d) {
    tnn_session * s = d->here->s;
    for (int i = 0; i < d->here->n_live; i++) {
        const tnn_tensor t = d->here->live[i];
        const int64_t    n = tnn_tensor_nelements(s, t);
        if (!is_input(s, t)) {
            continue;
        }
        if (n > LARGEST) {
            begin(d, "tnn_zero_tensor");
            end_status(d, tnn_zero_tensor(s, t));
        } else if (tnn_tensor_dtype(s, t) == TNN_I32) {
            int32_t * data = ints_of(d, n);
            begin(d, "tnn_upload_from_int_array");
            end_status(d, tnn_upload_from_int_array(s, t, data, n));
            free(data);
        } else {
            float * data = floats_of(d, n);
            begin(d, "tnn_upload_from_float_array");
            end_status(d, tnn_upload_from_float_array(s, t, data, n));
            free(data);
        }
    }
}

/* Downloads all tensors that can be downloaded. */
void call_look(struct decoder * d) {
    tnn_session * s = d->here->s;
    for (int i = 0; i < d->here->n_live; i++) {
        const tnn_tensor t    = d->here->live[i];
        const int64_t    n    = tnn_tensor_nelements(s, t);
        void           * data = n <= LARGEST ? malloc((size_t) n * 4) : NULL;
        if (data != NULL && tnn_tensor_dtype(s, t) == TNN_I32) {
            begin(d, "tnn_download_to_int_array");
            end_status(d, tnn_download_to_int_array(s, t, data, n));
        } else if (data != NULL) {
            begin(d, "tnn_download");
            end_status(d, tnn_download(s, t, data, n));
        }
        free(data);
    }
}

static tnn_tensor newest_or_another(struct decoder * d) {
    const uint8_t k = byte_of(d);
    return k < 192 && d->here->n_live > 0 ? d->here->live[d->here->n_live - 1] : tensor_of(d);
}

void call_finish_forward(struct decoder * d) {
    const tnn_tensor out  = newest_or_another(d);
    const uint8_t    pins = byte_of(d);
    for (int i = 0; pins % 2 == 1 && i < d->here->n_live; i++) {
        TRY(status, tnn_set_output, d->here->s, d->here->live[i]);
    }
    TRY(status, tnn_realize, d->here->s, out);
    call_feed(d);
    if (!takes_long(d)) {
        TRY(status, tnn_compute, d->here->s);
    }
    call_look(d);
}

/* Adds the gradient of a weight and, if two other inputs fit, its optimizer step.
 * m and v are the next two inputs of the weight's shape. */
static void optimize(struct decoder * d, int place, tnn_tensor hp, bool fused, bool keep) {
    tnn_session    * s = d->here->s;
    const tnn_tensor w = d->here->live[place];
    tnn_tensor       moments[2];
    int              n = 0;
    begin(d, "tnn_tensor_grad");
    const tnn_tensor grad = tnn_tensor_grad(s, w);
    end_tensor(d, grad);
    for (int i = place + 1; i < d->here->n_live && n < 2; i++) {
        if (is_input(s, d->here->live[i]) && tnn_tensor_nelements(s, d->here->live[i]) == tnn_tensor_nelements(s, w)) {
            moments[n++] = d->here->live[i];
        }
    }
    if (grad != 0 && keep) {
        TRY(status, tnn_set_output, d->here->s, grad);
    }
    if (grad != 0 && n == 2) {
        begin(d, fused ? "tnn_fused_adamw" : "tnn_opt_step_adamw");
        const tnn_tensor step = fused ? tnn_fused_adamw(s, w, grad, moments[0], moments[1], hp, 0, 0, 0)
                                      : tnn_opt_step_adamw(s, w, grad, moments[0], moments[1], hp);
        end_tensor(d, step);
        TRY(status, tnn_extend_backward_graph, d->here->s, step);
    }
}

void call_finish_backward(struct decoder * d) {
    const tnn_tensor loss  = newest_or_another(d);
    const uint8_t    style = byte_of(d);
    tnn_session    * s     = d->here->s;
    TRY(status, tnn_set_output, d->here->s, loss);
    TRY(status, tnn_set_loss, d->here->s, loss);
    TRY(status, tnn_build_forward_only, d->here->s, loss);
    TRY(status, tnn_build_backward, d->here->s);
    begin(d, "tnn_input_1d_f32");
    const tnn_tensor hp = tnn_input_1d_f32(s, 7);
    end_tensor(d, hp);
    for (int i = 0, n = d->here->n_live; i < n && i < d->here->n_live; i++) {
        const int64_t flags = tnn_tensor_flags(s, d->here->live[i]);
        if (flags > 0 && (flags & TNN_FLAG_PARAM) != 0) {
            optimize(d, i, hp, style % 2 == 1, style % 4 >= 2);
        }
    }
    if (style % 16 == 15) {
        TRY(status, tnn_pin_all_graph_b_nodes, d->here->s);
    }
    TRY(status, tnn_realize_backward, d->here->s);
    call_feed(d);
    TRY(status, tnn_graph_reset, d->here->s);
    if (!takes_long(d)) {
        TRY(status, tnn_compute_backward, d->here->s);
    }
    call_look(d);
}
