/* machine/bus_error.c - replaces the missing pages of mapped files by zeros: see bus_error.h. */
#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#include "machine/bus_error.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

/* A slot is free if its end is 0. The handler reads the slots without a lock. */
static struct {
    atomic_uintptr_t begin, end;
    atomic_bool      lost;
} g_guards[TNN_MAX_GUARDS];

static pthread_mutex_t  g_lock = PTHREAD_MUTEX_INITIALIZER;
static int              g_used;       /* number of guards in use */
static struct sigaction g_below[2];   /* g_below[g_which] is the signal action before this handler */
static atomic_int       g_which;      /* index in g_below; it changes only after the other entry is written */
static atomic_uintptr_t g_page_size;

/* ------------------------------------------------------------------ the signal handler: it calls only async-signal-safe functions */

/* Replaces the pages from the address to the end of the range that contains it. Returns false if there is no such
 * range, or if the system refuses. */
static bool replace(uintptr_t address) {
    const uintptr_t page = address & ~(atomic_load(&g_page_size) - 1);
    uintptr_t       last = 0;
    for (int i = 0; i < TNN_MAX_GUARDS; i++) {
        const uintptr_t end = atomic_load(&g_guards[i].end);
        if (atomic_load(&g_guards[i].begin) <= address && address < end) {
            atomic_store(&g_guards[i].lost, true);
            last = end > last ? end : last;
        }
    }
    return last != 0
        /* mmap is a system call, so it is async-signal-safe */
        && mmap((void *) page, last - page, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static void end_process(int signal_number, bool fault) {
    struct sigaction action = { .sa_handler = SIG_DFL };
    sigaction(signal_number, &action, NULL);
    if (!fault) {
        raise(signal_number); /* not after a fault: the faulting instruction runs again and causes the signal again */
    }
}

/* Passes the signal to the previous signal action. A handler like Python's faulthandler restores the action that it has
 * replaced, and sends the signal again. If the restored action is on_bus_error, the second call of pass_on applies the
 * default action, which ends the process. */
static void pass_on(int signal_number, siginfo_t * info, void * context) {
    static _Thread_local bool passing;
    const struct sigaction * below = &g_below[atomic_load(&g_which)];
    const bool               fault = info->si_code > 0;
    if (passing || (!(below->sa_flags & SA_SIGINFO) && (below->sa_handler == SIG_DFL || (below->sa_handler == SIG_IGN && fault)))) {
        end_process(signal_number, fault && !passing);
        return;
    }
    passing = true;
    if (below->sa_flags & SA_SIGINFO) {
        below->sa_sigaction(signal_number, info, context);
    } else if (below->sa_handler != SIG_IGN) {
        below->sa_handler(signal_number);
    }
    passing = false;
}

static void on_bus_error(int signal_number, siginfo_t * info, void * context) {
    const int  saved   = errno;
    const bool missing = info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR;
    if (!missing || !replace((uintptr_t) info->si_addr)) {
        pass_on(signal_number, info, context);
    }
    errno = saved;
}

/* ------------------------------------------------------------------ guards */

static bool is_ours(const struct sigaction * action) {
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_bus_error;
}

/* The caller holds the lock. */
static bool install(void) {
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) != 0) {
        return false;
    }
    if (is_ours(&now)) {
        return true;
    }
    const int other = 1 - atomic_load(&g_which);
    g_below[other]  = now;
    atomic_store(&g_which, other);
    /* SA_NODEFER: the previous handler may send the signal again, and expects it to be delivered at once. */
    struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    action.sa_mask = now.sa_mask;
    return sigaction(SIGBUS, &action, NULL) == 0;
}

/* Restores the previous handler, unless another handler was installed later: that handler may call on_bus_error, which
 * then passes every signal on. The caller holds the lock. */
static void uninstall(void) {
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && is_ours(&now)) {
        sigaction(SIGBUS, &g_below[atomic_load(&g_which)], NULL);
    }
}

int tnn__guard(const void * address, size_t size) {
    int found = -1;
    pthread_mutex_lock(&g_lock);
    const uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    atomic_store(&g_page_size, page);
    for (int i = 0; i < TNN_MAX_GUARDS && found < 0; i++) {
        found = atomic_load(&g_guards[i].end) == 0 ? i : -1;
    }
    if (found >= 0 && !install()) {
        found = -1;
    }
    if (found >= 0) {
        atomic_store(&g_guards[found].lost, false);
        atomic_store(&g_guards[found].begin, (uintptr_t) address);
        atomic_store(&g_guards[found].end, ((uintptr_t) address + size + page - 1) & ~(page - 1));
        g_used++;
    }
    pthread_mutex_unlock(&g_lock);
    return found;
}

void tnn__unguard(int guard) {
    pthread_mutex_lock(&g_lock);
    atomic_store(&g_guards[guard].end, 0);
    if (--g_used == 0) {
        uninstall();
    }
    pthread_mutex_unlock(&g_lock);
}

bool tnn__guard_lost(int guard) {
    return atomic_load(&g_guards[guard].lost);
}

void tnn__guards_arm(void) {
    pthread_mutex_lock(&g_lock);
    if (g_used > 0) {
        install();
    }
    pthread_mutex_unlock(&g_lock);
}

void tnn__guards_lock(void) {
    pthread_mutex_lock(&g_lock);
}

void tnn__guards_unlock(void) {
    pthread_mutex_unlock(&g_lock);
}
