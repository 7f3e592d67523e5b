/* graph/backward.c - builds and runs the training graph ("graph b"): the forward graph, its backward pass and the
 * optimizer steps. */
#include "graph/backward.h"

#include "graph/check.h"
#include "graph/forward.h"
#include "graph/fused_backward.h"
#include "graph/half_products.h"
#include "graph/handles.h"
#include "graph/recompute.h"
#include "graph/run.h"
#include "graph/schedule.h"
#include "graph/windows.h"
#include "kernels/kernel.h"
#include "memory/allocate.h"
#include "memory/plan.h"
#include "ops/cross_entropy.h"
#include "ops/rules.h"

#include <string.h>

#include "ggml-impl.h"

int tnn_build_forward_only(tnn_session * s, tnn_tensor loss) {
    return tnn__enter(s, __func__) ? tnn__build_forward(s, loss, "loss") : TNN_E_STATE;
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

int tnn_build_backward(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_FORWARD_BUILT) {
        return tnn__fail_stage(s, "tnn_build_backward can be called only after tnn_build_forward_only");
    }
    if (!any_loss(s->gf)) {
        return tnn__fail(s, TNN_E_STATE, "no node of the forward graph is flagged as a loss; call tnn_set_loss first");
    }
    const bool fused = tnn__is_fused(s->gf);
    int        rc    = fused ? tnn__fused_check(s, s->gf) : tnn__check_differentiable(s, s->gf);
    if (rc != TNN_OK) {
        return rc;
    }
    const int64_t limit = s->n_tensors_c + (int64_t) TNN_BACKWARD_NODES_PER_NODE * s->gf->n_nodes
                        + (fused ? tnn__recompute_tensors(s->gf) : tnn__half_product_tensors(s->gf));
    if (limit > s->capacity) {
        return tnn__fail(s, TNN_E_STATE, "the backward pass of %d nodes may need a graph capacity of %lld, but the "
                                         "capacity is %lld; "
                         "set a larger one with tnn_session_set_graph_capacity and build the graph again",
s->gf->n_nodes, (long long) limit, (long long) s->capacity);
    }
    struct tnn_reserve reserve = { 0 }; /* memory in which ggml marks the tensors that need a gradient */
    if (!fused && !tnn__reserve_for_ggml(s, &reserve, (struct tnn_needs) { .large = { s->gf->visited_hash_set.size } })) {
        return s->code;
    }
    /* A failed earlier call left this copy of the forward graph. The copy is used again, because the context has memory
     * for only one copy. */
    if (s->gb_unfinished != NULL) {
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
        tnn__backward_expand(s, s->gb);
        tnn__reserve_close(&reserve);
    }
    s->n_tensors_c = count_tensors(s);
    if (rc != TNN_OK) {
        s->gb_unfinished = s->gb;
        s->gb            = NULL;
        return rc;
    }
    s->stage = TNN_STAGE_BACKWARD_BUILT;
    return TNN_OK;
}

tnn_tensor tnn_tensor_grad(tnn_session * s, tnn_tensor t) {
    struct ggml_tensor * x = tnn__enter(s, __func__) ? tnn__tensor(s, "t", t) : NULL;
    if (x == NULL) {
        return 0;
    }
    if (s->gb == NULL) {
        tnn__fail_stage(s, "there are no gradients yet; call tnn_build_backward first");
        return 0;
    }
    struct ggml_tensor * grad = ggml_hash_contains(&s->gb->visited_hash_set, x) ? ggml_graph_get_grad(s->gb, x) : NULL;
    if (grad == NULL) {
        tnn__fail(s, TNN_E_VALUE, "t (%s) has no gradient; it must be a parameter on which the loss depends",
                  ggml_get_name(x));
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
        return tnn__fail_stage(s, "nodes can be appended to the training graph only between tnn_build_backward and "
                                  "tnn_realize_backward");
    }
    if (t->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "node (%s) is an input; it must be the result of an operator",
                         ggml_get_name(t));
    }
    return tnn__expand(s, s->gb, t);
}

int tnn_pin_all_graph_b_nodes(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BACKWARD_BUILT) {
        return tnn__fail_stage(s, "the nodes of the training graph can be pinned only between tnn_build_backward and "
                                  "tnn_realize_backward");
    }
    for (int i = 0; i < s->gb->n_nodes; i++) {
        ggml_set_output(s->gb->nodes[i]);
    }
    return TNN_OK;
}

/* Returns whether the gradient of each parameter is an output, and is computed by a kernel that can add to earlier
 * values. */
static bool gradients_kept(const struct ggml_cgraph * gb) {
    for (int i = 0; i < gb->n_nodes; i++) {
        if (gb->nodes[i]->flags & GGML_TENSOR_FLAG_PARAM) {
            const struct ggml_tensor * grad = ggml_graph_get_grad(gb, gb->nodes[i]);
            if (grad != NULL && (!(grad->flags & GGML_TENSOR_FLAG_OUTPUT) || !tnn__is_parameter_gradient(tnn__kernel_of(grad))
                                 || !tnn__kernel_of(grad)->type->over_windows)) {
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
        return tnn__fail_stage(s, "tnn_realize_backward can be called only after tnn_build_backward");
    }
    const bool fused = tnn__is_fused(s->gb);
    int rc = fused ? tnn__schedule_gradients(s, s->gb) : TNN_OK;
    rc = rc == TNN_OK && fused ? tnn__schedule_steps(s, s->gb) : rc;
    rc = rc == TNN_OK && fused ? tnn__group_nodes(s, s->gb) : rc;
    rc = rc == TNN_OK ? tnn__groups_seal(s, s->gb) : rc;
    /* This step is last, because tensors get their memory only once: if a later step failed, the call could not be
     * repeated. */
    if (rc == TNN_OK) {
        s->gradients_kept = gradients_kept(s->gb);
        tnn__windows_realize(s);
        rc = tnn__plan_and_allocate(s, s->gb);
        s->nbytes_c += rc == TNN_OK ? s->nodes_nbytes : 0;
    }
    if (rc != TNN_OK) {
        return rc;
    }
    tnn__losses_seal(s->gb);
    s->computed = false;
    s->stage    = TNN_STAGE_BACKWARD_REALIZED;
    return TNN_OK;
}

static void zero_moments(const struct ggml_tensor * step) {
    for (int j = 0; j < tnn__n_operands(step); j++) {
        if (tnn__operands_written(step) & TNN_OPERAND(j)) {
            ggml_set_zero(step->src[j]);
        }
    }
}

int tnn__reset(tnn_session * s, bool moments) {
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED) {
        return tnn__fail_stage(s, "the gradients can be reset only after tnn_realize_backward");
    }
    tnn__abandon_batch(s);
    for (int i = 0; i < s->gb->n_nodes; i++) {
        struct ggml_tensor * node = s->gb->nodes[i];
        if (moments && tnn__is_optimizer_step(node)) {
            zero_moments(node);
        }
        struct ggml_tensor * accumulator = ggml_graph_get_grad_acc(s->gb, node);
        /* Only the loss has an accumulator here. ggml overwrites the gradients of parameters, so these gradients need
         * no reset. */
        if (accumulator != NULL) {
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
        return tnn__fail_stage(s, "tnn_compute_backward can be called only after tnn_realize_backward");
    }
    if (!s->reset_done) {
        return tnn__fail(s, TNN_E_STATE, "call tnn_graph_reset or tnn_graph_reset_grads_only before each "
                                         "tnn_compute_backward");
    }
    const int rc = tnn__run(s, s->gb, NULL);
    s->reset_done = s->reset_done && rc != TNN_OK;
    return rc;
}
