/* graph/check.c - what ggml would abort on, found before it is asked. */
#include "kernels/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ gradients */

struct grad_walk {
    tnn_session              * s;
    const struct ggml_cgraph * graph;
    bool                     * needed; /* by slot in the graph's hash set: has a gradient */
};

static bool needs_grad(const struct grad_walk * w, const struct ggml_tensor * t) {
    return t != NULL && w->needed[ggml_hash_find(&w->graph->visited_hash_set, t)];
}

static const char * op_label(const struct ggml_tensor * t) {
    return t->op == GGML_OP_UNARY ? ggml_unary_op_name(ggml_get_unary_op(t)) : ggml_op_desc(t);
}

static int no_derivative(const struct grad_walk * w, const struct ggml_tensor * t, const char * why) {
    const struct tnn_kernel * k = tnn__kernel_of(w->s, t);
    return tnn__fail(w->s, TNN_E_VALUE, "node %s (%s) lies between a parameter and the loss, but %s", ggml_get_name(t),
                     k != NULL ? tnn__kernel_name(k) : op_label(t), why);
}

/* SET and VIEW keep byte strides and offsets of the gradient in int32. */
static bool fits_int32(const struct ggml_tensor * t) {
    return ggml_nelements(t) * (int64_t) sizeof(float) <= INT32_MAX;
}

/* t has a gradient: can ggml's CPU backend pass it on to the operands that need one? */
static int check_derivative(const struct grad_walk * w, const struct ggml_tensor * t) {
    const struct ggml_tensor * a = t->src[0];
    const struct ggml_tensor * b = t->src[1];
    if (t->type != GGML_TYPE_F32) {
        return no_derivative(w, t, "its dtype is not f32: ggml's CPU backend trains f32 only");
    }
    switch (t->op) {
        case GGML_OP_NONE:
        case GGML_OP_ADD:
        case GGML_OP_MUL:
        case GGML_OP_SQRT:
        case GGML_OP_SUM:
        case GGML_OP_SUM_ROWS:
        case GGML_OP_RMS_NORM:
        case GGML_OP_SCALE:
        case GGML_OP_CONT:
        case GGML_OP_RESHAPE:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_DIAG_MASK_INF:
        case GGML_OP_CROSS_ENTROPY_LOSS:
            break;
        case GGML_OP_CPY:
            if (b != t && needs_grad(w, b)) { /* b == t: a cast */
                return no_derivative(w, t, "it overwrites a tensor that depends on a parameter (or is one)");
            }
            break;
        case GGML_OP_SUB:
            if (needs_grad(w, b) && !ggml_are_same_shape(a, b)) {
                return no_derivative(w, t, "ggml has no derivative for a b that is repeated; use tnn_add of the scaled b");
            }
            break;
        case GGML_OP_MUL_MAT:
            if (needs_grad(w, b) && a->type != GGML_TYPE_F32) {
                return no_derivative(w, t, "its a is not f32: ggml's CPU backend has no gradient through f16 or bf16 weights");
            }
            if (needs_grad(w, a) && (a->ne[2] != b->ne[2] || a->ne[3] != b->ne[3]) && b->ne[3] != 1) {
                return no_derivative(w, t, "ggml has no derivative for an a that is repeated over ne3");
            }
            break;
        case GGML_OP_SET:
        case GGML_OP_VIEW:
            if (!fits_int32(t) || !fits_int32(a)) {
                return no_derivative(w, t, "it is larger than 2 GiB, ggml's limit for its derivative");
            }
            break;
        case GGML_OP_SOFT_MAX:
            if (((const float *) t->op_params)[1] != 0.0f) {
                return no_derivative(w, t, "ggml has no derivative for max_bias != 0");
            }
            break;
        case GGML_OP_UNARY:
            if (ggml_get_unary_op(t) != GGML_UNARY_OP_SILU) {
                return no_derivative(w, t, "ggml has no derivative for it");
            }
            break;
        case GGML_OP_GET_ROWS:
        case GGML_OP_ROPE:
            break;
        case GGML_OP_CUSTOM:
            return no_derivative(w, t, "a fused operator has a derivative only in a graph whose loss is tnn_fused_cross_entropy");
        default:
            return no_derivative(w, t, "ggml has no derivative for it");
    }
    /* The operands that ggml never differentiates. */
    const bool mask_or_labels = t->op == GGML_OP_SOFT_MAX || t->op == GGML_OP_CROSS_ENTROPY_LOSS;
    if (mask_or_labels && needs_grad(w, b)) {
        return no_derivative(w, t, t->op == GGML_OP_SOFT_MAX ? "its mask depends on a parameter" : "its labels depend on a parameter");
    }
    if (t->op == GGML_OP_ROPE && needs_grad(w, t->src[2])) {
        return no_derivative(w, t, "its freq_factors depend on a parameter");
    }
    return TNN_OK;
}

