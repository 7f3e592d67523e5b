/* graph/forward.c - expands, realizes and computes the forward graph. */
#include "graph/forward.h"

#include "graph/handles.h"
#include "graph/nodes.h"
#include "graph/run.h"
#include "memory/plan.h"
#include "ops/cross_entropy.h"

#include <stdlib.h>

#include "ggml-impl.h"

/* The order is that of ggml_build_forward_expand (operands first, left to right), but without recursion: a hundred
 * thousand nodes, each an operand of the next, must not overflow the stack. */
int tnn__expand(tnn_session * s, struct ggml_cgraph * graph, struct ggml_tensor * t) {
    struct frame {
        struct ggml_tensor * t;
        int                  next;
    };
    struct frame * stack = malloc(256 * sizeof(*stack));
    size_t size = 256, depth = 0;
    if (stack == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "cannot expand the graph: out of memory");
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
            /* The operands are in the graph already, so this call recurses only one level. */
            ggml_build_forward_expand(graph, top->t);
            depth--;
            continue;
        }
        if (depth == size) {
            struct frame * grown = realloc(stack, 2 * size * sizeof(*stack));
            if (grown == NULL) {
                free(stack);
                return tnn__fail(s, TNN_E_MEMORY, "cannot expand the graph: out of memory");
            }
            stack = grown;
            size *= 2;
        }
        stack[depth++] = (struct frame) { src, 0 };
    }
    free(stack);
    return TNN_OK;
}

int tnn__expand_for(tnn_session * s, struct ggml_cgraph ** graph, const char * arg, tnn_tensor out) {
    struct ggml_tensor * t = tnn__tensor(s, arg, out);
    if (t == NULL) {
        return s->code;
    }
    if (tnn__is_persistent(t) || t->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "%s (%s) is an input; it must be the result of an operator",
                         arg, ggml_get_name(t));
    }
    /* An earlier call that ran out of memory left its graph, which is used again: the context has memory for one graph
     * only. */
    if (*graph == NULL) {
        *graph = ggml_new_graph_custom(s->ctx_c, (size_t) (s->capacity + s->weights.n), false);
    }
    const int n_nodes = (*graph)->n_nodes;
    const int rc      = tnn__expand(s, *graph, t);
    if (rc != TNN_OK) {
        tnn__truncate(*graph, n_nodes);
    }
    return rc;
}

void tnn__truncate(struct ggml_cgraph * graph, int n_nodes) {
    ggml_graph_clear(graph);
    /* The operands of a node are already in the graph, so each call appends only the node itself, and the order of the
     * nodes stays the same. */
    for (int i = 0; i < n_nodes; i++) {
        ggml_build_forward_expand(graph, graph->nodes[i]);
    }
}

int tnn__build_forward(tnn_session * s, tnn_tensor out, const char * arg) {
    if (s->stage != TNN_STAGE_BUILD) {
        return tnn__tensor(s, arg, out) == NULL ? s->code
             : tnn__fail_stage(s, "a forward graph can be built only once; call tnn_reset_for_rebuild to build another");
    }
    const int rc = tnn__expand_for(s, &s->gf, arg, out);
    if (rc == TNN_OK) {
        s->stage = TNN_STAGE_FORWARD_BUILT;
    }
    return rc;
}

int tnn_add_to_graph(tnn_session * s, tnn_tensor t) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_BUILD) {
        return tnn__tensor(s, "t", t) == NULL ? s->code : tnn__fail_stage(s, "a node can be added to the graph only before the graph is "
                                                                             "built");
    }
    return tnn__expand_for(s, &s->gf, "t", t);
}

int tnn_realize(tnn_session * s, tnn_tensor out) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    const int n_nodes = s->gf != NULL ? s->gf->n_nodes : 0; /* how many nodes tnn_add_to_graph appended */
    int rc = tnn__build_forward(s, out, "out");
    if (rc != TNN_OK) {
        return rc;
    }
    struct ggml_tensor * t          = tnn__tensor(s, "out", out);
    struct ggml_tensor * root       = tnn__root(t); /* ggml_set_output flags the root tensor too */
    const int32_t        flags      = t->flags;
    const int32_t        root_flags = root->flags;
    ggml_set_output(t);
    s->gradients_kept = false;
    rc = tnn__plan_and_allocate(s, s->gf);
    if (rc != TNN_OK) { /* undo everything, so that the caller can repeat the call */
        t->flags    = flags;
        root->flags = root_flags;
        tnn__truncate(s->gf, n_nodes);
        s->stage = TNN_STAGE_BUILD;
        return rc;
    }
    tnn__losses_seal(s->gf);
    s->stage   = TNN_STAGE_FORWARD_REALIZED;
    s->current = s->gf;
    return TNN_OK;
}

int tnn_compute(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_FORWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_compute can be called only after tnn_realize");
    }
    if (s->current != s->gf) {
        return tnn__fail(s, TNN_E_STATE, "the first forward graph has no memory; call tnn_switch_a and upload its inputs first");
    }
    return tnn__run(s, s->gf, NULL);
}
