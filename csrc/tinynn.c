/* tinynn.c - the session: its life, its error funnel, its handles. */
#define _GNU_SOURCE
#include "session.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ggml-impl.h"
#include "ggml-threading.h"
#include "traits.h"

/* A handle: sign 0 | serial 19 bits | generation 22 bits | index + 1 22 bits. */
#define SERIAL_BITS     19
#define GENERATION_BITS 22
#define INDEX_BITS      22
#define BITS(n)         ((UINT64_C(1) << (n)) - 1)

/* ------------------------------------------------------------------ process-wide state (not visible to users) */

static pthread_mutex_t       g_starting = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool           g_started;
static atomic_uint_fast64_t  g_next_serial = 1;
static atomic_uint_fast64_t  g_fork_epoch;
/* In memory that every thread has from its start (CMakeLists.txt), of which there is little: a refusal here would end the process. */
static _Thread_local char         t_message[TNN_THREAD_MESSAGE_SIZE]; /* errors of calls without a session */
static _Thread_local int          t_code;
static _Thread_local const char * t_call = "none";

/* A fork while another thread makes a ggml context would leave the child with ggml's lock held for ever. */
static void before_fork(void) {
    ggml_critical_section_start();
}

static void after_fork_in_parent(void) {
    ggml_critical_section_end();
}

static void after_fork_in_child(void) {
    ggml_critical_section_end();
    atomic_fetch_add(&g_fork_epoch, 1);
}

/* A GGML_ASSERT that fires all the same is a bug of the shim: say in which call, before ggml aborts. */
static void on_abort(const char * message) {
    fprintf(stderr, "toynn: internal error, please report it: ggml aborted in %s: %s\n", t_call, message);
    fflush(stderr);
}

/* ggml's log lines ("failed to allocate ...") come back as our own error messages. */
static void on_log(enum ggml_log_level level, const char * text, void * data) {
    (void) level;
    (void) text;
    (void) data;
}

/* Once in a process, and again where memory ended: false with an error of the thread. */
static bool initialise_process(void) {
    static bool fork_handlers;
    if (!fork_handlers && pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
        tnn__fail(NULL, TNN_E_MEMORY, "no memory to be told of a fork");
        return false;
    }
    fork_handlers = true;
    struct tnn_reserve reserve = { 0 };
    if (!tnn__reserve_open(NULL, &reserve, (struct tnn_needs) { .small = 6 })) {
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
    ggml_cpu_extra_work_size(1, &nothing, &unused); /* makes a list that ggml's threads would make at their first node */
    tnn__reserve_close(&reserve);
    return true;
}

static bool start_process(void) {
    if (atomic_load(&g_started)) {
        return true;
    }
    pthread_mutex_lock(&g_starting);
    if (!atomic_load(&g_started)) {
        atomic_store(&g_started, initialise_process());
    }
    pthread_mutex_unlock(&g_starting);
    return atomic_load(&g_started);
}

/* ------------------------------------------------------------------ error funnel */

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
        tnn__fail(NULL, TNN_E_STATE, "session is NULL; make one with tnn_session_new");
        return false;
    }
    s->call       = call;
    s->code       = TNN_OK;
    s->message[0] = '\0';
    if (s->fork_epoch != atomic_load(&g_fork_epoch)) {
        tnn__fail(s, TNN_E_STATE, "this session belongs to the parent process; after fork() make a new session");
        return false;
    }
    return true;
}

int tnn__fail_stage(tnn_session * s, const char * needs) {
    static const char * const where[] = {
        "weights are not finalized yet (tnn_finalize_weights)",
        "the weights are finalized and a graph is being built",
        "the forward graph is built, not realized",
        "the backward graph is built, not realized",
        "the forward graph is realized (tnn_reset_for_rebuild starts a new one)",
        "the backward graph is realized (tnn_reset_for_rebuild starts a new one)",
    };
    return tnn__fail(s, TNN_E_STATE, "%s, but %s", needs, where[s->stage]);
}

const char * tnn_last_error(const tnn_session * s) {
    return s != NULL ? s->message : t_message;
}

int tnn_last_error_code(const tnn_session * s) {
    return s != NULL ? s->code : t_code;
}

/* ------------------------------------------------------------------ handles */

static tnn_tensor make_handle(const tnn_session * s, uint64_t generation, int64_t index) {
    return (tnn_tensor) ((s->serial << (GENERATION_BITS + INDEX_BITS)) | (generation << INDEX_BITS) | (uint64_t) (index + 1));
}

