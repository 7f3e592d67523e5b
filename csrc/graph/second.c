/* graph/second.c - the second forward graph of a session, which shares weights and nodes with the first.
 *
 * Only one of the two graphs has memory at a time. A switch plans the memory again for the other graph: a node of
 * both graphs may then have another place, so the values of inputs and results are lost. Weights keep their values. */
#include "graph/forward.h"
#include "graph/handles.h"
#include "graph/nodes.h"
#include "graph/run.h"
#include "memory/plan.h"
#include "ops/cross_entropy.h"

#include "ggml-impl.h"

int tnn_realize_b(tnn_session * s, tnn_tensor out) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_FORWARD_REALIZED) {
        return tnn__fail_stage(s, "tnn_realize_b can be called only after tnn_realize");
    }
    if (s->second_built) {
        return tnn__fail(s, TNN_E_STATE, "the second forward graph can be built only once; call tnn_reset_for_rebuild to "
                                         "build another");
    }
    const int rc = tnn__expand_for(s, &s->second, "out", out);
    if (rc == TNN_OK) {
        ggml_set_output(tnn__tensor(s, "out", out));
        tnn__losses_seal(s->second);
        s->second_built = true;
    }
    return rc;
}

static void take_memory(tnn_session * s) {
    for (struct ggml_tensor * t = ggml_get_first_tensor(s->ctx_c); t != NULL; t = ggml_get_next_tensor(s->ctx_c, t)) {
        t->buffer = NULL;
        t->data   = NULL;
    }
    for (int64_t i = 0; i < s->nodes.n; i++) {
        s->nodes.entries[i].uploaded = false;
    }
    s->computed = false;
    s->current  = NULL;
}

static int switch_to(tnn_session * s, struct ggml_cgraph * graph) {
    if (s->current == graph) {
        return TNN_OK;
    }
    take_memory(s);
    const int rc = tnn__plan_and_allocate(s, graph);
    if (rc == TNN_OK) {
        s->current = graph;
    }
    return rc;
}

static int need_both(tnn_session * s) {
    if (s->stage != TNN_STAGE_FORWARD_REALIZED) {
        return tnn__fail_stage(s, "a second forward graph can be used only after tnn_realize and tnn_realize_b");
    }
    return s->second_built ? TNN_OK : tnn__fail(s, TNN_E_STATE, "there is no second forward graph; call tnn_realize_b first");
}

int tnn_switch_a(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    const int rc = need_both(s);
    return rc == TNN_OK ? switch_to(s, s->gf) : rc;
}

int tnn_switch_b(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    const int rc = need_both(s);
    return rc == TNN_OK ? switch_to(s, s->second) : rc;
}

int tnn_compute_b(tnn_session * s) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    const int rc = need_both(s);
    if (rc != TNN_OK) {
        return rc;
    }
    if (s->current != s->second) {
        return tnn__fail(s, TNN_E_STATE, "the second forward graph has no memory; call tnn_switch_b and upload its inputs first");
    }
    return tnn__run(s, s->second, NULL);
}
