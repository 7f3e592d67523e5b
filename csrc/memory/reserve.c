/* memory/reserve.c - ggml never meets a refusal.
 *
 * ggml aborts, or writes to NULL, where a small allocation of its own or the start of a thread fails. It stays unmodified, so
 * the shim asks the system first: whatever a call into ggml will want is allocated before, where a refusal is an error like
 * any other, and lent to ggml when it asks. The linker sends the extension's calls of malloc and its kin, new, delete and
 * pthread_create here (-Wl,--wrap in CMakeLists.txt).
 *
 * What is lent is an ordinary block, which free need not tell from others; or a thread that the shim started and that
 * has waited until now, which joins as any other. C++'s new is malloc here and delete is free: libstdc++'s own new throws where
 * memory ends, even the one that promises not to, and its first throw in a thread asks for memory that it must not be refused.
 *
 * A reserve lends to the thread that opened it and to no other, and only within one call. A compute's is kept by its session, as
 * ggml gives back what it was lent.
 *
 * Where the linker cannot do this (TNN_WRAPS is not defined) a reserve is let go as soon as it was had: the room was there a
 * moment before ggml takes it. */
#include "session.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct tnn_reserve * t_reserve;

/* ------------------------------------------------------------------ threads */

struct tnn_crew {
    pthread_mutex_t lock;
    pthread_cond_t  called;
    int n, taken;
    struct tnn_crew_member {
        struct tnn_crew * crew;
        pthread_t         thread;
        bool              go;
        void * (*run)(void *); /* NULL: nothing */
        void            * argument;
    } members[];
};

static void * wait_for_work(void * data) {
    struct tnn_crew_member * m = data;
    pthread_mutex_lock(&m->crew->lock);
    while (!m->go) {
        pthread_cond_wait(&m->crew->called, &m->crew->lock);
    }
    pthread_mutex_unlock(&m->crew->lock);
    return m->run != NULL ? m->run(m->argument) : NULL;
}

static void let_go(struct tnn_crew_member * m, void * (*run)(void *), void * argument) {
    pthread_mutex_lock(&m->crew->lock);
    m->run      = run;
    m->argument = argument;
    m->go       = true;
    pthread_cond_broadcast(&m->crew->called);
    pthread_mutex_unlock(&m->crew->lock);
}

/* Ends those that were not taken. */
static void dismiss(struct tnn_crew * crew) {
    while (crew->n > crew->taken) {
        struct tnn_crew_member * m = &crew->members[--crew->n];
        let_go(m, NULL, NULL);
        pthread_join(m->thread, NULL);
    }
}

struct tnn_crew * tnn__crew_new(int n) {
    struct tnn_crew * crew = calloc(1, sizeof(*crew) + (size_t) n * sizeof(crew->members[0]));
    if (crew == NULL) {
        return NULL;
    }
    if (pthread_mutex_init(&crew->lock, NULL) != 0) {
        free(crew);
        return NULL;
    }
    if (pthread_cond_init(&crew->called, NULL) != 0) {
        pthread_mutex_destroy(&crew->lock);
        free(crew);
        return NULL;
    }
    while (crew->n < n) {
        struct tnn_crew_member * m = &crew->members[crew->n];
        m->crew = crew;
        if (pthread_create(&m->thread, NULL, wait_for_work, m) != 0) {
            tnn__crew_free(crew);
            return NULL;
        }
        crew->n++;
    }
    return crew;
}

void tnn__crew_free(struct tnn_crew * crew) {
    if (crew == NULL) {
        return;
    }
    dismiss(crew);
    pthread_cond_destroy(&crew->called);
    pthread_mutex_destroy(&crew->lock);
    free(crew);
}

/* ------------------------------------------------------------------ blocks */

static bool set_aside(struct tnn_reserve * r, size_t size) {
    void * block = aligned_alloc(64, GGML_PAD(size, 64));
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

bool tnn__reserve_open(tnn_session * s, struct tnn_reserve * r, struct tnn_needs needs) {
    const int kept = r->n; /* small ones */
    size_t total = 0;
    bool   ok    = needs.small + 2 <= TNN_RESERVE_BLOCKS;
    r->crew = needs.crew;
    for (int i = 0; i < 2 && ok; i++) {
        ok     = needs.large[i] == 0 || set_aside(r, needs.large[i]);
        total += needs.large[i];
    }
    for (int i = kept; i < needs.small && ok; i++) {
        ok     = set_aside(r, TNN_RESERVE_SMALL);
        total += TNN_RESERVE_SMALL;
    }
    if (!ok) {
        free_blocks(r);
        tnn__fail(s, TNN_E_MEMORY, "no memory for what ggml keeps for itself (%zu bytes and more)", total);
        return false;
    }
#ifdef TNN_WRAPS
    t_reserve = r;
#else
    free_blocks(r);
    if (r->crew != NULL) {
        dismiss(r->crew);
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

/* ------------------------------------------------------------------ what ggml calls */

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

/* The smallest block that is large enough, or NULL. */
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

/* The entry of a block that is lent, or NULL. */
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
    return block != NULL ? block : __real__Znwm(size); /* which knows what to do where there is nobody to tell */
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
        *b = t_reserve->blocks[--t_reserve->n]; /* an ordinary block from here on */
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
    struct tnn_crew * crew = t_reserve != NULL ? t_reserve->crew : NULL;
    if (crew == NULL || attributes != NULL || crew->taken == crew->n) {
        return __real_pthread_create(thread, attributes, run, argument);
    }
    struct tnn_crew_member * m = &crew->members[crew->taken++];
    *thread = m->thread;
    let_go(m, run, argument);
    return 0;
}

/* When ggml is set up it reads the name of the CPU from /proc/cpuinfo, which nothing here uses, into a string of C++. A long name
 * is allocated inside libstdc++, out of reach of the wrappers above: a refusal there would throw, and end the process. Without the
 * file ggml calls the device "CPU". */
FILE * __wrap_fopen(const char * path, const char * mode) {
    return t_reserve != NULL ? NULL : __real_fopen(path, mode);
}

#endif
