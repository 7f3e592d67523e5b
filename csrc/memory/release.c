/* memory/release.c - frees everything that a session owns. Only this file knows the owner of each piece of memory. */
#define _GNU_SOURCE
#include "memory/release.h"

#include "machine/bus_error.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void tnn__release_pool(tnn_session * s) {
    if (s->pool != NULL) {
        ggml_threadpool_free(s->pool);
        s->pool = NULL;
    }
    tnn__threads_free(s->threads);
    s->threads = NULL;
}

void tnn__release_groups(tnn_session * s) {
    free(s->group_end);
    free(s->leaders);
    s->group_end = NULL;
    s->leaders   = NULL;
    s->n_leaders = 0;
}

void tnn__release_windows(tnn_session * s) {
    tnn__whole_step(&s->windows);
    memset(s->windows.stored, 0, sizeof(s->windows.stored));
    s->next_window = -1;
    s->next_node   = -1;
    s->stored_size = 0;
}

void tnn__release_graphs(tnn_session * s) {
    tnn__release_groups(s);
    for (struct tnn_block * b = s->blocks_c, * next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    s->blocks_c = NULL;
    ggml_free(s->ctx_c);
    free(s->mem_c);
    s->ctx_c         = NULL;
    s->mem_c         = NULL;
    s->gf            = NULL;
    s->second        = NULL;
    s->current       = NULL;
    s->second_built  = false;
    s->gb            = NULL;
    s->gb_unfinished = NULL;
    s->nodes.n       = 0;
    s->nbytes_c      = 0;
    s->n_tensors_c   = 0;
    s->scratch_per_thread = 0;
    s->computed = s->reset_done = false;
    tnn__release_windows(s);
    s->nodes_nbytes = 0;
}

void tnn__release_mapping(struct tnn_mapping * m) {
    ggml_backend_buffer_free(m->buffer);
    if (m->guard >= 0) {
        tnn__unguard(m->guard);
    }
    if (m->fd >= 0) {
        close(m->fd);
    }
    free(m);
}

void tnn__release_session(tnn_session * s) {
    for (struct tnn_chunk * c = s->chunks_w, * next; c != NULL; c = next) {
        next = c->next;
        ggml_free(c->ctx);
        free(c->mem);
        free(c);
    }
    for (struct tnn_mapping * m = s->mappings, * next; m != NULL; m = next) {
        next = m->next;
        tnn__release_mapping(m);
    }
    ggml_backend_buffer_free(s->buf_w);
    ggml_backend_buffer_free(s->buf_caches);
    free(s->caches);
    ggml_backend_buffer_free(s->buf_c);
    free(s->weights.entries);
    free(s->nodes.entries);
    free(s->work);
    free(s->scratch);
    tnn__reserve_close(&s->reserve);
    free(s);
}
