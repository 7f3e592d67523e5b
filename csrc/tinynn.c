/* tinynn.c - sessions and the error path. Start reading here.
 *
 * The C code in csrc/ is called the shim. Its folders are graph/ (tensors and handles; builds, runs and differentiates
 * graphs), ops/ (ggml's operators), kernels/ (the shim's own operators, one file each), memory/, machine/ (the CPU and
 * the system) and data/ (values of tensors). */
#define _GNU_SOURCE
#include "machine/bus_error.h"
#include "machine/machine.h"
#include "memory/release.h"
#include "session.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ggml-impl.h"
#include "ggml-threading.h"
#include "traits.h"

/* ------------------------------------------------------------------ error path */

/* CMakeLists.txt makes this thread-local storage static, although static storage is scarce: if dynamic thread-local
 * storage cannot be allocated, the process ends. */
static _Thread_local char         t_message[TNN_THREAD_MESSAGE_SIZE]; /* errors of calls without a session */
static _Thread_local int          t_code;
static _Thread_local const char * t_call = "none";

static atomic_uint_fast64_t g_fork_epoch; /* number of forks between the first process and this one */

static void format_message(char * out, int size, const char * call, const char * fmt, va_list args) {
    int used = snprintf(out, (size_t) size, "%s: ", call);
    if (used < 0 || used >= size) {
        used = 0;
    }
    vsnprintf(out + used, (size_t) (size - used), fmt, args);
}

int tnn__fail(tnn_session * s, int code, const char * fmt, ...) {
    va_list args;
    va_start(args, fmt);
    if (s != NULL) {
        format_message(s->message, TNN_MESSAGE_SIZE, s->call, fmt, args);
        s->code = code;
    } else {
        format_message(t_message, TNN_THREAD_MESSAGE_SIZE, t_call, fmt, args);
        t_code = code;
    }
    va_end(args);
    return code;
}

bool tnn__enter(tnn_session * s, const char * call) {
    t_call = call;
    if (s == NULL) {
        tnn__fail(NULL, TNN_E_STATE, "session is NULL; create one with tnn_session_new");
        return false;
    }
    s->call       = call;
    s->code       = TNN_OK;
    s->message[0] = '\0';
    if (s->fork_epoch != atomic_load(&g_fork_epoch)) {
        tnn__fail(s, TNN_E_STATE, "this session belongs to the parent process; after fork() create a new session");
        return false;
    }
    return true;
}

int tnn__fail_stage(tnn_session * s, const char * needs) {
    static const char * const where[] = {
        "the weights are not finalized yet (tnn_finalize_weights)",
        "the weights are finalized and a graph is being built",
        "the forward graph is built but not realized",
        "the training graph is built but not realized",
        "the forward graph is realized (tnn_reset_for_rebuild starts a new one)",
        "the training graph is realized (tnn_reset_for_rebuild starts a new one)",
    };
    return tnn__fail(s, TNN_E_STATE, "%s, but %s", needs, where[s->stage]);
}

const char * tnn_last_error(const tnn_session * s) {
    return s != NULL ? s->message : t_message;
}

int tnn_last_error_code(const tnn_session * s) {
    return s != NULL ? s->code : t_code;
}

/* ------------------------------------------------------------------ setting up ggml, once per process */

/* If a process forks while another thread makes a ggml context, the child must not inherit ggml's lock in its locked state.
 * The same holds for the lock of the guards. */
static void before_fork(void) {
    tnn__guards_lock();
    ggml_critical_section_start();
}

static void after_fork_in_parent(void) {
    ggml_critical_section_end();
    tnn__guards_unlock();
}

static void after_fork_in_child(void) {
    ggml_critical_section_end();
    tnn__guards_unlock();
    atomic_fetch_add(&g_fork_epoch, 1);
}

/* Prints the name of the call before ggml aborts. A GGML_ASSERT that fails in spite of the checks is a bug of the
 * shim. */
static void on_abort(const char * message) {
    fprintf(stderr, "toynn: internal error, please report it: ggml aborted in %s: %s\n", t_call, message);
    fflush(stderr);
}

/* Drops ggml's log lines ("failed to allocate ..."), because the shim reports the same problems as errors. */
static void on_log(enum ggml_log_level level, const char * text, void * data) {
    (void) level;
    (void) text;
    (void) data;
}

/* Sets up the process once. If memory runs out, sets the error that tnn_last_error(NULL) returns, and returns
 * false; the next call tries again. */
static bool set_up_process(void) {
    static bool fork_handlers;
    if (!fork_handlers && pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
        tnn__fail(NULL, TNN_E_MEMORY, "cannot register fork handlers: out of memory");
        return false;
    }
    fork_handlers = true;
    struct tnn_reserve reserve = { 0 };
    if (!tnn__reserve_open(&reserve, (struct tnn_needs) { .small = 6 })) {
        tnn__fail(NULL, TNN_E_MEMORY, "cannot set up ggml: out of memory");
        return false;
    }
    ggml_log_set(on_log, NULL);
    ggml_set_abort_callback(on_abort);
    fenv_t callers;
    tnn__arithmetic_begin(&callers);
    ggml_cpu_init(); /* computes tables */
    tnn__arithmetic_end(&callers);
    const struct ggml_tensor nothing = { .op = GGML_OP_NONE };
    size_t                   unused  = 0;
    /* Makes ggml allocate a list now. Otherwise, ggml's threads would allocate the list at their first node. */
    ggml_cpu_extra_work_size(1, &nothing, &unused);
    tnn__reserve_close(&reserve);
    return true;
}

