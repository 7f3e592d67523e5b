/* graph/step.c - runs a training step in one call, and measures the time of each node. */
#include "data/canonical_nan.h"
#include "graph/backward.h"
#include "graph/check.h"
#include "graph/handles.h"
#include "graph/run.h"
#include "graph/windows.h"
#include "kernels/grad_norm.h"
#include "kernels/kernel.h"

#include <string.h>

#include "ggml-impl.h"

/* Returns an input of the training graph that the step writes, or NULL with an error. */
static struct ggml_tensor * step_input(tnn_session * s, const char * arg, tnn_tensor h, enum ggml_type type, int64_t n) {
    struct tnn_entry * e = tnn__entry(s, arg, h);
    if (e == NULL) {
        return NULL;
    }
    if (!e->is_input || e->tensor->type != type || ggml_nelements(e->tensor) != n || e->tensor->data == NULL) {
        tnn__fail(s, TNN_E_VALUE, "%s must be an input of the graph with %lld %s values, got a tensor of type %s and shape %s%s",
                  arg, (long long) n,
                  ggml_type_name(type), ggml_type_name(e->tensor->type), tnn__shape(e->tensor),
                  e->is_input && e->tensor->data != NULL ? "" : ", which is not an input of the graph");
        return NULL;
    }
    return e->tensor;
}

static void fill(tnn_session * s, struct ggml_tensor * t, const void * data) {
    memcpy(t->data, data, ggml_nbytes(t));
    tnn__entry_of(s, t)->uploaded = true;
}

/* The values of the inputs of a step: n ids, n targets and n_hp hyper-parameters. */
struct values {
    const int32_t * ids, * targets;
    const float   * hp;
    int64_t         n, n_hp;
};

/* Uploads the inputs of a batch after all checks, and resets the graph for the batch. mode: as for tnn_train_step. */
static int begin(tnn_session * s, const tnn_step * step, struct values v, int32_t mode) {
    struct ggml_tensor * ids     = step_input(s, "step.ids", step->ids, GGML_TYPE_I32, v.n);
    struct ggml_tensor * targets = ids != NULL ? step_input(s, "step.targets", step->targets, GGML_TYPE_I32, v.n) : NULL;
    struct ggml_tensor * hp      = targets != NULL ? step_input(s, "step.hp", step->hp, GGML_TYPE_F32, v.n_hp) : NULL;
    if (hp == NULL) {
        return s->code;
    }
    int rc = tnn__windows_begin(s, mode);
    if (rc != TNN_OK) {
        return rc;
    }
    fill(s, ids, v.ids);
    fill(s, targets, v.targets);
    fill(s, hp, v.hp);
    rc = tnn__check_inputs(s, s->gb); /* check before tnn__reset clears the moments */
    if (rc == TNN_OK) {
        rc = tnn__reset(s, (mode & TNN_STEP_RESET_MOMENTS) != 0);
    }
    s->reset_done = false;
    if (rc != TNN_OK) {
        tnn__windows_end(s, false);
    }
    return rc;
}

int tnn_train_step(tnn_session * s, const tnn_step * step, const int32_t * ids, const int32_t * targets, int64_t n, const float * hp,
                   int64_t n_hp, int32_t mode, float * loss, float * norm) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_train_step can be called only after tnn_realize_backward");
    }
    tnn__abandon_batch(s);
    if (step == NULL || ids == NULL || targets == NULL || hp == NULL || loss == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "step, ids, targets, hp and loss must not be NULL");
    }
    if ((mode & ~(TNN_STEP_RESET_MOMENTS | TNN_STEP_ACCUMULATE | TNN_STEP_NO_UPDATE)) != 0) {
        return tnn__fail(s, TNN_E_VALUE, "mode = %d has unknown bits; it must be a sum of values of enum tnn_step_mode",
                         (int) mode);
    }
    struct ggml_tensor * t_loss = tnn__tensor(s, "step.loss", step->loss);
    struct ggml_tensor * t_norm = t_loss != NULL && step->norm != 0 ? tnn__tensor(s, "step.norm", step->norm) : NULL;
    if (t_loss == NULL || (step->norm != 0 && t_norm == NULL)) {
        return s->code;
    }
    if (!(t_loss->flags & GGML_TENSOR_FLAG_LOSS) || t_loss->data == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "step.loss (%s) must be the loss of the graph, which tnn_set_loss flags",
                         ggml_get_name(t_loss));
    }
    if (!(t_loss->flags & GGML_TENSOR_FLAG_OUTPUT) || (t_norm != NULL && !(t_norm->flags & GGML_TENSOR_FLAG_OUTPUT))) {
        return tnn__fail(s, TNN_E_STATE, "%s must be flagged with tnn_set_output before tnn_realize_backward",
                         !(t_loss->flags & GGML_TENSOR_FLAG_OUTPUT) ? "step.loss" : "step.norm");
    }
    if (t_norm != NULL && (!tnn__is_grad_norm(t_norm) || t_norm->data == NULL)) {
        return tnn__fail(s, TNN_E_VALUE, "step.norm (%s) must be a result of tnn_fused_grad_norm in the graph",
                         ggml_get_name(t_norm));
    }
    if (t_norm != NULL && norm == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "norm must not be NULL, because step.norm is given");
    }
    int rc = begin(s, step, (struct values) { .ids = ids, .targets = targets, .hp = hp, .n = n, .n_hp = n_hp }, mode);
    if (rc != TNN_OK) {
        return rc;
    }
    s->update = (mode & TNN_STEP_NO_UPDATE) == 0;
    rc = tnn__run_checked(s, s->gb, NULL);
    s->update = true;
    tnn__windows_end(s, rc == TNN_OK);
    if (rc == TNN_OK) {
        *loss = tnn__canonical_nan(*(const float *) t_loss->data);
        if (t_norm != NULL) {
            *norm = tnn__canonical_nan(*(const float *) t_norm->data);
        }
    }
    return rc;
}