/* Does t pass a gradient on to an operand? The same rule as ggml_build_backward_expand's. */
static bool passes_on(const struct grad_walk * w, const struct ggml_tensor * t) {
    for (int j = 0; j < GGML_MAX_SRC; j++) {
        const bool index = j == 1 && (t->op == GGML_OP_CPY || t->op == GGML_OP_GET_ROWS || t->op == GGML_OP_ROPE);
        if (t->src[j] != NULL && t->src[j] != t && !index && needs_grad(w, t->src[j])) {
            return true;
        }
    }
    return false;
}

int tnn__check_differentiable(tnn_session * s, const struct ggml_cgraph * gf) {
    struct grad_walk w = { .s = s, .graph = gf, .needed = calloc(gf->visited_hash_set.size, sizeof(bool)) };
    int rc = TNN_OK;
    if (w.needed == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "no memory to check a graph of %d nodes", gf->n_nodes);
    }
    for (int i = 0; i < gf->n_nodes && rc == TNN_OK; i++) {
        const struct ggml_tensor * t = gf->nodes[i];
        if (t->type == GGML_TYPE_I32) {
            continue;
        }
        const bool fed = passes_on(&w, t);
        if ((t->flags & GGML_TENSOR_FLAG_LOSS) && !fed) {
            rc = tnn__fail(s, TNN_E_STATE, "no parameter leads to the loss %s; flag the trainable tensors with tnn_set_param "
                                           "before the forward graph is built", ggml_get_name(t));
        } else if (fed || (t->flags & GGML_TENSOR_FLAG_PARAM)) {
            rc = check_derivative(&w, t);
            w.needed[ggml_hash_find(&gf->visited_hash_set, t)] = true;
        }
    }
    free(w.needed);
    return rc;
}

/* ------------------------------------------------------------------ inputs */

/* The ids of a GET_ROWS or SET_ROWS node lie between 0 and rows - 1. */
static int check_ids(tnn_session * s, const struct ggml_tensor * node, const struct ggml_tensor * ids, int64_t rows) {
    const int32_t * values = ids->data;
    for (int64_t i = 0; i < ids->ne[0]; i++) {
        if (values[i] < 0 || values[i] >= rows) {
            return tnn__fail(s, TNN_E_VALUE, "ids %s[%lld] = %d is not a row of %s, which has %lld", ggml_get_name(ids), (long long) i,
                             (int) values[i], ggml_get_name(node->op == GGML_OP_GET_ROWS ? node->src[0] : node), (long long) rows);
        }
    }
    return TNN_OK;
}

static int compare_ids(const void * a, const void * b) {
    const int32_t x = *(const int32_t *) a, y = *(const int32_t *) b;
    return (x > y) - (x < y);
}

