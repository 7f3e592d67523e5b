/* graph/forward.c - flags, the forward graph, and running a graph. */
#include "kernels/kernel.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ flags and names */

/* Flags steer how a graph is expanded and placed, so they come before that. */
static struct ggml_tensor * flag_operand(tnn_session * s, const char * call, tnn_tensor h) {
    struct ggml_tensor * t = tnn__enter(s, call) ? tnn__tensor(s, "t", h) : NULL;
    if (t != NULL && (s->stage == TNN_STAGE_FORWARD_REALIZED || s->stage == TNN_STAGE_BACKWARD_REALIZED)) {
        tnn__fail_stage(s, "a tensor can be flagged only before the graph is realized");
        return NULL;
    }
    return t;
}

int tnn_set_param(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = flag_operand(s, __func__, t);
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    if (x->op != GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "t is the result of an operator (%s); a parameter must be a declared tensor", ggml_op_name(x->op));
    }
    if (x->type != GGML_TYPE_F32) {
        return tnn__fail(s, TNN_E_TYPE, "t has dtype %s; ggml's CPU backend trains f32 only", ggml_type_name(x->type));
    }
    if (s->gf != NULL) {
        return tnn__fail_stage(s, "a parameter must be flagged before the forward graph is built");
    }
    ggml_set_param(x);
    return TNN_OK;
}

int tnn_set_loss(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = flag_operand(s, __func__, t);
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    if (!ggml_is_scalar(x) || x->type != GGML_TYPE_F32) {
        return tnn__fail(s, TNN_E_VALUE, "t has shape %s and dtype %s, a loss must be an f32 scalar", tnn__shape(x), ggml_type_name(x->type));
    }
    if (x->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "t is an input; a loss must be the result of an operator");
    }
    if (s->gb != NULL) {
        return tnn__fail_stage(s, "the loss must be flagged before tnn_build_backward");
    }
    ggml_set_loss(x);
    return TNN_OK;
}

int tnn_set_output(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = flag_operand(s, __func__, t);
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    ggml_set_output(x);
    return TNN_OK;
}

int tnn_tensor_set_name(tnn_session * s, tnn_tensor t, const char * name) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__tensor(s, "t", t) : NULL;
    if (x == NULL) {
        return tnn_last_error_code(s);
    }
    if (name == NULL || strlen(name) >= GGML_MAX_NAME) {
        return tnn__fail(s, TNN_E_VALUE, "name must be a string of at most %d bytes", GGML_MAX_NAME - 1);
    }
    ggml_set_name(x, name);
    return TNN_OK;
}

/* ------------------------------------------------------------------ expanding */

/* Appends t's ancestors and t in the order of ggml_build_forward_expand (operands first, left to right), but without its
 * recursion: a chain of a hundred thousand nodes must not overflow the stack. */
int tnn__expand(tnn_session * s, struct ggml_cgraph * graph, struct ggml_tensor * t) {
    struct frame {
        struct ggml_tensor * t;
        int                  next;
    };
    struct frame * stack = malloc(256 * sizeof(*stack));
    size_t size = 256, depth = 0;
    if (stack == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "no memory to expand the graph");
    }
    stack[depth++] = (struct frame) { t, 0 };
    while (depth > 0) {
        struct frame * top = &stack[depth - 1];
        struct ggml_tensor * src = NULL;
        while (top->next < GGML_MAX_SRC && src == NULL) {
            struct ggml_tensor * candidate = top->t->src[top->next++];
            if (candidate != NULL && candidate != top->t && !ggml_hash_contains(&graph->visited_hash_set, candidate)) {
                src = candidate;
            }
        }
        if (src == NULL) {
            ggml_build_forward_expand(graph, top->t); /* its operands are there: one level deep */
            depth--;
            continue;
        }
        if (depth == size) {
            struct frame * grown = realloc(stack, 2 * size * sizeof(*stack));
            if (grown == NULL) {
                free(stack);
                return tnn__fail(s, TNN_E_MEMORY, "no memory to expand the graph");
            }
            stack = grown;
            size *= 2;
        }
        stack[depth++] = (struct frame) { src, 0 };
    }
    free(stack);
    return TNN_OK;
}

int tnn__build_forward(tnn_session * s, tnn_tensor out, const char * arg) {
    struct ggml_tensor * t = tnn__tensor(s, arg, out);
    if (t == NULL) {
        return s->code;
    }
    if (s->stage != TNN_STAGE_BUILD) {
        return tnn__fail_stage(s, "a forward graph is built once");
    }
    if (tnn__is_persistent(t) || t->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "%s (%s) is an input: there is nothing to compute", arg, ggml_get_name(t));
    }
    if (s->gf == NULL) { /* else: what an earlier try could not finish for lack of memory; the context has room for one */
        s->gf = ggml_new_graph_custom(s->ctx_c, (size_t) (s->capacity + s->weights.n), false);
    }
    const int rc = tnn__expand(s, s->gf, t);
    if (rc == TNN_OK) {
        s->stage = TNN_STAGE_FORWARD_BUILT;
    }
    return rc;
}

