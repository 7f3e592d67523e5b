/* tinynn_graph.c - flags, the forward graph, graph b, and running them. */
#include "tinynn_kernels.h"

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
static int expand(tnn_session * s, struct ggml_cgraph * graph, struct ggml_tensor * t) {
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

static int build_forward(tnn_session * s, tnn_tensor out, const char * arg) {
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
    const int rc = expand(s, s->gf, t);
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
    int rc = build_forward(s, out, "out");
    if (rc != TNN_OK) {
        return rc;
    }
    struct ggml_tensor * t     = tnn__tensor(s, "out", out);
    const int32_t        flags = t->flags;
    ggml_set_output(t);
    s->gradients_kept = false;
    rc = tnn__plan_and_allocate(s, s->gf);
    if (rc != TNN_OK) { /* as if never asked: it may be again */
        t->flags = flags;
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

/* ------------------------------------------------------------------ graph b */

int tnn_build_forward_only(tnn_session * s, tnn_tensor loss) {
    return tnn__enter(s, __func__) ? build_forward(s, loss, "loss") : TNN_E_STATE;
}

static int64_t count_tensors(const tnn_session * s) {
    int64_t n = 0;
    for (struct ggml_tensor * t = ggml_get_first_tensor(s->ctx_c); t != NULL; t = ggml_get_next_tensor(s->ctx_c, t)) {
        n++;
    }
    return n;
}

static bool any_loss(const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        if (graph->nodes[i]->flags & GGML_TENSOR_FLAG_LOSS) {
            return true;
        }
    }
    return false;
}

/* Is the loss a tnn_fused_cross_entropy? Then the shim differentiates the graph. */
static bool is_fused(const tnn_session * s, const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct tnn_kernel * k = tnn__kernel_of(s, graph->nodes[i]);
        if ((graph->nodes[i]->flags & GGML_TENSOR_FLAG_LOSS) && k != NULL && k->kind == TNN_K_CROSS_ENTROPY) {
            return true;
        }
    }
    return false;
}

int tnn_build_backward(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_FORWARD_BUILT) {
        return tnn__fail_stage(s, "tnn_build_backward needs tnn_build_forward_only");
    }
    if (!any_loss(s->gf)) {
        return tnn__fail(s, TNN_E_STATE, "no node of the forward graph is flagged as a loss; call tnn_set_loss first");
    }
    const bool fused = is_fused(s, s->gf);
    int        rc    = fused ? tnn__fused_check(s, s->gf) : tnn__check_differentiable(s, s->gf);
    if (rc != TNN_OK) {
        return rc;
    }
    const int64_t most = s->n_tensors_c + (int64_t) TNN_BACKWARD_NODES_PER_NODE * s->gf->n_nodes;
    if (most > s->capacity) {
        return tnn__fail(s, TNN_E_STATE, "the backward of %d nodes may need a graph capacity of %lld, it is %lld; "
                         "rebuild with a larger tnn_session_set_graph_capacity", s->gf->n_nodes, (long long) most, (long long) s->capacity);
    }
    struct tnn_reserve reserve = { 0 }; /* ggml's flags of what needs a gradient */
    if (!fused && !tnn__reserve_open(s, &reserve, (struct tnn_needs) { .large = { s->gf->visited_hash_set.size } })) {
        return s->code;
    }
    if (s->gb_unfinished != NULL) { /* the context has room for one copy */
        s->gb = s->gb_unfinished;
        ggml_graph_clear(s->gb);
        memset(s->gb->grads, 0, s->gb->visited_hash_set.size * sizeof(*s->gb->grads));
        memset(s->gb->grad_accs, 0, s->gb->visited_hash_set.size * sizeof(*s->gb->grad_accs));
        ggml_graph_cpy(s->gf, s->gb);
        s->gb_unfinished = NULL;
    } else {
        s->gb = ggml_graph_dup(s->ctx_c, s->gf, true);
    }
    if (fused) {
        rc = tnn__fused_backward(s);
    } else {
        ggml_build_backward_expand(s->ctx_c, s->gb, NULL);
        tnn__reserve_close(&reserve);
    }
    s->n_tensors_c = count_tensors(s);
    if (rc != TNN_OK) {
        s->gb_unfinished = s->gb;
        s->gb            = NULL;
        return rc;
    }
    s->stage       = TNN_STAGE_BACKWARD_BUILT;
    return TNN_OK;
}

