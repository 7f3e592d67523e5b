/* machine/relax.h - threads that wait at a barrier let other threads run. The compiler includes this file before ggml-cpu's C files
 * (-include), so that ggml stays unmodified.
 *
 * ggml's threads meet at barriers between the nodes of a graph, and wait there by spinning on ggml_thread_cpu_relax. If another process or
 * thread has the core of the thread that they wait for, spinning threads use up their time slices and the graph stands still:
 * milliseconds for each node. Here every 1024th pause of a thread (after 20 to 50 microseconds, longer than threads on cores of their own
 * wait) gives the core to another thread. No result depends on it.
 *
 * The macro ggml_thread_cpu_relax distinguishes ggml's definition, whose parameter list is (void), from its calls, whose list is empty:
 * the definition gets another name, and the calls become tnn__pause_or_yield(). */
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

#define TNN_RELAX_void                    tnn__relax_of_ggml(void) /* renames ggml's definition, which is then not called */
#define TNN_RELAX_                        tnn__pause_or_yield()
#define ggml_thread_cpu_relax(parameters) TNN_RELAX_##parameters

#endif
