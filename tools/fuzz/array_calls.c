/* array_calls.c - the calls of tinynn.h that take memory, or that no session belongs to. An array is as long as the call says and
 * no longer, so that AddressSanitizer sees what is read or written beyond it. All others are generated: write_calls.py.
 */
#include "array_calls.h"

#include <stdlib.h>
#include <string.h>

/* 0..223: as many as t has. Else any number. */
static int64_t length_for(struct decoder * d, tnn_tensor t) {
    const uint8_t k = byte_of(d);
    const int64_t n = d->here->s != NULL ? tnn_tensor_nelements(d->here->s, t) : 3;
    return k < 224 ? n : int64_of(d);
}

/* Memory that is not there must not be said to be. */
static int64_t length_of(const void * data, int64_t n) {
    return data != NULL || n < 0 ? n : 0;
}

/* ------------------------------------------------------------------ sessions */

void call_tnn_session_new(struct decoder * d) {
    struct slot * slot = &d->slots[byte_of(d) % MAX_SESSIONS];
    const int32_t kind = int32_of(d);
    d->calls++;
    if (slot->s == NULL && kind == 0) {
        open_slot(d, slot);
    } else if (kind != 0) {
        HOLDS(tnn_session_new(kind) == NULL);
        HOLDS(tnn_last_error_code(NULL) == TNN_E_VALUE && strstr(tnn_last_error(NULL), "kind") != NULL);
        d->refused++;
    }
}

void call_tnn_session_free(struct decoder * d) {
    d->calls++;
    close_slot(&d->slots[byte_of(d) % (MAX_SESSIONS + 1)]);
}

void call_tnn_session_set_n_threads(struct decoder * d) {
    static const int32_t NS[] = { 1, 2, 3, 0, -1, 513, INT32_MAX, INT32_MIN }; /* hundreds of them are only slow */
    begin(d, "tnn_session_set_n_threads");
    const int32_t n = NS[byte_of(d) % 8];
    end_status(d, tnn_session_set_n_threads(d->here->s, n, 1));
}

void call_tnn_reset_for_rebuild(struct decoder * d) {
    begin(d, "tnn_reset_for_rebuild");
    const int code = tnn_reset_for_rebuild(d->here->s);
    end_status(d, code);
    if (code == TNN_OK) {
        forget_the_graph(d);
    }
}

/* ------------------------------------------------------------------ operators over lists */

static int32_t list_length(struct decoder * d) {
    const uint8_t k = byte_of(d);
    return k < 252 ? k % 8 : k % 2 == 0 ? -1 : 4097;
}

void call_tnn_concat_n(struct decoder * d) {
    begin(d, "tnn_concat_n");
    const int32_t n     = list_length(d), dim = int32_of(d);
    tnn_tensor  * parts = tensors_of(d, n);
    end_tensor(d, tnn_concat_n(d->here->s, parts, n, dim));
    free(parts);
}

void call_tnn_fused_linear(struct decoder * d) {
    begin(d, "tnn_fused_linear");
    const tnn_tensor x       = tensor_of(d);
    const int32_t    n       = list_length(d);
    tnn_tensor     * weights = tensors_of(d, n);
    tnn_tensor     * biases  = byte_of(d) % 4 == 1 ? tensors_of(d, n) : NULL;
    const tnn_tensor add     = byte_of(d) % 2 == 1 ? tensor_of(d) : 0;
    end_tensor(d, tnn_fused_linear(d->here->s, x, weights, biases, n, add));
    free(weights);
    free(biases);
}

void call_tnn_fused_grad_norm(struct decoder * d) {
    begin(d, "tnn_fused_grad_norm");
    const int32_t    n     = list_length(d);
    tnn_tensor     * grads = tensors_of(d, n);
    const tnn_tensor clip  = tensor_of(d);
    end_tensor(d, tnn_fused_grad_norm(d->here->s, grads, n, clip));
    free(grads);
}

/* ------------------------------------------------------------------ data */

void call_tnn_upload_from_float_array(struct decoder * d) {
    begin(d, "tnn_upload_from_float_array");
    const tnn_tensor t    = tensor_of(d);
    const int64_t    n    = length_for(d, t);
    float          * data = floats_of(d, n);
    end_status(d, tnn_upload_from_float_array(d->here->s, t, data, length_of(data, n)));
    free(data);
}

void call_tnn_upload_from_int_array(struct decoder * d) {
    begin(d, "tnn_upload_from_int_array");
    const tnn_tensor t    = tensor_of(d);
    const int64_t    n    = length_for(d, t);
    int32_t        * data = ints_of(d, n);
    end_status(d, tnn_upload_from_int_array(d->here->s, t, data, length_of(data, n)));
    free(data);
}

void call_tnn_download(struct decoder * d) {
    begin(d, "tnn_download");
    const tnn_tensor t    = tensor_of(d);
    const int64_t    n    = length_for(d, t);
    float          * data = floats_of(d, n);
    end_status(d, tnn_download(d->here->s, t, data, length_of(data, n)));
    free(data);
}