/* The memory of ggml_cplan: kept, and only ever grown. */
static int reserve_work(tnn_session * s, size_t size) {
    if (size <= s->work_size) {
        return TNN_OK;
    }
    void * work = tnn__aligned_alloc(s, size, "ggml's scratch space");
    if (work == NULL) {
        return s->code;
    }
    free(s->work);
    s->work      = work;
    s->work_size = GGML_PAD(size, 64);
    return TNN_OK;
}

/* ------------------------------------------------------------------ forward */

int tnn_realize(tnn_session * s, tnn_tensor out) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    int rc = tnn__build_forward(s, out, "out");
    if (rc != TNN_OK) {
        return rc;
    }
    struct ggml_tensor * t          = tnn__tensor(s, "out", out);
    struct ggml_tensor * root       = t->view_src != NULL ? t->view_src : t; /* ggml flags what t is a view of, too */
    const int32_t        flags      = t->flags;
    const int32_t        root_flags = root->flags;
    ggml_set_output(t);
    s->gradients_kept = false;
    rc = tnn__plan_and_allocate(s, s->gf);
    if (rc != TNN_OK) { /* as if never asked: it may be again */
        t->flags    = flags;
        root->flags = root_flags;
        ggml_graph_clear(s->gf);
        s->stage = TNN_STAGE_BUILD;
        return rc;
    }
    tnn__losses_seal(s);
    s->stage = TNN_STAGE_FORWARD_REALIZED;
    return TNN_OK;
}

#define POOL_SIZE   4096 /* at least what ggml keeps for a pool, ... */
#define WORKER_SIZE 2048 /* ... and for a worker: half of it a mask of cores */

static int pool_ready(tnn_session * s) {
    if (s->pool != NULL && s->pool_threads == s->n_threads) {
        return TNN_OK;
    }
    tnn__pool_free(s);
    s->crew = tnn__crew_new(s->n_threads - 1);
    if (s->crew == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "n_threads = %d: the system does not start so many threads", (int) s->n_threads);
    }
    struct tnn_reserve reserve = { 0 };
    const struct tnn_needs needs = { .large = { POOL_SIZE, (size_t) s->n_threads * WORKER_SIZE }, .crew = s->crew };
    if (!tnn__reserve_open(s, &reserve, needs)) {
        tnn__pool_free(s);
        return s->code;
    }
    struct ggml_threadpool_params params = ggml_threadpool_params_default(s->n_threads);
    params.poll = 0; /* idle workers sleep */
    s->pool         = ggml_threadpool_new(&params);
    s->pool_threads = s->n_threads;
    tnn__reserve_close(&reserve);
    return s->pool != NULL ? TNN_OK : tnn__fail(s, TNN_E_MEMORY, "ggml could not make a pool of %d threads", (int) s->n_threads);
}

void tnn__pool_free(tnn_session * s) {
    if (s->pool != NULL) {
        ggml_threadpool_free(s->pool);
        s->pool = NULL;
    }
    tnn__crew_free(s->crew);
    s->crew = NULL;
}

/* ggml cuts FLASH_ATTN_EXT by the number of threads, along the keys where there is one query, and its bits follow. Its reference
 * kernel does not. */
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
                                         : tnn__fail(s, TNN_E_INTERNAL, "ggml_graph_compute: %s", ggml_status_to_string(status));
}

static double now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static int run(tnn_session * s, struct ggml_cgraph * graph, double * seconds) {
    int rc = tnn__check_inputs(s, graph);
    if (rc != TNN_OK) {
        return rc;
    }
    rc = pool_ready(s);
    rc = rc == TNN_OK ? tnn__kernels_reserve_scratch(s) : rc;
    if (rc == TNN_OK && seconds != NULL) { /* nothing may fail between two nodes, of which one has stepped a weight */
        rc = reserve_work(s, ggml_graph_plan(graph, s->n_threads, s->pool).work_size);
    }
    if (rc != TNN_OK || !tnn__reserve_open(s, &s->reserve, (struct tnn_needs) { .small = 2 })) { /* ggml makes a context, and drops it */
        return s->code;
    }
    if (seconds == NULL && graph == s->gb && s->leaders != NULL) {
        struct ggml_cgraph groups = *graph;
        groups.nodes   = s->leaders;
        groups.n_nodes = s->n_leaders;
        s->in_groups   = true;
        rc = compute(s, &groups);
        s->in_groups = false;
    } else if (seconds == NULL) {
        rc = compute(s, graph);
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
    fenv_t callers;
    tnn__arithmetic_begin(&callers); /* before the pool's threads start */
    const int rc = run(s, graph, seconds);
    tnn__arithmetic_end(&callers);
    return rc;
}

int tnn_compute(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_FORWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_compute needs tnn_realize");
    }
    return tnn__run(s, s->gf, NULL);
}
