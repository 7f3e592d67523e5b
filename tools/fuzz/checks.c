/* checks.c - checks after every call that the call kept the promises of tinynn.h. */
#include "decoder.h"
#include "sessions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void broken(const struct decoder * d, const char * promise) {
    tnn_session * s = d->here->s;
    fprintf(stderr, "fuzz: after %s (call %d, code %d, message \"%s\") this does not hold: %s\n", d->call, d->calls,
            tnn_last_error_code(s), tnn_last_error(s), promise);
    abort();
}

/* Returns the state of a session. Only the flags of the newest tensors are compared, because calls use these
 * tensors most often. */
static struct standing standing(const struct slot * slot) {
    tnn_session * s     = slot->s;
    int64_t       flags = 0;
    for (int i = slot->n_live > 4 ? slot->n_live - 4 : 0; i < slot->n_live; i++) {
        flags = flags << 5 | tnn_tensor_flags(s, slot->live[i]);
    }
    return (struct standing) {
        .capacity  = tnn_session_graph_capacity(s),
        .n_threads = tnn_session_n_threads(s),
        .weights   = tnn_session_weights_nbytes(s),
        .compute   = tnn_session_compute_nbytes(s),
        .nodes     = tnn_graph_n_nodes(s),
        .flags     = flags,
    };
}

bool say_calls;

static void say(const struct decoder * d, int code, const char * text) {
    if (say_calls) {
        fprintf(stderr, "fuzz: session %d: %s%s\n", (int) (d->here - d->slots), code == TNN_OK ? d->call : "", text);
    }
}

void begin(struct decoder * d, const char * call) {
    d->call   = call;
    d->before = standing(d->here);
    d->calls++;
}

/* Checks that error code and message agree and that a refused call changed nothing. Returns the code. */
static int end(struct decoder * d, bool failed) {
    tnn_session * s    = d->here->s;
    const int     code = tnn_last_error_code(s);
    const char  * text = tnn_last_error(s);
    if (s == NULL) { /* without a session, the error belongs to the thread, and stays until the next error of the thread */
        HOLDS(failed && code == TNN_E_STATE);
        say(d, code, text);
        d->refused++;
        return code;
    }
    say(d, code, text);
    HOLDS(failed == (code != TNN_OK));
    HOLDS(failed == (text[0] != '\0'));
    if (failed) {
        const size_t name = strlen(d->call);
        HOLDS(code > TNN_OK && code < TNN_E_INTERNAL);
        HOLDS(strncmp(text, d->call, name) == 0 && text[name] == ':' && text[name + 1] == ' ' && strlen(text) > name + 8);
        const struct standing now = standing(d->here);
        HOLDS(memcmp(&now, &d->before, sizeof(now)) == 0);
        d->refused++;
    }
    return code;
}

void end_status(struct decoder * d, int code) {
    HOLDS(end(d, code != TNN_OK) == code || d->here->s == NULL);
}

void end_count(struct decoder * d, int64_t n) {
    HOLDS(end(d, n < 0) == (n < 0 ? -n : 0) || d->here->s == NULL);
}

void end_text(struct decoder * d, const char * text) {
    end(d, text == NULL);
    HOLDS(text == NULL || strlen(text) < 4096);
}

static void keep(struct slot * slot, tnn_tensor t) {
    for (int i = 0; i < slot->n_live; i++) {
        if (slot->live[i] == t) {
            return;
        }
    }
    if (slot->n_live == MAX_LIVE) { /* the handles in the first half of the list are kept, because they include the weights */
        memmove(slot->live + MAX_LIVE / 2, slot->live + MAX_LIVE / 2 + 1, (MAX_LIVE / 2 - 1) * sizeof(t));
        slot->n_live--;
    }
    slot->live[slot->n_live++] = t;
}

void end_maybe_tensor(struct decoder * d, tnn_tensor t) {
    tnn_session * s = d->here->s;
    end(d, s == NULL || tnn_last_error_code(s) != TNN_OK);
    if (t == 0) {
        return;
    }
    HOLDS(t > 0 && s != NULL && tnn_last_error_code(s) == TNN_OK);
    const int64_t n = tnn_tensor_nelements(s, t);
    HOLDS(n >= 1 && n <= INT32_MAX);
    HOLDS(n == tnn_tensor_ne0(s, t) * tnn_tensor_ne1(s, t) * tnn_tensor_ne2(s, t) * tnn_tensor_ne3(s, t));
    keep(d->here, t);
}

void end_tensor(struct decoder * d, tnn_tensor t) {
    HOLDS((t == 0) == (d->here->s == NULL || tnn_last_error_code(d->here->s) != TNN_OK));
    end_maybe_tensor(d, t);
}

/* Computing a graph takes long if the graph has about this number of multiplications. */
#define A_MOMENT (INT64_C(1) << 23)

bool takes_long(struct decoder * d) {
    tnn_session * s    = d->here->s;
    const int64_t n    = tnn_graph_n_nodes(s);
    int64_t       cost = 0;
    for (int64_t i = 0; i < n && cost < A_MOMENT; i++) {
        const tnn_tensor node = tnn_graph_node(s, i), src = tnn_tensor_src(s, node, 0);
        const int64_t    ne0 = src != 0 ? tnn_tensor_ne0(s, src) : 1, ne1 = src != 0 ? tnn_tensor_ne1(s, src) : 1;
        cost += tnn_tensor_nelements(s, node) * (ne0 > ne1 ? ne0 : ne1) + (src != 0 ? tnn_tensor_nelements(s, src) : 0);
    }
    return cost >= A_MOMENT;
}

void check_usable(struct decoder * d, struct slot * slot) {
    tnn_session * s = slot->s;
    float         data[6], result[6];
    if (s == NULL) {
        return;
    }
    d->here = slot;
    d->call = "the end";
    tnn_finalize_weights(s);
    if (tnn_last_error_code(s) == TNN_E_MEMORY) { /* the weights may be too large for any machine */
        return;
    }
    HOLDS(tnn_reset_for_rebuild(s) == TNN_OK);
    HOLDS(tnn_session_set_graph_capacity(s, 32) == TNN_OK);
    const tnn_tensor x = tnn_input_2d_f32(s, 2, 3);
    const tnn_tensor y = tnn_scale(s, tnn_add(s, x, x), 0.75f);
    HOLDS(y > 0 && tnn_last_error_code(s) == TNN_OK);
    HOLDS(tnn_realize(s, y) == TNN_OK);
    HOLDS(tnn_compute(s) == TNN_E_STATE); /* refused, because x is not uploaded yet */
    for (int i = 0; i < 6; i++) {
        data[i] = (float) i - 2.5f;
    }
    HOLDS(tnn_upload_from_float_array(s, x, data, 6) == TNN_OK);
    HOLDS(tnn_compute(s) == TNN_OK);
    HOLDS(tnn_download(s, y, result, 6) == TNN_OK);
    for (int i = 0; i < 6; i++) {
        HOLDS(result[i] == 1.5f * data[i]);
    }
}