struct tnn_entry * tnn__entry(tnn_session * s, const char * arg, tnn_tensor h) {
    if (h <= 0) {
        tnn__fail(s, TNN_E_TYPE, "%s = %lld is not a tensor handle", arg, (long long) h);
        return NULL;
    }
    const uint64_t bits       = (uint64_t) h;
    const uint64_t serial     = bits >> (GENERATION_BITS + INDEX_BITS);
    const uint64_t generation = (bits >> INDEX_BITS) & BITS(GENERATION_BITS);
    const int64_t  index      = (int64_t) (bits & BITS(INDEX_BITS)) - 1;
    if (serial != s->serial) {
        tnn__fail(s, TNN_E_STATE, "%s is a tensor of another session", arg);
        return NULL;
    }
    if (generation != 0 && generation != s->generation) {
        tnn__fail(s, TNN_E_STATE, "%s is a stale handle: its graph was dropped by tnn_reset_for_rebuild", arg);
        return NULL;
    }
    struct tnn_table * table = generation == 0 ? &s->weights : &s->nodes;
    if (index < 0 || index >= table->n) {
        tnn__fail(s, TNN_E_TYPE, "%s = %lld is not a tensor handle", arg, (long long) h);
        return NULL;
    }
    return &table->entries[index];
}

struct ggml_tensor * tnn__tensor(tnn_session * s, const char * arg, tnn_tensor h) {
    struct tnn_entry * e = tnn__entry(s, arg, h);
    if (e != NULL && e->tensor->op == GGML_OP_NONE && !e->is_input) { /* tnn_tensor_src can reach it */
        tnn__fail(s, TNN_E_VALUE, "%s is memory inside an operator, which holds nothing of its own", arg);
        return NULL;
    }
    return e != NULL ? e->tensor : NULL;
}

/* ggml leaves tensor->extra to the owner of the buffer: the shim keeps the handle there. */
static tnn_tensor stored_handle(const struct ggml_tensor * t) {
    return (tnn_tensor) (intptr_t) t->extra;
}

struct tnn_entry * tnn__entry_of(tnn_session * s, const struct ggml_tensor * t) {
    const uint64_t bits = (uint64_t) stored_handle(t);
    if (bits == 0) {
        return NULL;
    }
    struct tnn_table * table = ((bits >> INDEX_BITS) & BITS(GENERATION_BITS)) == 0 ? &s->weights : &s->nodes;
    return &table->entries[(int64_t) (bits & BITS(INDEX_BITS)) - 1];
}

bool tnn__is_persistent(const struct ggml_tensor * t) {
    const uint64_t bits = (uint64_t) stored_handle(t);
    return bits != 0 && ((bits >> INDEX_BITS) & BITS(GENERATION_BITS)) == 0;
}

bool tnn__table_grow(tnn_session * s, struct tnn_table * table) {
    if (table->n < table->size) {
        return true;
    }
    const int64_t size = table->size > 0 ? 2 * table->size : 256;
    struct tnn_entry * entries = realloc(table->entries, (size_t) size * sizeof(*entries));
    if (entries == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "no memory for %lld tensor handles", (long long) size);
        return false;
    }
    table->entries = entries;
    table->size    = size;
    return true;
}

tnn_tensor tnn__table_add(tnn_session * s, struct tnn_table * table, uint64_t generation, struct ggml_tensor * t) {
    if (!tnn__table_grow(s, table)) {
        return 0;
    }
    const tnn_tensor h = make_handle(s, generation, table->n);
    table->entries[table->n++] = (struct tnn_entry) { .tensor = t, .is_input = false, .uploaded = false };
    t->extra = (void *) (intptr_t) h;
    return h;
}

tnn_tensor tnn__handle(tnn_session * s, struct ggml_tensor * t) {
    return t->extra != NULL ? stored_handle(t) : tnn__table_add(s, &s->nodes, s->generation, t);
}

struct tnn_shape tnn__shape_of(const struct ggml_tensor * t) {
    struct tnn_shape shape;
    const int        n    = ggml_n_dims(t);
    int              used = snprintf(shape.text, sizeof(shape.text), "[%lld", (long long) t->ne[0]);
    for (int i = 1; i < n; i++) {
        used += snprintf(shape.text + used, sizeof(shape.text) - (size_t) used, ", %lld", (long long) t->ne[i]);
    }
    snprintf(shape.text + used, sizeof(shape.text) - (size_t) used, "]");
    return shape;
}

/* ------------------------------------------------------------------ session */

