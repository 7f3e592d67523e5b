/* graph/groups.c - which nodes of a fused training graph run between two barriers.
 *
 * ggml's threads meet after each node. That costs little where each has a core of its own, but the nodes of a small model are
 * short, and where a thread has lost its core the others wait at every one. Here nodes that need not wait for each other, for
 * neither writes what the other touches, are put side by side, as one group, which ggml sees as one node. No bit changes: every
 * node computes what it did.
 *
 * Groups could be longer if products were cut by rows: a thread would find its own rows done. It costs more than it brings:
 * each core then reads the whole of each weight, half of which the other has just stepped.
 */
#include "kernels/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"

#define MOST_NODES 4096               /* beyond it, and ... */
#define MOST_WORK  (INT64_C(1) << 22) /* ... where a node has so many multiply-adds on average, barriers do not matter */
#define WINDOW     256                /* nodes that are looked at for one group */

/* ------------------------------------------------------------------ what a node touches */

static const struct ggml_tensor * memory_of(const struct ggml_tensor * t) {
    return t->view_src != NULL ? t->view_src : t;
}

/* Operand j is written too: the moments of an optimizer's step. */
static bool writes_operand(const struct tnn_kernel * k, const struct ggml_tensor * node, int j) {
    return (k != NULL && k->kind == TNN_K_ADAMW && (j == 2 || j == 3))
        || ((node->op == GGML_OP_OPT_STEP_ADAMW || node->op == GGML_OP_OPT_STEP_SGD) && j != 1);
}

/* That a sum of squares names another's does not mean that it reads it: the norm reads them all. */
static bool reads_operand(const struct tnn_kernel * k, int j) {
    return k == NULL || k->kind != TNN_K_GRAD_SQUARES || j == 0;
}

/* ------------------------------------------------------------------ who waits for whom */

struct edge {
    int next; /* of the same node, -1 at the end */
    int from;
};

/* Who touched a tensor last, by its slot. */
struct touch {
    int writer;       /* node, or -1 */
    int first_reader; /* since it was written, of the readers' list, or -1 */
};

struct reader {
    int next, node;
};

struct order {
    tnn_session        * s;
    struct ggml_cgraph * graph;
    struct edge   * edges;
    int             n_edges, size;
    int           * first_edge; /* by node */
    struct touch  * touched;
    struct reader * readers;
    int             n_readers;
    int           * group;      /* by node: when it runs, or -1 */
};

static bool wait_for(struct order * o, int i, int from) {
    if (from < 0 || from == i) {
        return true;
    }
    if (o->n_edges == o->size) {
        const int     size  = 2 * o->size + 256;
        struct edge * edges = realloc(o->edges, (size_t) size * sizeof(*edges));
        if (edges == NULL) {
            return false;
        }
        o->edges = edges;
        o->size  = size;
    }
    o->edges[o->n_edges] = (struct edge) { .next = o->first_edge[i], .from = from };
    o->first_edge[i]     = o->n_edges++;
    return true;
}

static bool note_read(struct order * o, int i, const struct ggml_tensor * t) {
    struct touch * at = &o->touched[ggml_hash_find(&o->graph->visited_hash_set, memory_of(t))];
    if (!wait_for(o, i, at->writer)) {
        return false;
    }
    o->readers[o->n_readers] = (struct reader) { .next = at->first_reader, .node = i };
    at->first_reader = o->n_readers++;
    return true;
}

static bool note_write(struct order * o, int i, const struct ggml_tensor * t) {
    struct touch * at = &o->touched[ggml_hash_find(&o->graph->visited_hash_set, memory_of(t))];
    bool ok = wait_for(o, i, at->writer);
    for (int r = at->first_reader; r >= 0 && ok; r = o->readers[r].next) {
        ok = wait_for(o, i, o->readers[r].node);
    }
    *at = (struct touch) { .writer = i, .first_reader = -1 };
    return ok;
}

