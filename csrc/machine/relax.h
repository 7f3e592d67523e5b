/* Included in front of ggml-cpu's C files by the compiler (-include), so that ggml stays unmodified.
 *
 * ggml's threads meet at barriers between the nodes of a graph, and wait there by spinning on _mm_pause. Where another
 * process, or another thread of this one, holds the core of the thread that is waited for, a spinning thread burns its
 * time slice and the graph stands still: milliseconds for each node. Here every 1024th pause in a thread (some 20 to 50
 * microseconds, more than threads on cores of their own wait) gives the core to whoever can use it. No result depends on it.
 *
 * On other processors ggml pauses by inline assembly, which cannot be reached so. */
#ifndef TNN_RELAX_H
#define TNN_RELAX_H

#if defined(__x86_64__)
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <immintrin.h>
#include <sched.h>

static inline void tnn__pause_or_yield(void) {
    static _Thread_local unsigned pauses;
    _mm_pause();
    if (++pauses % 1024 == 0) {
        sched_yield();
    }
}

#define _mm_pause() tnn__pause_or_yield()
#endif

#endif
