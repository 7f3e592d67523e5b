/* graph/run.c - runs a realized graph, with its threads, its work memory and the checks before it. */
#include "graph/run.h"

#include "graph/check.h"
#include "kernels/kernel.h"
#include "machine/machine.h"
#include "memory/allocate.h"
#include "memory/mapping.h"
#include "memory/release.h"

#include <stdlib.h>
#include <time.h>

#include "ggml-impl.h"

/* Makes sure that the work memory of ggml_cplan has at least size bytes. The memory is kept, and never becomes
 * smaller. */
static int reserve_work(tnn_session * s, size_t size) {
    if (size <= s->work_size) {
        return TNN_OK;
    }
    void * work = tnn__aligned_alloc(s, size, "ggml's work memory");
    if (work == NULL) {
        return s->code;
    }
    free(s->work);
    s->work      = work;
    s->work_size = GGML_PAD(size, 64);
    return TNN_OK;
}

/* Upper bounds of the bytes that ggml allocates for a pool, and for each worker of the pool (half of these bytes are a
 * mask of cores). */
#define POOL_SIZE   4096
#define WORKER_SIZE 2048

static int pool_ready(tnn_session * s) {
    if (s->pool != NULL && s->pool_threads == s->n_threads) {
        return TNN_OK;
    }
    tnn__release_pool(s);
    s->threads = tnn__threads_start(s->n_threads - 1);
    if (s->threads == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "n_threads = %d is too large: the system refused to start a thread; use "
                                          "fewer threads", (int) s->n_threads);
    }
    struct tnn_reserve reserve = { 0 };
    const struct tnn_needs needs = { .large = { POOL_SIZE, (size_t) s->n_threads * WORKER_SIZE }, .threads = s->threads };
    if (!tnn__reserve_for_ggml(s, &reserve, needs)) {
        tnn__release_pool(s);
        return s->code;
    }
    struct ggml_threadpool_params params = ggml_threadpool_params_default(s->n_threads);
    params.poll = 0; /* idle worker threads sleep */
    s->pool         = ggml_threadpool_new(&params);
    s->pool_threads = s->n_threads;
    tnn__reserve_close(&reserve);
    return s->pool != NULL ? TNN_OK : tnn__fail(s, TNN_E_MEMORY, "ggml cannot create a pool of %d threads; use fewer "
                                                                 "threads", (int) s->n_threads);
}

/* ggml splits FLASH_ATTN_EXT between the threads (for a single query, it splits the keys), so the bits of the result
 * depend on the number of threads. ggml's reference kernel is used, because its bits do not depend on this number. */
static bool needs_reference_kernels(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i]->op == GGML_OP_FLASH_ATTN_EXT) {
            return true;
        }
    }
    return false;
}

static int compute(tnn_session * s, struct ggml_cgraph * graph) {
    struct ggml_cplan plan = ggml_graph_plan(graph, s->n_threads, s->pool);
    plan.use_ref = needs_reference_kernels(graph);
    const int rc = reserve_work(s, plan.work_size);
    if (rc != TNN_OK) {
        return rc;
    }
    plan.work_data = s->work;
    const enum ggml_status status = ggml_graph_compute(graph, &plan);
    return status == GGML_STATUS_SUCCESS ? TNN_OK
                                         : tnn__fail(s, TNN_E_INTERNAL, "bug in toynn: ggml_graph_compute failed: %s; "
                                                                        "please report it",
                                                     ggml_status_to_string(status));
}

static double now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

/* Returns how many nodes ggml runs for the nodes before node `end` of the training graph: one for each group that
 * computes something. The training graph must have groups. */
static int leaders_before(const tnn_session * s, int end) {
    int n = 0;
    for (int i = 0; i < end; i = s->group_end[i] + 1) {
        n += ggml_op_is_empty(s->gb->nodes[s->group_end[i]]->op) ? 0 : 1;
    }
    return n;
}

/* Runs the nodes begin to end - 1 of a graph. */
static int run(tnn_session * s, struct ggml_cgraph * graph, int begin, int end, double * seconds) {
    int rc = pool_ready(s);
    rc = rc == TNN_OK ? tnn__kernels_reserve_scratch(s) : rc;
    /* Nothing may fail between two nodes, because the first node may have updated a weight. */
    if (rc == TNN_OK && seconds != NULL) {
        rc = reserve_work(s, ggml_graph_plan(graph, s->n_threads, s->pool).work_size);
    }
    /* During the call, ggml makes a context and frees it. */
    if (rc != TNN_OK || !tnn__reserve_for_ggml(s, &s->reserve, (struct tnn_needs) { .small = 2 })) {
        return s->code;
    }
    if (seconds == NULL) {
        struct ggml_cgraph part = *graph;
        s->in_groups = graph == s->gb && s->leaders != NULL;
        const int first = s->in_groups ? leaders_before(s, begin) : begin;
        part.nodes   = (s->in_groups ? s->leaders : graph->nodes) + first;
        part.n_nodes = (s->in_groups ? leaders_before(s, end) : end) - first;
        rc = part.n_nodes > 0 ? compute(s, &part) : TNN_OK;
        s->in_groups = false;
    }
    for (int i = 0; rc == TNN_OK && seconds != NULL && i < graph->n_nodes; i++) {
        struct ggml_cgraph node  = ggml_graph_view(graph, i, i + 1);
        const double       start = now();
        rc         = compute(s, &node);
        seconds[i] = now() - start;
    }
    tnn__reserve_leave(&s->reserve);
    s->computed = s->computed || rc == TNN_OK;
    return rc;
}

int tnn__run(tnn_session * s, struct ggml_cgraph * graph, double * seconds) {
    const int rc = tnn__check_inputs(s, graph);
    return rc == TNN_OK ? tnn__run_checked(s, graph, seconds) : rc;
}

static int run_in_mode(tnn_session * s, struct ggml_cgraph * graph, int begin, int end, double * seconds) {
    fenv_t callers;
    int    rc = tnn__mappings_begin(s);
    if (rc != TNN_OK) {
        return rc;
    }
    tnn__arithmetic_begin(&callers); /* the mode of arithmetic must be set before the threads of the pool start */
    rc = run(s, graph, begin, end, seconds);
    tnn__arithmetic_end(&callers);
    if (rc == TNN_OK) {
        rc         = tnn__mappings_end(s);
        s->tainted = rc != TNN_OK;
    }
    return rc;
}

int tnn__run_checked(tnn_session * s, struct ggml_cgraph * graph, double * seconds) {
    return run_in_mode(s, graph, 0, graph->n_nodes, seconds);
}

int tnn__run_part(tnn_session * s, int begin, int end) {
    const int rc = tnn__check_inputs(s, s->gb);
    return rc == TNN_OK ? run_in_mode(s, s->gb, begin, end, NULL) : rc;
}
