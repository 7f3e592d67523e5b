/* sessions.c - plays one input: creates sessions, makes the calls of the input, and frees the sessions. */
#include "sessions.h"

#include "decoder.h"

void open_slot(struct decoder * d, struct slot * slot) {
    slot->n_live = slot->n_stale = 0;
    slot->s = tnn_session_new(0);
    HOLDS(slot->s != NULL);
    /* With one thread and a small graph, an input is fast and soon reaches the limit of the graph. The input may change both values. */
    HOLDS(tnn_session_set_n_threads(slot->s, 1, 0) == TNN_OK);
    HOLDS(tnn_session_set_graph_capacity(slot->s, 512) == TNN_OK);
}

void close_slot(struct slot * slot) {
    tnn_session_free(slot->s);
    slot->s      = NULL;
    slot->n_live = slot->n_stale = 0;
}

void forget_the_graph(struct decoder * d) {
    struct slot * slot = d->here;
    int           kept = 0;
    for (int i = 0; i < slot->n_live; i++) {
        if (tnn_tensor_ne0(slot->s, slot->live[i]) > 0) {
            slot->live[kept++] = slot->live[i];
        } else {
            HOLDS(tnn_last_error_code(slot->s) == TNN_E_STATE);
            slot->stale[slot->n_stale < MAX_STALE ? slot->n_stale++ : i % MAX_STALE] = slot->live[i];
        }
    }
    slot->n_live = kept;
}

void play(const uint8_t * data, size_t size, struct tally * tally) {
    struct decoder decoder = { .at = data, .end = data + size, .call = "the beginning" }, * d = &decoder;
    d->here = &d->slots[0];
    tnn_gemm_use_kernel(tnn_gemm_kernel_at(0)); /* an earlier input may have chosen another kernel for the process */
    open_slot(d, &d->slots[0]);
    open_slot(d, &d->slots[1]);
    while (d->at < d->end && d->calls < MAX_CALLS) {
        d->ne0 = d->nelements = 1;
        CALLS[byte_of(d) % N_CALLS].run(d);
    }
    for (int i = 0; i < MAX_SESSIONS; i++) {
        check_usable(d, &d->slots[i]);
        close_slot(&d->slots[i]);
    }
    tally->calls += d->calls;
    tally->refused += d->refused;
}