tnn_tensor tnn_tensor_grad(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__tensor(s, "t", t) : NULL;
    if (x == NULL) {
        return 0;
    }
    if (s->gb == NULL) {
        tnn__fail_stage(s, "a gradient exists after tnn_build_backward");
        return 0;
    }
    struct ggml_tensor * grad = ggml_hash_contains(&s->gb->visited_hash_set, x) ? ggml_graph_get_grad(s->gb, x) : NULL;
    if (grad == NULL) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) has no gradient: it is no parameter, or leads to no loss", ggml_get_name(x));
        return 0;
    }
    return tnn__handle(s, grad);
}

int tnn_extend_backward_graph(tnn_session * s, tnn_tensor node) {
    struct ggml_tensor * t = tnn__enter(s, __func__) ? tnn__tensor(s, "node", node) : NULL;
    if (t == NULL) {
        return tnn_last_error_code(s);
    }
    if (s->stage != TNN_STAGE_BACKWARD_BUILT) {
        return tnn__fail_stage(s, "graph b can be extended between tnn_build_backward and tnn_realize_backward");
    }
    if (t->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "node (%s) is an input: there is nothing to compute", ggml_get_name(t));
    }
    return expand(s, s->gb, t);
}

int tnn_pin_all_graph_b_nodes(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BACKWARD_BUILT) {
        return tnn__fail_stage(s, "graph b can be pinned between tnn_build_backward and tnn_realize_backward");
    }
    for (int i = 0; i < s->gb->n_nodes; i++) {
        ggml_set_output(s->gb->nodes[i]);
    }
    return TNN_OK;
}

/* Is every gradient of a parameter an output, and made by kernels that can add to what is there? */
static bool gradients_kept(const tnn_session * s, const struct ggml_cgraph * gb) {
    for (int i = 0; i < gb->n_nodes; i++) {
        if (gb->nodes[i]->flags & GGML_TENSOR_FLAG_PARAM) {
            const struct ggml_tensor * grad = ggml_graph_get_grad(gb, gb->nodes[i]);
            if (grad != NULL && (!(grad->flags & GGML_TENSOR_FLAG_OUTPUT) || !tnn__is_parameter_gradient(tnn__kernel_of(s, grad)))) {
                return false;
            }
        }
    }
    return true;
}

int tnn_realize_backward(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BACKWARD_BUILT) {
        return tnn__fail_stage(s, "tnn_realize_backward needs tnn_build_backward");
    }
    const bool fused = is_fused(s, s->gb);
    int rc = fused ? tnn__fused_schedule(s, s->gb) : TNN_OK;
    rc = rc == TNN_OK && fused ? tnn__group_nodes(s, s->gb) : rc;
    rc = rc == TNN_OK ? tnn__groups_seal(s, s->gb) : rc;
    if (rc == TNN_OK) { /* the last that can fail: what has its place is not placed again */
        s->gradients_kept = gradients_kept(s, s->gb);
        rc = tnn__plan_and_allocate(s, s->gb);
    }
    if (rc != TNN_OK) {
        return rc;
    }
    tnn__losses_seal(s);
    s->computed = false;
    s->stage    = TNN_STAGE_BACKWARD_REALIZED;
    return TNN_OK;
}

int tnn__reset(tnn_session * s, bool moments) {
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED) {
        return tnn__fail_stage(s, "a reset needs tnn_realize_backward");
    }
    for (int i = 0; i < s->gb->n_nodes; i++) {
        struct ggml_tensor      * node = s->gb->nodes[i];
        const struct tnn_kernel * k    = tnn__kernel_of(s, node);
        if (moments && (node->op == GGML_OP_OPT_STEP_ADAMW || (k != NULL && k->kind == TNN_K_ADAMW))) {
            ggml_set_zero(node->src[2]);
            ggml_set_zero(node->src[3]);
        }
        struct ggml_tensor * accumulator = ggml_graph_get_grad_acc(s->gb, node);
        if (accumulator != NULL) { /* ggml makes one for each loss only: gradients of parameters are written, not added to */
            *(float *) accumulator->data = node->flags & GGML_TENSOR_FLAG_LOSS ? 1.0f : 0.0f;
        }
    }
    s->reset_done = true;
    return TNN_OK;
}

int tnn_graph_reset(tnn_session * s) {
    return tnn__enter(s, __func__) ? tnn__reset(s, true) : TNN_E_STATE;
}

int tnn_graph_reset_grads_only(tnn_session * s) {
    return tnn__enter(s, __func__) ? tnn__reset(s, false) : TNN_E_STATE;
}

int tnn_compute_backward(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_compute_backward needs tnn_realize_backward");
    }
    if (!s->reset_done) {
        return tnn__fail(s, TNN_E_STATE, "call tnn_graph_reset or tnn_graph_reset_grads_only before each tnn_compute_backward");
    }
    const int rc = tnn__run(s, s->gb, NULL);
    s->reset_done = s->reset_done && rc != TNN_OK;
    return rc;
}