/* Two threads writing one row would make the result depend on their order. */
static int check_all_different(tnn_session * s, const struct ggml_tensor * ids) {
    const size_t bytes  = (size_t) ids->ne[0] * sizeof(int32_t);
    int32_t    * sorted = tnn__aligned_alloc(s, bytes, "a check of ids");
    int          rc     = TNN_OK;
    if (sorted == NULL) {
        return s->code;
    }
    memcpy(sorted, ids->data, bytes);
    qsort(sorted, (size_t) ids->ne[0], sizeof(int32_t), compare_ids);
    for (int64_t i = 1; i < ids->ne[0] && rc == TNN_OK; i++) {
        if (sorted[i] == sorted[i - 1]) {
            rc = tnn__fail(s, TNN_E_VALUE, "ids %s names row %d twice; set_rows needs different rows", ggml_get_name(ids), (int) sorted[i]);
        }
    }
    free(sorted);
    return rc;
}

/* Each target is a token or ignored, and not all are ignored: their number divides the loss. */
static int check_targets(tnn_session * s, const struct tnn_kernel * k, const struct ggml_tensor * targets, int64_t vocab) {
    const int32_t * values = targets->data;
    int64_t         used   = 0;
    for (int64_t i = 0; i < targets->ne[0]; i++) {
        if (values[i] == k->ignore_id) {
            continue;
        }
        if (values[i] < 0 || values[i] >= vocab) {
            return tnn__fail(s, TNN_E_VALUE, "targets %s[%lld] = %d is neither a token of the vocabulary, of %lld, nor ignore_id = %d",
                             ggml_get_name(targets), (long long) i, (int) values[i], (long long) vocab, (int) k->ignore_id);
        }
        used++;
    }
    return used > 0 ? TNN_OK : tnn__fail(s, TNN_E_VALUE, "targets %s are all ignore_id = %d: there is no loss", ggml_get_name(targets),
                                         (int) k->ignore_id);
}

/* The tokens of a cached attention fit behind those that the cache holds. */
static int check_cache(tnn_session * s, const struct ggml_tensor * node) {
    const int32_t past  = *(const int32_t *) node->src[3]->data;
    const int64_t n_ctx = node->src[2]->ne[1], n = node->ne[1];
    return past >= 0 && past <= n_ctx - n ? TNN_OK : tnn__fail(s, TNN_E_VALUE, "n_past = %d must be between 0 and %lld: the cache holds %lld "
                                                               "tokens, and %lld are added", (int) past, (long long) (n_ctx - n),
                                                               (long long) n_ctx, (long long) n);
}

static int check_uploaded(tnn_session * s, const struct ggml_tensor * t) {
    const struct tnn_entry * e = tnn__entry_of(s, t);
    if (e != NULL && e->is_input && !e->uploaded) {
        return tnn__fail(s, TNN_E_STATE, "input %s of shape %s was never uploaded", ggml_get_name(t), tnn__shape(t));
    }
    return TNN_OK;
}

int tnn__check_inputs(tnn_session * s, const struct ggml_cgraph * graph) {
    int rc = TNN_OK;
    for (int i = 0; i < graph->n_leafs && rc == TNN_OK; i++) {
        rc = check_uploaded(s, graph->leafs[i]);
    }
    for (int i = 0; i < graph->n_nodes && rc == TNN_OK; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        if (t->op == GGML_OP_NONE) {
            rc = check_uploaded(s, t);
        } else if (t->op == GGML_OP_GET_ROWS) {
            rc = check_ids(s, t, t->src[1], t->src[0]->ne[1]);
        } else if (t->op == GGML_OP_SET_ROWS) {
            rc = check_ids(s, t, t->src[1], t->ne[1]);
            rc = rc == TNN_OK ? check_all_different(s, t->src[1]) : rc;
        } else if (t->op == GGML_OP_CUSTOM) {
            const struct tnn_kernel * k = tnn__kernel_of(s, t);
            if (k != NULL && k->kind == TNN_K_CROSS_ENTROPY_ROWS) {
                rc = check_targets(s, k, t->src[1], t->src[0]->ne[0]);
            } else if (k != NULL && k->kind == TNN_K_ATTENTION_CACHED) {
                rc = check_cache(s, t);
            }
        }
    }
    return rc;
}
