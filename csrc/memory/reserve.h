/* memory/reserve.h - what ggml will allocate for itself, set aside before it is entered. */
#ifndef TINYNN_RESERVE_H
#define TINYNN_RESERVE_H

#include "tinynn.h"

#include <stdbool.h>
#include <stddef.h>

/* What a call into ggml asks of the system. */
struct tnn_needs {
    int               small;    /* blocks of at most TNN_RESERVE_SMALL bytes, by malloc and its kin or by C++'s new */
    size_t            large[2]; /* bytes of two larger ones, or 0 */
    struct tnn_crew * crew;     /* the threads, or NULL */
};

#define TNN_RESERVE_SMALL  ((size_t) 256)
#define TNN_RESERVE_BLOCKS 8

struct tnn_reserve {
    struct tnn_reserve_block {
        void * block;
        size_t size;
        bool   lent; /* ggml has it; what it frees before the reserve is closed can be lent again */
    } blocks[TNN_RESERVE_BLOCKS];
    int               n;
    struct tnn_crew * crew;
};

/* Sets aside what r, at first all zeros, does not hold already, and lends it to this thread's calls of ggml from now on. False
 * with an error, of s or, where s is NULL, of the thread; then r is empty. */
bool tnn__reserve_open(tnn_session * s, struct tnn_reserve * r, struct tnn_needs needs);
/* Lends no more. What is lent is ggml's; what is not stays for the next tnn__reserve_open. */
void tnn__reserve_leave(struct tnn_reserve * r);
/* The same, and frees what is not lent. */
void tnn__reserve_close(struct tnn_reserve * r);

/* n threads that wait to be taken by ggml's pool, or NULL where the system does not start so many. */
struct tnn_crew * tnn__crew_new(int n);
/* After the pool that took them was freed: ends those that were not taken. */
void tnn__crew_free(struct tnn_crew * crew);

#endif
