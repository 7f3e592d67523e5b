/* graph/check.c - finds problems on which ggml would abort, before ggml is called. */
#include "graph/check.h"

#include "graph/half_products.h"
#include "graph/handles.h"
#include "kernels/kernel.h"
#include "ops/rules.h"

#include <stdlib.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ gradients */

static const char * op_label(const struct ggml_tensor * t) {
    const struct tnn_kernel * k = tnn__kernel_of(t);
    return k != NULL ? k->type->name : t->op == GGML_OP_UNARY ? ggml_unary_op_name(ggml_get_unary_op(t)) : ggml_op_desc(t);
}

/* Returns why ggml's CPU backend cannot compute the gradients that the operands of t need, or NULL if it can. */
static const char * refusal(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    const struct tnn_op_rule * rule = tnn__rule_of(t);
    if (t->type != GGML_TYPE_F32 && !tnn__is_half_cast(t)) {
        return "its dtype is not f32: ggml's CPU backend trains f32 only";
    }
    if (t->op == GGML_OP_NONE) {
        return NULL;
    }
    if (tnn__kernel_of(t) != NULL) {
        return "a fused operator has a derivative only in a graph whose loss is tnn_fused_cross_entropy";
    }
    if (rule == NULL || !rule->differentiable) {
        return "ggml has no derivative for it";
    }
    return rule->refuses != NULL ? rule->refuses(g, t) : NULL;
}

/* Returns whether t passes a gradient on to an operand, by the same rule as ggml_build_backward_expand. */
static bool passes_on(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    const struct tnn_op_rule * rule  = tnn__rule_of(t);
    const uint32_t             skips = tnn__is_detach(t) ? TNN_ALL_OPERANDS : rule != NULL ? rule->skips : 0;
    for (int j = 0; j < GGML_MAX_SRC; j++) {
        if (t->src[j] != t && (skips & TNN_OPERAND(j)) == 0 && tnn__grad_needed(g, t->src[j])) {
            return true;
        }
    }
    return false;
}

int tnn__check_differentiable(tnn_session * s, const struct ggml_cgraph * gf) {
    const struct tnn_grad_needs g = { .graph = gf, .needed = calloc(gf->visited_hash_set.size, sizeof(bool)) };
    int rc = TNN_OK;
    if (g.needed == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "cannot differentiate a graph of %d nodes: out of memory", gf->n_nodes);
    }
    for (int i = 0; i < gf->n_nodes && rc == TNN_OK; i++) {
        const struct ggml_tensor * t = gf->nodes[i];
        if (t->type == GGML_TYPE_I32) {
            continue;
        }
        const bool fed = passes_on(&g, t);
        if ((t->flags & GGML_TENSOR_FLAG_LOSS) && !fed) {
            rc = tnn__fail(s, TNN_E_STATE, "the loss %s depends on no parameter; flag the trainable tensors with "
                                           "tnn_set_param "
                                           "before the forward graph is built", ggml_get_name(t));
        } else if (fed || (t->flags & GGML_TENSOR_FLAG_PARAM)) {
            const char * why = refusal(&g, t);
            if (why != NULL) {
                rc = tnn__fail(s, TNN_E_VALUE, "node %s (%s) lies between a parameter and the loss, but %s",
                               ggml_get_name(t),
                               op_label(t), why);
            }
            g.needed[ggml_hash_find(&gf->visited_hash_set, t)] = true;
        }
    }
    free(g.needed);
    return rc;
}

/* ------------------------------------------------------------------ inputs */

static int check_uploaded(tnn_session * s, const struct ggml_tensor * t) {
    const struct tnn_entry * e = tnn__entry_of(s, t);
    if (e != NULL && e->is_input && !e->uploaded) {
        return tnn__fail(s, TNN_E_STATE, "input %s of shape %s was never uploaded; upload it first",
                         ggml_get_name(t), tnn__shape(t));
    }
    return TNN_OK;
}

static int check_values(tnn_session * s, const struct ggml_tensor * t) {
    const struct tnn_kernel  * k    = tnn__kernel_of(t);
    const struct tnn_op_rule * rule = tnn__rule_of(t);
    if (k != NULL) {
        return k->type->check != NULL ? k->type->check(s, k, t) : TNN_OK;
    }
    return rule != NULL && rule->check != NULL ? rule->check(s, t) : TNN_OK;
}

int tnn__check_inputs(tnn_session * s, const struct ggml_cgraph * graph) {
    int rc = TNN_OK;
    for (int i = 0; i < graph->n_leafs && rc == TNN_OK; i++) {
        rc = check_uploaded(s, graph->leafs[i]);
    }
    for (int i = 0; i < graph->n_nodes && rc == TNN_OK; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        rc = t->op == GGML_OP_NONE ? check_uploaded(s, t) : check_values(s, t);
    }
    return rc;
}
