/* allocation_faults.c - a library for LD_PRELOAD. It makes the nth allocation of one shared object (the target)
 * fail, and counts the memory blocks of the target.
 *
 * An allocation belongs to the target if the target's code is the first on the stack, from the innermost frame outwards. Frames of the
 * C and C++ runtime and of the dynamic loader are skipped, because they work for their caller. Allocations by Python, cffi or numpy do
 * not belong to the target, even if the target called them. glibc only: the library calls the original functions by names that only
 * glibc exports.
 *
 *   faults_target("_tinynn")   selects the target by a part of its file name; returns the number of its executable segments
 *   faults_arm(n, after)       lets the nth allocation from now on fail; if after != 0, all later allocations fail too
 *   faults_disarm()            returns how many allocations failed
 *   faults_seen()              returns the number of allocations of the target since faults_arm
 *   faults_live(), faults_live_bytes()   return the blocks of the target that were not freed since faults_target, and their bytes
 *   faults_threads()           returns the number of threads that the target started and did not join
 *   faults_where()             returns the stack of the first failure, as names of objects with offsets
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default")))

extern void * __libc_malloc(size_t);
extern void * __libc_calloc(size_t, size_t);
extern void * __libc_realloc(void *, size_t);
extern void * __libc_memalign(size_t, size_t);
extern void   __libc_free(void *);

typedef int    (*create_fun)(pthread_t *, const pthread_attr_t *, void * (*) (void *), void *);
typedef int    (*join_fun)(pthread_t, void **);
typedef void * (*mmap_fun)(void *, size_t, int, int, int, off_t);

/* ------------------------------------------------------------------ the object that an address belongs to */

#define MOST_RANGES 64
struct range {
    uintptr_t start, end;
};

static struct range g_target[MOST_RANGES], g_runtime[MOST_RANGES];
static int          g_n_target, g_n_runtime;
static const char * g_name;

static bool within(const struct range * ranges, int n, const void * address) {
    for (int i = 0; i < n; i++) {
        if ((uintptr_t) address >= ranges[i].start && (uintptr_t) address < ranges[i].end) {
            return true;
        }
    }
    return false;
}

static int note_object(struct dl_phdr_info * info, size_t size, void * unused) {
    static const char * const runtime[] = { "/libc.", "/ld-linux", "/libstdc++", "/libgcc_s", "/libm.", "/libpthread", "allocation_faults" };
    (void) size;
    (void) unused;
    const char * file   = strrchr(info->dlpi_name, '/');
    const bool   target = file != NULL && strstr(file, g_name) != NULL;
    bool         skipped = false;
    for (size_t i = 0; i < sizeof(runtime) / sizeof(runtime[0]); i++) {
        skipped = skipped || (file != NULL && strstr(file, runtime[i]) != NULL);
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) * h = &info->dlpi_phdr[i];
        const struct range r = { info->dlpi_addr + h->p_vaddr, info->dlpi_addr + h->p_vaddr + h->p_memsz };
        if (h->p_type == PT_LOAD && (h->p_flags & PF_X) && target && g_n_target < MOST_RANGES) {
            g_target[g_n_target++] = r;
        } else if (h->p_type == PT_LOAD && (h->p_flags & PF_X) && skipped && g_n_runtime < MOST_RANGES) {
            g_runtime[g_n_runtime++] = r;
        }
    }
    return 0;
}

/* ------------------------------------------------------------------ the target's live blocks */

#define SLOTS (1u << 16)
static struct {
    void * block; /* NULL: never used; (void *) 1: no longer used */
    size_t size;
} g_blocks[SLOTS];
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_long     g_live, g_live_bytes, g_threads;

