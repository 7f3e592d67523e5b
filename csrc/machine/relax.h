/* machine/relax.h - threads that wait at a barrier let other threads run. The compiler includes this file before ggml-cpu's C files
 * (-include), so that ggml stays unmodified.
 *
 * ggml's threads meet at barriers between the nodes of a graph, and wait there by spinning on _mm_pause. If another process or thread has
 * the core of the thread that they wait for, spinning threads use up their time slices and the graph stands still: milliseconds for
 * each node. Here every 1024th pause of a thread (after 20 to 50 microseconds, longer than threads on cores of their own wait) gives
 * the core to another thread. No result depends on it.
 *
 * On other processors ggml pauses by inline assembly, which cannot be replaced in this way. */
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
