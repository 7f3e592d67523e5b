/* memory/reserve.c - reserves memory and threads before a call into ggml, so that ggml's own requests never fail.
 *
 * ggml aborts, or writes to NULL, if one of its small allocations or the start of a thread fails. ggml stays
 * unmodified. Before a call into ggml, the shim therefore requests the memory and threads that the call will need, when
 * a refusal can still be reported as an error. When ggml then requests memory or a thread, the shim lends what it has
 * reserved. The linker redirects the extension's calls of malloc and related functions, of C++'s new and delete, of
 * fopen and of pthread_create to this file (-Wl,--wrap in CMakeLists.txt).
 *
 * A lent block is an ordinary block, which free accepts. A lent thread is a waiting thread that the shim has started
 * earlier, and it is joined like any other thread. In the extension, C++'s new calls malloc, and delete calls free.
 * libstdc++'s own new throws when memory runs out, even the variant that is declared not to throw, and the first throw
 * in a thread allocates memory in a place where a refusal ends the process.
 *
 * A reserve lends only to the thread that opened it, and only within one call. The reserve of a compute is kept by its
 * session and used again, because ggml gives back everything that it was lent.
 *
 * If the linker cannot wrap functions (TNN_WRAPS is not defined), a reserve is released as soon as it was allocated.
 * This at least shows that the memory was available a moment before ggml requests it. */
#include "memory/reserve.h"

#include <pthread.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct tnn_reserve * t_reserve;

/* ------------------------------------------------------------------ threads */

struct tnn_threads {
    pthread_mutex_t lock;
    pthread_cond_t  start;
    int n, taken;
    struct tnn_thread {
        struct tnn_threads * all;
        pthread_t         thread;
        bool              go;
        void * (*run)(void *); /* NULL: the thread has nothing to run, and ends */
        void            * argument;
    } members[];
};

static void * wait_for_work(void * data) {
    struct tnn_thread * m = data;
    pthread_mutex_lock(&m->all->lock);
    while (!m->go) {
        pthread_cond_wait(&m->all->start, &m->all->lock);
    }
    pthread_mutex_unlock(&m->all->lock);
    return m->run != NULL ? m->run(m->argument) : NULL;
}

static void start_thread(struct tnn_thread * m, void * (*run)(void *), void * argument) {
    pthread_mutex_lock(&m->all->lock);
    m->run      = run;
    m->argument = argument;
    m->go       = true;
    pthread_cond_broadcast(&m->all->start);
    pthread_mutex_unlock(&m->all->lock);
}

/* Ends the threads that ggml did not take. */
static void end_idle(struct tnn_threads * threads) {
    while (threads->n > threads->taken) {
        struct tnn_thread * m = &threads->members[--threads->n];
        start_thread(m, NULL, NULL);
        pthread_join(m->thread, NULL);
    }
}

struct tnn_threads * tnn__threads_start(int n) {
    struct tnn_threads * threads = calloc(1, sizeof(*threads) + (size_t) n * sizeof(threads->members[0]));
    if (threads == NULL) {
        return NULL;
    }
    if (pthread_mutex_init(&threads->lock, NULL) != 0) {
        free(threads);
        return NULL;
    }
    if (pthread_cond_init(&threads->start, NULL) != 0) {
        pthread_mutex_destroy(&threads->lock);
        free(threads);
        return NULL;
    }
    while (threads->n < n) {
        struct tnn_thread * m = &threads->members[threads->n];
        m->all = threads;
        if (pthread_create(&m->thread, NULL, wait_for_work, m) != 0) {
            tnn__threads_free(threads);
            return NULL;
        }
        threads->n++;
    }
    return threads;
}

void tnn__threads_free(struct tnn_threads * threads) {
    if (threads == NULL) {
        return;
    }
    end_idle(threads);
    pthread_cond_destroy(&threads->start);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
}

/* ------------------------------------------------------------------ blocks */

static bool set_aside(struct tnn_reserve * r, size_t size) {
    void * block = aligned_alloc(64, (size + 63) / 64 * 64);
    if (block != NULL) {
        r->blocks[r->n++] = (struct tnn_reserve_block) { .block = block, .size = size };
    }
    return block != NULL;
}

static void free_blocks(struct tnn_reserve * r) {
    for (int i = 0; i < r->n; i++) {
        free(r->blocks[i].block);
    }
    r->n = 0;
}

bool tnn__reserve_open(struct tnn_reserve * r, struct tnn_needs needs) {
    const int kept = r->n; /* the small blocks that r already has */
    bool      ok   = needs.small + 2 <= TNN_RESERVE_BLOCKS;
    r->threads = needs.threads;
    for (int i = 0; i < 2 && ok; i++) {
        ok = needs.large[i] == 0 || set_aside(r, needs.large[i]);
    }
    for (int i = kept; i < needs.small && ok; i++) {
        ok = set_aside(r, TNN_RESERVE_SMALL);
    }
    if (!ok) {
        free_blocks(r);
        return false;
    }
#ifdef TNN_WRAPS
    t_reserve = r;
#else
    free_blocks(r);
    if (r->threads != NULL) {
        end_idle(r->threads);
    }
#endif
    return true;
}

