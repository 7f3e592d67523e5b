/* machine/relax.h - lets threads that wait at a barrier give their core to other threads. The compiler includes this
 * file before ggml-cpu's C files (option -include), so that ggml stays unmodified.
 *
 * ggml's threads wait for each other at barriers between the nodes of a graph, by spinning on ggml_thread_cpu_relax. If
 * another process or thread uses the core of the thread that they wait for, spinning threads use up their time slices,
 * and the graph makes no progress for milliseconds at each node. Here every 1024th pause of a thread gives the core to
 * another thread. 1024 pauses take 20 to 50 microseconds. If each thread has a core of its own, threads wait
 * less than this time. No result depends on these pauses.
 *
 * The macro ggml_thread_cpu_relax distinguishes ggml's definition, whose parameter list is (void), from its calls,
 * whose argument list is empty. The definition gets another name, and the calls become tnn__pause_or_yield(). */
#ifndef TNN_RELAX_H
#define TNN_RELAX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Tells the processor that this thread only waits. */
static inline void tnn__pause(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

static inline void tnn__pause_or_yield(void) {
    static _Thread_local unsigned pauses;
    tnn__pause();
    if (++pauses % 1024 == 0) {
        sched_yield();
    }
}

/* Renames ggml's definition, which is then not called. */
#define TNN_RELAX_void                    tnn__relax_of_ggml(void)
#define TNN_RELAX_                        tnn__pause_or_yield()
#define ggml_thread_cpu_relax(parameters) TNN_RELAX_##parameters

#endif