void call_tnn_download_to_int_array(struct decoder * d) {
    begin(d, "tnn_download_to_int_array");
    const tnn_tensor t    = tensor_of(d);
    const int64_t    n    = length_for(d, t);
    int32_t        * data = ints_of(d, n);
    end_status(d, tnn_download_to_int_array(d->here->s, t, data, length_of(data, n)));
    free(data);
}

void call_tnn_tensor_set_name(struct decoder * d) {
    begin(d, "tnn_tensor_set_name");
    const tnn_tensor t    = tensor_of(d);
    char           * name = text_of(d);
    const int        code = tnn_tensor_set_name(d->here->s, t, name);
    end_status(d, code);
    if (code == TNN_OK) {
        HOLDS(strcmp(tnn_tensor_name(d->here->s, t), name) == 0);
    }
    free(name);
}

/* ------------------------------------------------------------------ training */

void call_tnn_train_step(struct decoder * d) {
    begin(d, "tnn_train_step");
    tnn_session  * s    = d->here->s;
    tnn_step       step;
    step.ids     = tensor_of(d);
    step.targets = tensor_of(d);
    step.hp      = tensor_of(d);
    step.loss    = tensor_of(d);
    step.norm    = byte_of(d) % 2 == 1 ? tensor_of(d) : 0;
    const int64_t  n    = length_for(d, step.ids), n_hp = length_for(d, step.hp);
    int32_t      * ids  = ints_of(d, n), * targets = ints_of(d, n);
    float        * hp   = floats_of(d, n_hp);
    const int32_t  mode = int32_of(d);
    const uint8_t  null = byte_of(d); /* which of the pointers are NULL */
    float        * loss = malloc(sizeof(*loss)), * norm = malloc(sizeof(*norm));
    if (!takes_long(d)) {
        end_status(d, tnn_train_step(s, null == 255 ? NULL : &step, ids, targets, ids != NULL && targets != NULL ? n : 0, hp,
                                     length_of(hp, n_hp), mode, null == 254 ? NULL : loss, null % 4 == 3 ? NULL : norm));
    }
    free(ids);
    free(targets);
    free(hp);
    free(loss);
    free(norm);
}

void call_tnn_compute_profiled(struct decoder * d) {
    begin(d, "tnn_compute_profiled");
    const int64_t n       = byte_of(d) < 224 ? tnn_graph_n_nodes(d->here->s) : int64_of(d);
    double      * seconds = n >= 0 && n < 4096 ? malloc((size_t) n * sizeof(*seconds) + (n == 0)) : NULL;
    if (!takes_long(d)) {
        end_status(d, tnn_compute_profiled(d->here->s, seconds, length_of(seconds, n)));
    }
    free(seconds);
}

/* ------------------------------------------------------------------ without a session */

void call_tnn_last_error(struct decoder * d) {
    const char * text = tnn_last_error(d->here->s);
    HOLDS(text != NULL && strlen(text) < 512);
    d->calls++;
}

void call_tnn_last_error_code(struct decoder * d) {
    const int code = tnn_last_error_code(d->here->s);
    HOLDS(code >= TNN_OK && code < TNN_E_INTERNAL);
    d->calls++;
}

void call_tnn_gemm_kernel_at(struct decoder * d) {
    const int32_t i    = int32_of(d);
    const char  * name = tnn_gemm_kernel_at(i);
    HOLDS(i != 0 || name != NULL);
    HOLDS((i >= 0 && i < 2) || name == NULL);
    d->calls++;
}

void call_tnn_gemm_use_kernel(struct decoder * d) {
    char    * name = text_of(d);
    const int code = tnn_gemm_use_kernel(name);
    HOLDS(code == TNN_OK ? name != NULL && strcmp(tnn_gemm_kernel(), name) == 0 : code == TNN_E_VALUE);
    d->calls++;
    d->refused += code != TNN_OK;
    free(name);
}

void call_tnn_random_seed(struct decoder * d) {
    uint64_t    * state = byte_of(d) != 255 ? malloc(sizeof(*state)) : NULL;
    const int32_t kind  = int32_of(d);
    const int     code  = tnn_random_seed(kind, int64_of(d), state);
    HOLDS(code == (state != NULL && (kind == 0 || kind == 1) ? TNN_OK : TNN_E_VALUE));
    d->calls++;
    d->refused += code != TNN_OK;
    free(state);
}

void call_tnn_random_gaussian(struct decoder * d) {
    uint64_t    * state = malloc(sizeof(*state));
    const int32_t kind  = int32_of(d);
    const int64_t n     = byte_of(d) % 16 == 15 ? -1 : byte_of(d);
    float       * data  = floats_of(d, n);
    if (state != NULL) {
        *state = word_of(d);
        const int code = tnn_random_gaussian(kind, state, double_of(d), data, n);
        HOLDS(code == TNN_OK || code == TNN_E_VALUE);
        d->refused += code != TNN_OK;
    }
    d->calls++;
    free(state);
    free(data);
}