void tnn__reserve_leave(struct tnn_reserve * r) {
    t_reserve = NULL;
    for (int i = r->n - 1; i >= 0; i--) {
        if (r->blocks[i].lent) {
            r->blocks[i] = r->blocks[--r->n];
        }
    }
}

void tnn__reserve_close(struct tnn_reserve * r) {
    tnn__reserve_leave(r);
    free_blocks(r);
}

/* ------------------------------------------------------------------ functions that ggml calls */

#ifdef TNN_WRAPS

void * __real_malloc(size_t size);
void * __real_calloc(size_t n, size_t size);
void * __real_realloc(void * block, size_t size);
void   __real_free(void * block);
int    __real_posix_memalign(void ** out, size_t alignment, size_t size);
int    __real_pthread_create(pthread_t * thread, const pthread_attr_t * attributes, void * (*run)(void *), void * argument);
void * __real__Znwm(size_t size);
FILE * __real_fopen(const char * path, const char * mode);

void * __wrap_malloc(size_t size);
void * __wrap_calloc(size_t n, size_t size);
void * __wrap_realloc(void * block, size_t size);
void   __wrap_free(void * block);
int    __wrap_posix_memalign(void ** out, size_t alignment, size_t size);
int    __wrap_pthread_create(pthread_t * thread, const pthread_attr_t * attributes, void * (*run)(void *), void * argument);
void * __wrap__Znwm(size_t size);
void   __wrap__ZdlPv(void * block);
void   __wrap__ZdlPvm(void * block, size_t size);
FILE * __wrap_fopen(const char * path, const char * mode);

/* Takes and returns the smallest block that is large enough, or returns NULL. */
static void * take(size_t size) {
    struct tnn_reserve       * r    = t_reserve;
    struct tnn_reserve_block * best = NULL;
    for (int i = 0; r != NULL && i < r->n; i++) {
        struct tnn_reserve_block * b = &r->blocks[i];
        if (!b->lent && b->size >= size && (best == NULL || b->size < best->size)) {
            best = b;
        }
    }
    if (best == NULL) {
        return NULL;
    }
    best->lent = true;
    return best->block;
}

/* Returns the entry of a lent block, or NULL. */
static struct tnn_reserve_block * lent(const void * block) {
    struct tnn_reserve * r = t_reserve;
    for (int i = 0; r != NULL && i < r->n; i++) {
        if (r->blocks[i].lent && r->blocks[i].block == block) {
            return &r->blocks[i];
        }
    }
    return NULL;
}

void * __wrap_malloc(size_t size) {
    void * block = take(size);
    return block != NULL ? block : __real_malloc(size);
}

void * __wrap_calloc(size_t n, size_t size) {
    void * block = t_reserve != NULL && (size == 0 || n <= SIZE_MAX / size) ? take(n * size) : NULL;
    return block != NULL ? memset(block, 0, n * size) : __real_calloc(n, size);
}

int __wrap_posix_memalign(void ** out, size_t alignment, size_t size) {
    void * block = alignment <= 64 ? take(size) : NULL;
    if (block == NULL) {
        return __real_posix_memalign(out, alignment, size);
    }
    *out = block;
    return 0;
}

void * __wrap__Znwm(size_t size) {
    void * block = __wrap_malloc(size > 0 ? size : 1);
    return block != NULL ? block : __real__Znwm(size); /* C++'s own new throws or aborts if memory runs out */
}

void __wrap_free(void * block) {
    struct tnn_reserve_block * b = lent(block);
    if (b != NULL) {
        b->lent = false;
    } else {
        __real_free(block);
    }
}

void * __wrap_realloc(void * block, size_t size) {
    struct tnn_reserve_block * b = lent(block);
    if (b != NULL) {
        *b = t_reserve->blocks[--t_reserve->n]; /* from now on, the block is an ordinary block */
    }
    return __real_realloc(block, size);
}

void __wrap__ZdlPv(void * block) {
    __wrap_free(block);
}

void __wrap__ZdlPvm(void * block, size_t size) {
    (void) size;
    __wrap_free(block);
}

int __wrap_pthread_create(pthread_t * thread, const pthread_attr_t * attributes, void * (*run)(void *), void * argument) {
    struct tnn_threads * threads = t_reserve != NULL ? t_reserve->threads : NULL;
    if (threads == NULL || attributes != NULL || threads->taken == threads->n) {
        return __real_pthread_create(thread, attributes, run, argument);
    }
    struct tnn_thread * m = &threads->members[threads->taken++];
    *thread = m->thread;
    start_thread(m, run, argument);
    return 0;
}

/* While ggml is set up, it reads the CPU's name from /proc/cpuinfo into a C++ string. libstdc++ allocates the memory of
 * a long name, where the wrappers above have no effect, so a refusal would throw and end the process. Therefore ggml
 * cannot open this file. The shim does not use the name, and ggml then calls the device "CPU". */
FILE * __wrap_fopen(const char * path, const char * mode) {
    return t_reserve != NULL ? NULL : __real_fopen(path, mode);
}

#endif