static unsigned slot_of(const void * p) {
    return (unsigned) (((uintptr_t) p >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 40) % SLOTS;
}

static void born(void * p, size_t size) {
    pthread_mutex_lock(&g_lock);
    unsigned i = slot_of(p), tries = 0;
    while ((uintptr_t) g_blocks[i].block > 1 && tries++ < SLOTS) {
        i = (i + 1) % SLOTS;
    }
    if (tries >= SLOTS) {
        static const char full[] = "allocation_faults: too many live blocks\n";
        fwrite(full, 1, sizeof(full) - 1, stderr);
        abort();
    }
    g_blocks[i].block = p;
    g_blocks[i].size  = size;
    g_live++;
    g_live_bytes += (long) size;
    pthread_mutex_unlock(&g_lock);
}

static void died(const void * p) {
    if (p == NULL || g_live == 0) {
        return;
    }
    pthread_mutex_lock(&g_lock);
    for (unsigned i = slot_of(p), tries = 0; g_blocks[i].block != NULL && tries < SLOTS; i = (i + 1) % SLOTS, tries++) {
        if (g_blocks[i].block == p) {
            g_blocks[i].block = (void *) 1;
            g_live--;
            g_live_bytes -= (long) g_blocks[i].size;
            break;
        }
    }
    pthread_mutex_unlock(&g_lock);
}

/* ------------------------------------------------------------------ making an allocation fail */

#define MOST_FRAMES 48
static atomic_bool     g_armed;
static atomic_long     g_seen, g_failed;
static long            g_at;
static bool            g_after;
static void          * g_where[MOST_FRAMES];
static int             g_n_where;
static _Thread_local bool t_inside; /* this thread is in a function of this library */

/* Returns whether the current allocation belongs to the target, and whether it must fail. */
static bool ours(bool * fails) {
    void * frames[MOST_FRAMES];
    *fails = false;
    if (g_n_target == 0 || t_inside) {
        return false;
    }
    t_inside = true;
    const int n = backtrace(frames, MOST_FRAMES);
    bool mine = false;
    for (int i = 0; i < n; i++) { /* minus 1: a return address can be the first byte after the calling function */
        const char * at = (const char *) frames[i] - 1;
        if (within(g_target, g_n_target, at)) {
            mine = true;
            break;
        }
        if (!within(g_runtime, g_n_runtime, at)) {
            break;
        }
    }
    if (mine && g_armed) {
        const long seen = ++g_seen;
        *fails = seen == g_at || (g_after && seen > g_at);
        if (*fails && g_failed++ == 0) {
            memcpy(g_where, frames, sizeof(frames));
            g_n_where = n;
        }
    }
    t_inside = false;
    return mine;
}

/* ------------------------------------------------------------------ replacements of C library functions */

API void * malloc(size_t size) {
    bool       fails;
    const bool mine = ours(&fails);
    void     * p    = fails ? NULL : __libc_malloc(size);
    if (mine && p != NULL) {
        born(p, size);
    }
    if (fails) {
        errno = ENOMEM;
    }
    return p;
}

API void * calloc(size_t n, size_t size) {
    bool       fails;
    const bool mine = ours(&fails);
    void     * p    = fails ? NULL : __libc_calloc(n, size);
    if (mine && p != NULL) {
        born(p, n * size);
    }
    if (fails) {
        errno = ENOMEM;
    }
    return p;
}

API void * realloc(void * old, size_t size) {
    bool       fails;
    const bool mine = ours(&fails);
    if (fails) {
        errno = ENOMEM;
        return NULL;
    }
    died(old); /* call this before realloc, because another thread can receive the address of old after realloc */
    void * p = __libc_realloc(old, size);
    if (mine && p != NULL) {
        born(p, size);
    }
    return p;
}

static void * aligned(size_t alignment, size_t size) {
    bool       fails;
    const bool mine = ours(&fails);
    void     * p    = fails ? NULL : __libc_memalign(alignment, size);
    if (mine && p != NULL) {
        born(p, size);
    }
    if (fails) {
        errno = ENOMEM;
    }
    return p;
}

API void * aligned_alloc(size_t alignment, size_t size) {
    return aligned(alignment, size);
}

API void * memalign(size_t alignment, size_t size) {
    return aligned(alignment, size);
}

API int posix_memalign(void ** out, size_t alignment, size_t size) {
    void * p = aligned(alignment, size);
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

API void free(void * p) {
    died(p);
    __libc_free(p);
}

API int pthread_create(pthread_t * thread, const pthread_attr_t * attributes, void * (*run)(void *), void * argument) {
    static create_fun real;
    bool       fails;
    const bool mine = ours(&fails);
    if (fails) {
        return EAGAIN;
    }
    if (real == NULL) {
        *(void **) &real = dlsym(RTLD_NEXT, "pthread_create");
    }
    t_inside = true; /* glibc reuses the memory of ended threads, so the number of allocations here is random */
    const int status = real(thread, attributes, run, argument);
    t_inside = false;
    g_threads += mine && status == 0;
    return status;
}

API int pthread_join(pthread_t thread, void ** result) {
    static join_fun real;
    void * caller = __builtin_return_address(0);
    if (real == NULL) {
        *(void **) &real = dlsym(RTLD_NEXT, "pthread_join");
    }
    const int status = real(thread, result);
    g_threads -= status == 0 && within(g_target, g_n_target, (const char *) caller - 1);
    return status;
}

API void * mmap(void * at, size_t size, int protection, int flags, int file, off_t offset) {
    static mmap_fun real;
    bool fails;
    ours(&fails);
    if (fails) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (real == NULL) {
        *(void **) &real = dlsym(RTLD_NEXT, "mmap");
    }
    return real(at, size, protection, flags, file, offset);
}

/* ------------------------------------------------------------------ the interface for sweep_allocations.py */

API int faults_target(const char * name) {
    void * warm[4];
    backtrace(warm, 4); /* the first call loads libraries, which allocates */
    t_inside   = true;
    g_name     = name;
    g_n_target = g_n_runtime = 0;
    dl_iterate_phdr(note_object, NULL);
    g_name   = NULL;
    t_inside = false;
    return g_n_target;
}

API void faults_arm(long at, int after) {
    g_at = at;
    g_after = after != 0;
    g_n_where = 0;
    g_seen = g_failed = 0;
    g_armed = true;
}

API long faults_disarm(void) {
    g_armed = false;
    return g_failed;
}

API long faults_seen(void) {
    return g_seen;
}

API long faults_live(void) {
    return g_live;
}

API long faults_live_bytes(void) {
    return g_live_bytes;
}

API long faults_threads(void) {
    return g_threads;
}

API const char * faults_where(void) {
    static char text[4096];
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < g_n_where && used + 256 < sizeof(text); i++) {
        Dl_info info;
        if (dladdr(g_where[i], &info) != 0 && info.dli_fname != NULL) {
            const char * file = strrchr(info.dli_fname, '/');
            used += (size_t) snprintf(text + used, 256, "%.100s+%#tx%s%.100s\n", file != NULL ? file + 1 : info.dli_fname,
                                      (const char *) g_where[i] - (const char *) info.dli_fbase, info.dli_sname != NULL ? " " : "",
                                      info.dli_sname != NULL ? info.dli_sname : "");
        }
    }
    return text;
}
