/* memory/release.h - frees what a session owns. */
#ifndef TNN_RELEASE_H
#define TNN_RELEASE_H

#include "session.h"

#include <sys/types.h>
#include <time.h>

/* One of the ggml contexts that hold the headers of the weights. A ggml context cannot grow, so there is a list of them. */
struct tnn_chunk {
    struct tnn_chunk    * next;
    struct ggml_context * ctx;
    void                * mem;
    int                   n;
};

/* The header of a memory block that is freed with the current generation of graphs. */
struct tnn_block {
    struct tnn_block * next;
};

/* A file that the caller mapped and attached: memory/mapping.c. */
struct tnn_mapping {
    struct tnn_mapping  * next; /* the file that was attached before this file */
    char                * address;
    size_t                size;
    int                   guard;
    int                   fd; /* the session's own descriptor, or -1 */
    off_t                 file_size;
    struct timespec       modified;
    ggml_backend_buffer_t buffer;
    char                  name[TNN_MESSAGE_SIZE / 2];
};

/* Frees the thread pool. */
void tnn__release_pool(tnn_session * s);
/* Frees the groups of nodes of the training graph. */
void tnn__release_groups(tnn_session * s);
/* Forgets the batches of an unfinished step. The memory of their sums belongs to the graph. */
void tnn__release_windows(tnn_session * s);
/* Frees everything that belongs to the current generation of graphs, except the buffer of their tensors, which the next generation may
 * use again. */
void tnn__release_graphs(tnn_session * s);
/* Releases an attached file. The mapping belongs to the caller and stays. */
void tnn__release_mapping(struct tnn_mapping * m);
/* Frees the weights, the buffers and the session itself. */
void tnn__release_session(tnn_session * s);

#endif