tnn_session * tnn_session_new(int32_t kind) {
    t_call       = "tnn_session_new";
    t_code       = TNN_OK;
    t_message[0] = '\0';
    if (kind != 0) {
        tnn__fail(NULL, TNN_E_VALUE, "kind = %d is unknown; 0 (CPU) is the only backend", (int) kind);
        return NULL;
    }
    if (!start_process()) {
        return NULL;
    }
    tnn_session * s = calloc(1, sizeof(*s));
    if (s == NULL) {
        tnn__fail(NULL, TNN_E_MEMORY, "no memory for a session");
        return NULL;
    }
    s->serial     = atomic_fetch_add(&g_next_serial, 1) & BITS(SERIAL_BITS);
    s->generation = 1;
    s->fork_epoch = atomic_load(&g_fork_epoch);
    s->stage      = TNN_STAGE_DECLARE;
    s->call       = t_call;
    s->capacity   = TNN_DEFAULT_CAPACITY;
    s->n_threads  = tnn_available_cores();
    s->update     = true;
    return s;
}

void tnn_session_free(tnn_session * s) {
    if (s == NULL) {
        return;
    }
    t_call = "tnn_session_free";
    if (s->fork_epoch == atomic_load(&g_fork_epoch)) {
        tnn__pool_free(s); /* in a forked child its threads do not exist: they cannot be joined */
    }
    tnn__compute_context_free(s);
    tnn__weights_free(s);
    ggml_backend_buffer_free(s->buf_c);
    free(s->nodes.entries);
    free(s->work);
    free(s->scratch);
    tnn__reserve_close(&s->reserve);
    free(s);
}

int tnn_session_set_graph_capacity(tnn_session * s, int64_t n_nodes) {
    if (!tnn__enter(s, "tnn_session_set_graph_capacity")) {
        return TNN_E_STATE;
    }
    if (n_nodes < 1 || n_nodes > TNN_MAX_CAPACITY) {
        return tnn__fail(s, TNN_E_VALUE, "n_nodes = %lld must be between 1 and %lld", (long long) n_nodes,
                         (long long) TNN_MAX_CAPACITY);
    }
    if (s->ctx_c != NULL) {
        return tnn__fail(s, TNN_E_STATE, "per-graph tensors exist; set the capacity before the first one, "
                                         "or after tnn_reset_for_rebuild");
    }
    s->capacity = n_nodes;
    return TNN_OK;
}

int64_t tnn_session_graph_capacity(tnn_session * s) {
    return tnn__enter(s, "tnn_session_graph_capacity") ? s->capacity : -TNN_E_STATE;
}

int tnn_session_set_n_threads(tnn_session * s, int32_t n, int32_t oversubscribe) {
    if (!tnn__enter(s, "tnn_session_set_n_threads")) {
        return TNN_E_STATE;
    }
    const int32_t cores = tnn_available_cores();
    const int32_t limit = oversubscribe != 0 ? TNN_MAX_THREADS : cores;
    if (n < 1 || n > limit) {
        return tnn__fail(s, TNN_E_VALUE, "n_threads = %d must be between 1 and %d (%s)", (int) n, (int) limit,
                         oversubscribe != 0 ? "ggml's limit" : "the cores this process may use: more would only wait");
    }
    if (n != s->n_threads) {
        tnn__pool_free(s);
        s->n_threads = n;
    }
    return TNN_OK;
}

int64_t tnn_session_n_threads(tnn_session * s) {
    return tnn__enter(s, "tnn_session_n_threads") ? s->n_threads : -TNN_E_STATE;
}

int64_t tnn_session_weights_nbytes(tnn_session * s) {
    if (!tnn__enter(s, "tnn_session_weights_nbytes")) {
        return -TNN_E_STATE;
    }
    return s->buf_w != NULL ? (int64_t) ggml_backend_buffer_get_size(s->buf_w) : 0;
}

int64_t tnn_session_compute_nbytes(tnn_session * s) {
    return tnn__enter(s, "tnn_session_compute_nbytes") ? (int64_t) s->nbytes_c : -TNN_E_STATE;
}

int tnn_reset_for_rebuild(tnn_session * s) {
    if (!tnn__enter(s, "tnn_reset_for_rebuild")) {
        return TNN_E_STATE;
    }
    if (s->stage == TNN_STAGE_DECLARE) {
        return tnn__fail_stage(s, "a graph can be rebuilt");
    }
    if (s->generation == BITS(GENERATION_BITS)) {
        return tnn__fail(s, TNN_E_STATE, "this session was rebuilt %llu times, its limit; make a new session",
                         (unsigned long long) s->generation);
    }
    tnn__compute_context_free(s);
    s->generation++;
    s->stage = TNN_STAGE_BUILD;
    return TNN_OK;
}
