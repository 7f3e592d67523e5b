/* memory/reserve.h - reserves memory and threads for ggml before it is called. */
#ifndef TNN_RESERVE_H
#define TNN_RESERVE_H

#include <stdbool.h>
#include <stddef.h>

/* The memory and threads that a call into ggml requests from the system. */
struct tnn_needs {
    /* Number of blocks of at most TNN_RESERVE_SMALL bytes, from functions like malloc or C++'s new. */
    int                  small;
    size_t               large[2]; /* sizes in bytes of two larger blocks; 0: no such block */
    struct tnn_threads * threads;  /* from tnn__threads_start, or NULL */
};

#define TNN_RESERVE_SMALL  ((size_t) 256)
#define TNN_RESERVE_BLOCKS 8

struct tnn_reserve {
    struct tnn_reserve_block {
        void * block;
        size_t size;
        bool   lent; /* ggml uses the block. A block that ggml frees before the reserve is closed can be lent again. */
    } blocks[TNN_RESERVE_BLOCKS];
    int                  n;
    struct tnn_threads * threads;
};

/* Allocates everything in needs that r does not hold already, and from now on lends it to this thread's calls of ggml.
 * A new r must be all zeros. Returns false if memory runs out, and r is then empty. */
bool tnn__reserve_open(struct tnn_reserve * r, struct tnn_needs needs);
/* Stops lending. Lent blocks belong to ggml, and the other blocks stay for the next tnn__reserve_open. */
void tnn__reserve_leave(struct tnn_reserve * r);
/* Stops lending, and frees the blocks that are not lent. */
void tnn__reserve_close(struct tnn_reserve * r);

/* Starts n threads that wait until ggml's pool takes them. Returns NULL if the system refuses. */
struct tnn_threads * tnn__threads_start(int n);
/* Ends the threads that the pool did not take, and frees the list. Call it after the pool was freed. */
void tnn__threads_free(struct tnn_threads * threads);

#endif