static bool find_edges(struct order * o) {
    for (int i = 0; i < o->graph->n_nodes; i++) {
        const struct ggml_tensor * node = o->graph->nodes[i];
        const struct tnn_kernel  * k    = tnn__kernel_of(o->s, node);
        bool ok = true;
        if (ggml_op_is_empty(node->op)) {
            continue;
        }
        if (k != NULL && k->kind == TNN_K_GRAD_NORM) { /* reads the sums of all gradients, see tnn__grad_norm */
            for (const struct ggml_tensor * t = node->src[0]->src[1]; t != NULL; t = t->src[1]) {
                if (!note_read(o, i, t)) {
                    return false;
                }
            }
        }
        for (int j = 0; j < tnn__n_operands(node) && ok; j++) {
            ok = !reads_operand(k, j) || note_read(o, i, node->src[j]);
        }
        for (int j = 0; j < tnn__n_operands(node) && ok; j++) {
            ok = !writes_operand(k, node, j) || note_write(o, i, node->src[j]);
        }
        if (!ok || !note_write(o, i, node)) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------ groups */

/* What nothing but the optimizer waits for: it can fill groups that have to be there anyway. */
static bool can_wait(const struct tnn_kernel * k) {
    return k != NULL && (tnn__is_parameter_gradient(k) || k->kind == TNN_K_ADAMW || k->kind == TNN_K_GRAD_SQUARES);
}

static bool may_join(const struct order * o, int i, int group) {
    for (int e = o->first_edge[i]; e >= 0; e = o->edges[e].next) {
        const int at = o->group[o->edges[e].from];
        if (at < 0 || at == group) {
            return false;
        }
    }
    return true;
}

/* Numbers the groups from 1; 0 is of what computes nothing, parameters and views. A group is what is ready of the chain from ids to
 * loss and back, then all else that is ready. */
static void form_groups(const struct order * o) {
    const int n = o->graph->n_nodes;
    int first = 0;
    for (int i = 0; i < n; i++) {
        o->group[i] = ggml_op_is_empty(o->graph->nodes[i]->op) ? 0 : -1;
    }
    for (int group = 1; first < n; group++) {
        const int end = n - first < WINDOW ? n : first + WINDOW;
        bool      empty = true, alone = false;
        for (int pass = 0; pass < 2; pass++) {
            for (int i = first; i < end && !alone; i++) {
                const struct tnn_kernel * k = tnn__kernel_of(o->s, o->graph->nodes[i]);
                if (o->group[i] >= 0 || can_wait(k) != (pass == 1) || (k == NULL && !empty) || !may_join(o, i, group)) {
                    continue;
                }
                o->group[i] = group;
                empty       = false;
                alone       = k == NULL; /* a node of ggml's */
            }
        }
        while (first < n && o->group[first] >= 0) {
            first++;
        }
    }
}

static int64_t multiply_adds(const struct tnn_kernel * k, const struct ggml_tensor * node) {
    const int64_t elements = ggml_nelements(node);
    switch (k->kind) {
        case TNN_K_LINEAR: /* k is x's row */
        case TNN_K_LINEAR_BACK_X: /* k is dy's row */
            return elements * node->src[0]->ne[0];
        case TNN_K_LINEAR_BACK_W: /* k is the rows */
            return elements * node->src[k->continues ? 1 : 0]->ne[1];
        default:
            return 0;
    }
}

static bool is_light(const tnn_session * s, const struct ggml_cgraph * graph) {
    int64_t work = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct tnn_kernel * k = tnn__kernel_of(s, graph->nodes[i]);
        work += k != NULL ? multiply_adds(k, graph->nodes[i]) : 0;
    }
    return graph->n_nodes <= MOST_NODES && work / graph->n_nodes < MOST_WORK;
}

/* Puts the groups one behind the other, in the graph's order within. */
static bool apply(const struct order * o) {
    struct ggml_cgraph * graph = o->graph;
    const int n = graph->n_nodes;
    int n_groups = 0;
    for (int i = 0; i < n; i++) {
        n_groups = o->group[i] >= n_groups ? o->group[i] + 1 : n_groups;
    }
    int * start = calloc((size_t) n_groups + 1, sizeof(*start));
    struct ggml_tensor ** nodes = malloc((size_t) n * sizeof(*nodes));
    int * end = malloc((size_t) n * sizeof(*end));
    const bool ok = start != NULL && nodes != NULL && end != NULL;
    if (ok) {
        for (int i = 0; i < n; i++) {
            start[o->group[i] + 1]++;
        }
        for (int g = 0; g < n_groups; g++) {
            start[g + 1] += start[g];
        }
        int at = 0;
        for (int g = 0; g < n_groups; g++) { /* start[g] is where the next of its nodes goes; then where the group ends */
            for (; at < start[g + 1]; at++) {
                end[at] = start[g + 1] - 1;
            }
        }
        for (int i = 0; i < n; i++) {
            nodes[start[o->group[i]]++] = graph->nodes[i];
        }
        memcpy(graph->nodes, nodes, (size_t) n * sizeof(*nodes));
        o->s->group_end = end;
        end = NULL;
    }
    free(start);
    free(nodes);
    free(end);
    return ok;
}

int tnn__group_nodes(tnn_session * s, struct ggml_cgraph * graph) {
    tnn__groups_free(s);
    if (!is_light(s, graph)) {
        return TNN_OK;
    }
    const size_t n = (size_t) graph->n_nodes, slots = graph->visited_hash_set.size;
    struct order o = {
        .s = s, .graph = graph,
        .first_edge = malloc(n * sizeof(*o.first_edge)), .group = malloc(n * sizeof(*o.group)),
        .touched = malloc(slots * sizeof(*o.touched)), .readers = malloc(n * (GGML_MAX_SRC + 1) * sizeof(*o.readers)),
    };
    bool ok = o.first_edge != NULL && o.group != NULL && o.touched != NULL && o.readers != NULL;
    if (ok) {
        for (size_t i = 0; i < slots; i++) {
            o.touched[i] = (struct touch) { .writer = -1, .first_reader = -1 };
        }
        for (size_t i = 0; i < n; i++) {
            o.first_edge[i] = -1;
        }
        ok = find_edges(&o);
    }
    if (ok) {
        form_groups(&o);
        ok = apply(&o);
    }
    free(o.edges);
    free(o.first_edge);
    free(o.group);
    free(o.touched);
    free(o.readers);
    return ok ? TNN_OK : tnn__fail(s, TNN_E_MEMORY, "no memory to group a graph of %d nodes", graph->n_nodes);
}

/* ------------------------------------------------------------------ running them */

/* The graph as ggml runs it: of each group its last node, which runs the others. */
int tnn__groups_seal(tnn_session * s, struct ggml_cgraph * graph) {
    if (s->group_end == NULL) {
        return TNN_OK;
    }
    s->leaders = malloc((size_t) graph->n_nodes * sizeof(*s->leaders));
    if (s->leaders == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "no memory to group a graph of %d nodes", graph->n_nodes);
    }
    s->n_leaders = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const int           begin = i, end = s->group_end[i];
        struct tnn_kernel * k     = tnn__kernel_of(s, graph->nodes[end]);
        i = end;
        if (ggml_op_is_empty(graph->nodes[end]->op)) {
            continue;
        }
        if (k != NULL) {
            k->members   = graph->nodes + begin;
            k->n_members = end - begin + 1;
        }
        s->leaders[s->n_leaders++] = graph->nodes[end];
    }
    return TNN_OK;
}

void tnn__groups_free(tnn_session * s) {
    free(s->group_end);
    free(s->leaders);
    s->group_end = NULL;
    s->leaders   = NULL;
    s->n_leaders = 0;
}
