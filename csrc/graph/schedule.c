/* graph/schedule.c - decides when each weight is updated, and when the gradients that need not wait are computed.
 *
 * A weight is updated as soon as no later node reads it. Then the memory of its gradient is free for the next gradient,
 * so a training step needs the memory of one gradient instead of all gradients. No bit of a result changes, because
 * each optimizer step reads the same gradient and writes only w, m and v.
 *
 * The backward pass of a graph comes after its forward pass. But the gradients of a part of the logits are computed
 * immediately after this part, so that its memory is free for the next part. */
#include "graph/schedule.h"

#include "graph/nodes.h"
#include "kernels/kernel.h"
#include "ops/rules.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"

/* Moves each node k for which after[k] >= 0 to the place after node after[k]. Nodes that move after the same node
 * keep their order. Node after[k] must not be a node that also moves. */
static int move_nodes(tnn_session * s, struct ggml_cgraph * graph, const int * after) {
    const int n = graph->n_nodes;
    int * first = malloc((size_t) n * 2 * sizeof(*first)), * const next = first != NULL ? first + n : NULL;
    struct ggml_tensor ** order = malloc((size_t) n * sizeof(*order));
    int rc = TNN_OK;
    if (first == NULL || order == NULL) {
        rc = tnn__fail(s, TNN_E_MEMORY, "cannot order a graph of %d nodes: out of memory", n);
        goto done;
    }
    for (int i = 0; i < n; i++) {
        first[i] = -1;
    }
    /* Makes for each node the list of the nodes that move after it. */
    for (int k = n - 1; k >= 0; k--) {
        if (after[k] >= 0) {
            next[k]         = first[after[k]];
            first[after[k]] = k;
        }
    }
    int n_order = 0;
    for (int i = 0; i < n; i++) {
        if (after[i] < 0) {
            order[n_order++] = graph->nodes[i];
            for (int k = first[i]; k >= 0; k = next[k]) {
                order[n_order++] = graph->nodes[k];
            }
        }
    }
    if (n_order == n) {
        memcpy(graph->nodes, order, (size_t) n * sizeof(*order));
    } else {
        rc = tnn__fail(s, TNN_E_INTERNAL, "bug in toynn: only %d of %d nodes were ordered; please report it",
                       n_order, n);
    }
done:
    free(first);
    free(order);
    return rc;
}

int tnn__schedule_gradients(tnn_session * s, struct ggml_cgraph * graph) {
    const int n = graph->n_nodes;
    /* Indexed by slot: the node that computes this tensor, or, if that node moves, the node after which it moves. */
    int * place = malloc(graph->visited_hash_set.size * sizeof(*place));
    int * after = malloc((size_t) n * sizeof(*after));
    int rc = TNN_OK;
    if (place == NULL || after == NULL) {
        rc = tnn__fail(s, TNN_E_MEMORY, "cannot order a graph of %d nodes: out of memory", n);
        goto done;
    }
    for (size_t i = 0; i < graph->visited_hash_set.size; i++) {
        place[i] = -1;
    }
    for (int i = 0; i < n; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        const struct tnn_kernel  * k = tnn__kernel_of(t);
        after[i] = -1;
        for (int j = 0; k != NULL && k->type->at_once && j < tnn__n_operands(t); j++) {
            const int at = place[ggml_hash_find(&graph->visited_hash_set, t->src[j])];
            after[i] = at > after[i] ? at : after[i];
        }
        place[ggml_hash_find(&graph->visited_hash_set, t)] = after[i] >= 0 ? after[i] : i;
    }
    rc = move_nodes(s, graph, after);
done:
    free(place);
    free(after);
    return rc;
}

int tnn__schedule_steps(tnn_session * s, struct ggml_cgraph * graph) {
    const int n = graph->n_nodes;
    /* Indexed by slot: the last node that reads or writes this memory. */
    int * last  = malloc(graph->visited_hash_set.size * sizeof(*last));
    /* Indexed by optimizer step: the node after which the step can run. */
    int * after = malloc((size_t) n * sizeof(*after));
    int rc = TNN_OK;
    if (last == NULL || after == NULL) {
        rc = tnn__fail(s, TNN_E_MEMORY, "cannot order a graph of %d nodes: out of memory", n);
        goto done;
    }
    for (size_t i = 0; i < graph->visited_hash_set.size; i++) {
        last[i] = -1;
    }
    for (int i = 0; i < n; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        if (tnn__is_optimizer_step(t)) {
            continue;
        }
        for (int j = 0; j < tnn__n_operands(t); j++) {
            if (tnn__is_optimizer_step(t->src[j])) {
                goto done; /* another node reads the updated weight, so the order of the calls must be kept */
            }
        }
        last[ggml_hash_find(&graph->visited_hash_set, tnn__root(t))] = i;
        for (int j = 0; j < tnn__n_operands(t); j++) {
            last[ggml_hash_find(&graph->visited_hash_set, tnn__root(t->src[j]))] = i;
        }
    }
    for (int i = 0; i < n; i++) {
        const struct ggml_tensor * t = graph->nodes[i];
        after[i] = -1;
        for (int j = 0; tnn__is_optimizer_step(t) && j < tnn__n_operands(t); j++) {
            const int at = last[ggml_hash_find(&graph->visited_hash_set, tnn__root(t->src[j]))];
            after[i] = at > after[i] ? at : after[i];
        }
    }
    rc = move_nodes(s, graph, after);
done:
    free(last);
    free(after);
    return rc;
}
