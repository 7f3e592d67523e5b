/* graph/forward.c - expands, realizes and computes the forward graph. */
#include "graph/forward.h"

#include "graph/handles.h"
#include "graph/nodes.h"
#include "graph/run.h"
#include "memory/plan.h"
#include "ops/cross_entropy.h"

#include <stdlib.h>

#include "ggml-impl.h"

/* The order is that of ggml_build_forward_expand (operands first, left to right), but without its recursion: a chain of a hundred
 * thousand nodes must not overflow the stack. */
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

int tnn__build_forward(tnn_session * s, tnn_tensor out, const char * arg) {
    struct ggml_tensor * t = tnn__tensor(s, arg, out);
    if (t == NULL) {
        return s->code;
    }
    if (s->stage != TNN_STAGE_BUILD) {
        return tnn__fail_stage(s, "a forward graph can be built only once; call tnn_reset_for_rebuild to build "
                                  "another");
    }
    if (tnn__is_persistent(t) || t->op == GGML_OP_NONE) {
        return tnn__fail(s, TNN_E_VALUE, "%s (%s) is an input; it must be the result of an operator",
                         arg, ggml_get_name(t));
    }
    /* An earlier call that ran out of memory left its graph, which is used again: the context has memory for one graph
     * only. */
    if (s->gf == NULL) {
        s->gf = ggml_new_graph_custom(s->ctx_c, (size_t) (s->capacity + s->weights.n), false);
    }
    const int rc = tnn__expand(s, s->gf, t);
    if (rc == TNN_OK) {
        s->stage = TNN_STAGE_FORWARD_BUILT;
    }
    return rc;
}

int tnn_realize(tnn_session * s, tnn_tensor out) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    int rc = tnn__build_forward(s, out, "out");
    if (rc != TNN_OK) {
        return rc;
    }
    struct ggml_tensor * t          = tnn__tensor(s, "out", out);
    struct ggml_tensor * root       = tnn__root(t); /* ggml_set_output flags the tensor too */
    const int32_t        flags      = t->flags;
    const int32_t        root_flags = root->flags;
    ggml_set_output(t);
    s->gradients_kept = false;
    rc = tnn__plan_and_allocate(s, s->gf);
    if (rc != TNN_OK) { /* undo everything, so that the caller can repeat the call */
        t->flags    = flags;
        root->flags = root_flags;
        ggml_graph_clear(s->gf);
        s->stage = TNN_STAGE_BUILD;
        return rc;
    }
    tnn__losses_seal(s->gf);
    s->stage = TNN_STAGE_FORWARD_REALIZED;
    return TNN_OK;
}

int tnn_compute(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_FORWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_compute can be called only after tnn_realize");
    }
    return tnn__run(s, s->gf, NULL);
}
