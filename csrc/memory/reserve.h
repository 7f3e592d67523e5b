/* memory/reserve.h - memory and threads that are set aside for ggml before it is entered. */
#ifndef TNN_RESERVE_H
#define TNN_RESERVE_H

#include <stdbool.h>
#include <stddef.h>

/* What a call into ggml requests from the system. */
struct tnn_needs {
    int                  small;    /* blocks of at most TNN_RESERVE_SMALL bytes, by malloc and related functions or by C++'s new */
    size_t               large[2]; /* bytes of two larger ones, or 0 */
    struct tnn_threads * threads;  /* or NULL */
};

#define TNN_RESERVE_SMALL  ((size_t) 256)
#define TNN_RESERVE_BLOCKS 8

struct tnn_reserve {
    struct tnn_reserve_block {
        void * block;
        size_t size;
        bool   lent; /* ggml has it; what it frees before the reserve is closed can be lent again */
    } blocks[TNN_RESERVE_BLOCKS];
    int                  n;
    struct tnn_threads * threads;
};

/* Allocates what r, at first all zeros, does not hold already, and lends it to this thread's calls of ggml from now on. False: out of
 * memory, and r is empty. */
bool tnn__reserve_open(struct tnn_reserve * r, struct tnn_needs needs);
/* Stops lending. Lent blocks belong to ggml; the others stay for the next tnn__reserve_open. */
void tnn__reserve_leave(struct tnn_reserve * r);
/* Stops lending, and frees the blocks that are not lent. */
void tnn__reserve_close(struct tnn_reserve * r);

/* Starts n threads that wait for ggml's pool to take them. NULL: the system refused. */
struct tnn_threads * tnn__threads_start(int n);
/* After the pool that took them was freed: ends the threads that it did not take, and frees the rest. */
void tnn__threads_free(struct tnn_threads * threads);

#endif