static bool start_process(void) {
    static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
    static atomic_bool     started;
    if (atomic_load(&started)) {
        return true;
    }
    pthread_mutex_lock(&starting);
    if (!atomic_load(&started)) {
        atomic_store(&started, set_up_process());
    }
    pthread_mutex_unlock(&starting);
    return atomic_load(&started);
}

/* ------------------------------------------------------------------ sessions */

static tnn_session * new_session(const char * call, int32_t kind, int32_t device) {
    static atomic_uint_fast64_t next_serial = 1;
    t_call       = call;
    t_code       = TNN_OK;
    t_message[0] = '\0';
    if (kind != 0) {
        tnn__fail(NULL, TNN_E_VALUE, "kind = %d is unknown; 0 (CPU) is the only backend", (int) kind);
        return NULL;
    }
    if (device != 0) {
        tnn__fail(NULL, TNN_E_VALUE, "device = %d is unknown; the CPU has only device 0", (int) device);
        return NULL;
    }
    if (!start_process()) {
        return NULL;
    }
    tnn_session * s = calloc(1, sizeof(*s));
    if (s == NULL) {
        tnn__fail(NULL, TNN_E_MEMORY, "cannot create a session: out of memory");
        return NULL;
    }
    s->serial     = atomic_fetch_add(&next_serial, 1) & TNN_BITS(TNN_SERIAL_BITS);
    s->generation = 1;
    s->fork_epoch = atomic_load(&g_fork_epoch);
    s->stage      = TNN_STAGE_DECLARE;
    s->windows.n  = 1;
    s->call       = t_call;
    s->capacity   = TNN_DEFAULT_CAPACITY;
    s->n_threads  = tnn_available_cores();
    s->update     = true;
    s->next_window = -1;
    s->next_node   = -1;
    return s;
}

tnn_session * tnn_session_new(int32_t kind) {
    return new_session(__func__, kind, 0);
}

tnn_session * tnn_session_new_on(int32_t kind, int32_t device) {
    return new_session(__func__, kind, device);
}

void tnn_session_free(tnn_session * s) {
    if (s == NULL) {
        return;
    }
    t_call = "tnn_session_free";
    if (s->fork_epoch == atomic_load(&g_fork_epoch)) {
        tnn__release_pool(s); /* in a forked child the pool's threads do not exist, so they cannot be joined */
    }
    tnn__release_graphs(s);
    tnn__release_session(s);
}

int tnn_session_set_graph_capacity(tnn_session * s, int64_t n_nodes) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (n_nodes < 1 || n_nodes > TNN_MAX_CAPACITY) {
        return tnn__fail(s, TNN_E_VALUE, "n_nodes = %lld must be between 1 and %lld", (long long) n_nodes,
                         (long long) TNN_MAX_CAPACITY);
    }
    if (s->ctx_c != NULL) {
        return tnn__fail(s, TNN_E_STATE, "tensors of a graph exist already; set the capacity before the first tensor "
                                         "of a graph, or after tnn_reset_for_rebuild");
    }
    s->capacity = n_nodes;
    return TNN_OK;
}

int64_t tnn_session_graph_capacity(tnn_session * s) {
    return tnn__enter(s, __func__) ? s->capacity : -TNN_E_STATE;
}

int tnn_session_set_n_threads(tnn_session * s, int32_t n, int32_t oversubscribe) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    const int32_t cores = tnn_available_cores();
    const int32_t limit = oversubscribe != 0 ? TNN_MAX_THREADS : cores;
    if (n < 1 || n > limit) {
        return tnn__fail(s, TNN_E_VALUE, "n_threads = %d must be between 1 and %d (%s)", (int) n, (int) limit,
                         oversubscribe != 0 ? "ggml's limit" : "the number of cores for this process");
    }
    if (n != s->n_threads) {
        tnn__release_pool(s);
        s->n_threads = n;
    }
    return TNN_OK;
}

const char * tnn_backend_name(tnn_session * s) {
    return tnn__enter(s, __func__) ? "CPU" : NULL;
}

int64_t tnn_session_n_threads(tnn_session * s) {
    return tnn__enter(s, __func__) ? s->n_threads : -TNN_E_STATE;
}

int64_t tnn_session_weights_nbytes(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return -TNN_E_STATE;
    }
    return s->buf_w != NULL ? (int64_t) ggml_backend_buffer_get_size(s->buf_w) : 0;
}

int64_t tnn_session_compute_nbytes(tnn_session * s) {
    return tnn__enter(s, __func__) ? (int64_t) s->nbytes_c : -TNN_E_STATE;
}

int tnn_reset_for_rebuild(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage == TNN_STAGE_DECLARE) {
        return tnn__fail_stage(s, "a graph can be rebuilt only after tnn_finalize_weights");
    }
    if (s->generation == TNN_BITS(TNN_GENERATION_BITS)) {
        return tnn__fail(s, TNN_E_STATE, "this session was rebuilt %llu times, which is the limit; create a new "
                                         "session",
                         (unsigned long long) s->generation);
    }
    tnn__release_graphs(s);
    s->generation++;
    s->stage = TNN_STAGE_BUILD;
    return TNN_OK;
}