int tnn_begin_step(tnn_session * s, const tnn_step * step, const int32_t * ids, const int32_t * targets, int64_t n, const float * hp,
                   int64_t n_hp, int32_t accumulate) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BACKWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_begin_step can be called only after tnn_realize_backward");
    }
    tnn__abandon_batch(s);
    if (step == NULL || ids == NULL || targets == NULL || hp == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "step, ids, targets and hp must not be NULL");
    }
    if (!s->gradients_kept) {
        return tnn__fail(s, TNN_E_STATE, "to compute a batch in parts, each gradient must be flagged with tnn_set_output before "
                                         "tnn_realize_backward");
    }
    const int32_t mode = TNN_STEP_NO_UPDATE | (accumulate != 0 ? TNN_STEP_ACCUMULATE : 0);
    const int rc = begin(s, step, (struct values) { .ids = ids, .targets = targets, .hp = hp, .n = n, .n_hp = n_hp }, mode);
    if (rc == TNN_OK) {
        s->next_node = 0;
    }
    return rc;
}

/* Returns the number of nodes of the training graph that must run until the gradient of a parameter is complete, or 0 if t is not a parameter. */
static int nodes_until(const tnn_session * s, const struct ggml_tensor * t) {
    for (int i = s->gb->n_nodes - 1; i >= 0; i--) {
        const struct tnn_kernel * k = tnn__kernel_of(s->gb->nodes[i]);
        if (tnn__is_parameter_gradient(k) && k->gradient_of == t) {
            return (s->group_end != NULL ? s->group_end[i] : i) + 1;
        }
    }
    return 0;
}

int tnn_continue_step(tnn_session * s, tnn_tensor t) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->next_node < 0) {
        return tnn__fail(s, TNN_E_STATE, "no batch has been begun; call tnn_begin_step first");
    }
    int end = s->gb->n_nodes;
    if (t != 0) {
        const struct ggml_tensor * of = tnn__tensor(s, "t", t);
        end = of != NULL ? nodes_until(s, of) : 0;
        if (of == NULL) {
            return s->code;
        }
        if (end == 0) {
            return tnn__fail(s, TNN_E_VALUE, "t (%s) must be a parameter that fused operators use", ggml_get_name(of));
        }
    }
    if (end <= s->next_node && t != 0) {
        return TNN_OK;
    }
    s->update = false;
    const int rc = tnn__run_part(s, s->next_node, end);
    s->update = true;
    if (rc != TNN_OK) {
        tnn__abandon_batch(s);
    } else if (t != 0) {
        s->next_node = end;
    } else {
        s->next_node = -1;
        tnn__windows_end(s, true);
    }
    return rc;
}

int tnn_compute_profiled(tnn_session * s, double * seconds, int64_t n) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    const bool backward = s->stage == TNN_STAGE_BACKWARD_REALIZED;
    if (!backward && s->stage != TNN_STAGE_FORWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_compute_profiled can be called only after tnn_realize or tnn_realize_backward");
    }
    if (backward && !s->reset_done) {
        return tnn__fail(s, TNN_E_STATE, "call tnn_graph_reset or tnn_graph_reset_grads_only before each "
                                         "tnn_compute_profiled of a training graph");
    }
    struct ggml_cgraph * graph = backward ? s->gb : s->current;
    if (graph == NULL) {
        return tnn__fail(s, TNN_E_STATE, "neither forward graph has memory; call tnn_switch_a or tnn_switch_b first");
    }
    if (seconds == NULL) {
        return tnn__fail(s, TNN_E_VALUE, "seconds must not be NULL");
    }
    if (n != ggml_graph_n_nodes(graph)) {
        return tnn__fail(s, TNN_E_VALUE, "n = %lld must be the number of nodes, %d",
                         (long long) n, ggml_graph_n_nodes(graph));
    }
    const int rc = tnn__run(s, graph, seconds);
    s->reset_done = s->reset_done && rc != TNN_OK;
    return rc;
}
