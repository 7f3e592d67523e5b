/* graph/groups.c - decides which nodes of a fused training graph run together between two barriers.
 *
 * ggml's threads wait for each other after each node. That costs little if each thread has a core of its own. But if
 * another program uses the core of one thread, the other threads wait for that thread after every node. In a small
 * model, this takes longer than computing the nodes. Two nodes need not wait for each other if neither writes memory
 * that the other reads or writes. Such nodes are put side by side as one group, and ggml sees the group as one node.
 * No bit of a result changes, because every node computes the same values.
 *
 * Groups could be longer if each thread computed the same rows in every product, because a thread would then read only
 * rows that it has computed itself. But this costs more than it saves. Each core would read every weight completely,
 * although other cores have just updated parts of the weight.
 */
#include "graph/schedule.h"

#include "graph/recompute.h"
#include "kernels/kernel.h"
#include "memory/release.h"
#include "ops/rules.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"

/* Barriers matter only for graphs of at most MOST_NODES nodes with fewer than MOST_WORK multiply-adds per node on average. */
#define MOST_NODES 4096
#define MOST_WORK  (INT64_C(1) << 22)
#define WINDOW     256 /* number of nodes that are considered for one group */

/* ------------------------------------------------------------------ the nodes that a node waits for */

struct edge {
    int next; /* the next edge of the same node; -1: no more edges */
    int from; /* the node that the owner of the edge waits for */
};

/* The last node that wrote a tensor, and the nodes that have read the tensor since then. */
struct touch {
    int writer;       /* a node, or -1 */
    int first_reader; /* index in readers where the list of reading nodes starts, or -1 */
};

struct reader {
    int next, node;
};

struct order {
    tnn_session        * s;
    struct ggml_cgraph * graph;
    struct edge   * edges;
    int             n_edges, size;
    int           * first_edge; /* indexed by node: index of its first edge in edges, or -1 */
    struct touch  * touched;    /* indexed by slot of the tensor in the graph's hash set */
    struct reader * readers;
    int             n_readers;
    int           * group;      /* indexed by node: the number of its group, or -1 while it has none */
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
    struct touch * at = &o->touched[ggml_hash_find(&o->graph->visited_hash_set, tnn__root(t))];
    if (!wait_for(o, i, at->writer)) {
        return false;
    }
    o->readers[o->n_readers] = (struct reader) { .next = at->first_reader, .node = i };
    at->first_reader = o->n_readers++;
    return true;
}

static bool note_write(struct order * o, int i, const struct ggml_tensor * t) {
    struct touch * at = &o->touched[ggml_hash_find(&o->graph->visited_hash_set, tnn__root(t))];
    bool ok = wait_for(o, i, at->writer);
    for (int r = at->first_reader; r >= 0 && ok; r = o->readers[r].next) {
        ok = wait_for(o, i, o->readers[r].node);
    }
    *at = (struct touch) { .writer = i, .first_reader = -1 };
    return ok;
}

/* Records the tensors that node i reads besides its operands. */
static bool note_other_reads(struct order * o, int i, const struct tnn_kernel * k) {
    const struct ggml_tensor * node = o->graph->nodes[i], * t = NULL;
    if (k == NULL || k->type->also_reads == NULL) {
        return true;
    }
    while ((t = k->type->also_reads(node, t)) != NULL) {
        if (!note_read(o, i, t)) {
            return false;
        }
    }
    return true;
}

static bool find_edges(struct order * o) {
    for (int i = 0; i < o->graph->n_nodes; i++) {
        const struct ggml_tensor * node = o->graph->nodes[i];
        const struct tnn_kernel  * k    = tnn__kernel_of(node);
        if (ggml_op_is_empty(node->op)) {
            continue;
        }
        const uint32_t writes = tnn__operands_written(node), order_only = k != NULL ? k->type->order_only : 0;
        bool ok = note_other_reads(o, i, k);
        for (int j = 0; j < tnn__n_operands(node) && ok; j++) {
            ok = (order_only & TNN_OPERAND(j)) != 0 || note_read(o, i, node->src[j]);
        }
        for (int j = 0; j < tnn__n_operands(node) && ok; j++) {
            ok = (writes & TNN_OPERAND(j)) == 0 || note_write(o, i, node->src[j]);
        }
        if (!ok || !note_write(o, i, node)) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------ groups */

/* Returns whether only the optimizer waits for this node. Such a node can be added to a group that exists for other
 * nodes. */
static bool can_wait(const struct tnn_kernel * k) {
    return k != NULL && (tnn__is_parameter_gradient(k) || k->type->for_optimizer);
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

/* Numbers the groups from 1; group 0 has the nodes that compute nothing: parameters and views. A node is ready if all
 * nodes that it waits for are in earlier groups. A group first takes the ready nodes that the forward and backward
 * passes wait for, and then the ready nodes that only the optimizer waits for. */
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
                const struct tnn_kernel * k = tnn__kernel_of(o->graph->nodes[i]);
                if (o->group[i] >= 0 || can_wait(k) != (pass == 1) || (k == NULL && !empty) || !may_join(o, i, group)) {
                    continue;
                }
                o->group[i] = group;
                empty       = false;
                alone       = k == NULL; /* an operator of ggml runs alone */
            }
        }
        while (first < n && o->group[first] >= 0) {
            first++;
        }
    }
}

/* If nodes are computed again to save memory, there are no groups: a group would compute them too early. */
static bool is_light(const struct ggml_cgraph * graph) {
    int64_t work = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct tnn_kernel * k = tnn__kernel_of(graph->nodes[i]);
        work += k != NULL && k->type->multiply_adds != NULL ? k->type->multiply_adds(k, graph->nodes[i]) : 0;
    }
    return tnn__recompute_tensors(graph) == 0 && graph->n_nodes <= MOST_NODES && work / graph->n_nodes < MOST_WORK;
}

/* Puts the groups one after the other. The nodes within a group keep the graph's order. */
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
        /* start[g] is the index of the next node of group g. After the last loop, start[g] is the end of the group. */
        for (int g = 0; g < n_groups; g++) {
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
    tnn__release_groups(s);
    if (!is_light(graph)) {
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
    return ok ? TNN_OK : tnn__fail(s, TNN_E_MEMORY, "cannot group the nodes of a graph of %d nodes: out of memory",
                                   graph->n_nodes);
}

/* ------------------------------------------------------------------ running the groups */

/* Makes the graph that ggml runs. It contains only the last node of each group, which runs the whole group. */
int tnn__groups_seal(tnn_session * s, struct ggml_cgraph * graph) {
    if (s->group_end == NULL) {
        return TNN_OK;
    }
    s->leaders = malloc((size_t) graph->n_nodes * sizeof(*s->leaders));
    if (s->leaders == NULL) {
        return tnn__fail(s, TNN_E_MEMORY, "cannot group the nodes of a graph of %d nodes: out of memory",
                         graph->n_nodes);
    }
    s->n_leaders = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        const int           begin = i, end = s->group_end[i];
        struct tnn_kernel * k     = tnn__kernel_of(graph->nodes[end]);
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
