/* memory/plan.c - gives each tensor of a graph its place in one buffer.
 *
 * The shim plans the memory itself instead of using ggml's graph allocator, for three reasons. ggml's allocator aborts
 * if a graph leaves more than 256 holes. ggml's allocator gives the memory of an input to later nodes, so a caller
 * that skips an upload would compute with wrong values. And the shim must know the size before it allocates memory, so
 * that it can refuse a size that is too large.
 *
 * Inputs (ids, labels, hyper-parameters, the gradient of the loss) keep their place for the whole graph. A node's place
 * is free again after the last node that reads it, unless the node is an output. An element-wise node takes over the
 * place of an operand.
 */
#include "memory/plan.h"

#include "graph/handles.h"
#include "kernels/kernel.h"
#include "memory/allocate.h"
#include "memory/free_list.h"
#include "memory/mapping.h"
#include "ops/rules.h"

#include <stdlib.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ the plan */

/* The place of a tensor that owns memory. Places are indexed by the tensor's slot in the graph's hash set. */
struct place {
    size_t offset, size;
    int    last_use; /* the last node that reads the tensor; INT32_MAX: the place never becomes free */
    bool   placed, is_output;
};

struct plan {
    const tnn_session  * s;
    struct ggml_cgraph * graph;
    struct place       * places;
    struct tnn_free_list holes;
    size_t               align;
};

/* Returns the place of a tensor, or NULL for a weight, because weights have their own buffer. */
static struct place * place_of(const struct plan * p, const struct ggml_tensor * t) {
    if (t->view_src != NULL || t->buffer != NULL) {
        return NULL;
    }
    return &p->places[ggml_hash_find(&p->graph->visited_hash_set, t)];
}

static size_t padded_size(const struct plan * p, const struct ggml_tensor * t) {
    return GGML_PAD(ggml_nbytes(t), p->align);
}

/* Returns the node after which the places of node i's operands may be free: the last node of its group, because the
 * nodes of a group run at the same time. */
static int end_of(const struct plan * p, int i) {
    return p->s->group_end != NULL && p->graph == p->s->gb ? p->s->group_end[i] : i;
}

static bool runs_alone(const struct plan * p, int i) {
    return end_of(p, i) == i && (i == 0 || end_of(p, i - 1) != i);
}

static void note_use(const struct plan * p, const struct ggml_tensor * t, int node) {
    const struct ggml_tensor * root = tnn__root(t);
    struct place * place = place_of(p, root);
    if (place == NULL) {
        return;
    }
    if ((t->flags | root->flags) & GGML_TENSOR_FLAG_OUTPUT) {
        place->last_use = INT32_MAX;
        place->is_output = true;
    } else if (place->last_use < node) {
        place->last_use = node;
    }
}

static void find_last_uses(const struct plan * p) {
    for (int i = 0; i < p->graph->n_nodes; i++) {
        struct ggml_tensor * node = p->graph->nodes[i];
        const int end = end_of(p, i);
        note_use(p, node, end);
        for (int j = 0; j < GGML_MAX_SRC && node->src[j] != NULL; j++) {
            /* ggml computes RMS_NORM and the MUL after it as one node, so x must be kept until this MUL */
            note_use(p, node->src[j], node->op == GGML_OP_RMS_NORM ? i + 1 : end);
        }
    }
}

static void place_input(struct plan * p, const struct ggml_tensor * t) {
    struct place * place = place_of(p, t);
    if (place != NULL && !place->placed) {
        *place = (struct place) { p->holes.end, padded_size(p, t), .last_use = INT32_MAX, .placed = true, .is_output = place->is_output };
        p->holes.end += place->size;
    }
}

/* ggml's element-wise sums and products read an element of both operands before they write it. */
static bool is_elementwise(const struct ggml_tensor * node) {
    return node->op == GGML_OP_ADD || node->op == GGML_OP_SUB || node->op == GGML_OP_MUL;
}

/* Returns whether another operand shares memory with operand j, and may be read after the node has overwritten this memory. */
static bool read_otherwise(const struct ggml_tensor * node, int j) {
    for (int other = 0; other < GGML_MAX_SRC && node->src[other] != NULL; other++) {
        const bool same = is_elementwise(node) && node->src[other] == node->src[j];
        if (other != j && !same && tnn__root(node->src[other]) == tnn__root(node->src[j])) {
            return true;
        }
    }
    return false;
}

/* Returns a mask of the operands whose place the result may take over. */
static uint32_t operands_to_overwrite(const struct ggml_tensor * node) {
    const struct tnn_kernel * kernel = tnn__kernel_of(node);
    if (kernel != NULL) {
        return kernel->type->in_place;
    }
    return !ggml_op_can_inplace(node->op) ? 0 : is_elementwise(node) ? TNN_OPERAND(0) | TNN_OPERAND(1) : TNN_OPERAND(0);
}

/* Returns the operand whose place node i takes over, or NULL. */
static struct place * inherited_place(const struct plan * p, const struct ggml_tensor * node, int i) {
    const uint32_t operands = operands_to_overwrite(node);
    for (int j = 0; operands != 0 && runs_alone(p, i) && j < GGML_MAX_SRC && node->src[j] != NULL; j++) {
        const struct ggml_tensor * src   = node->src[j];
        struct place             * place = place_of(p, src);
        if ((operands & TNN_OPERAND(j)) && place != NULL && place->last_use == i && src->op != GGML_OP_NONE
            && ggml_are_same_layout(node, src) && !read_otherwise(node, j)) {
            return place;
        }
    }
    return NULL;
}

static void place_node(struct plan * p, const struct ggml_tensor * node, int i) {
    struct place * place = place_of(p, node);
    if (place == NULL || place->placed) {
        return;
    }
    struct place * from = inherited_place(p, node, i);
    if (from != NULL) {
        place->offset = from->offset;
        from->last_use = -1; /* the memory belongs to the node now, so it is not freed after the last use of the operand */
    } else {
        place->offset = tnn__free_list_take(&p->holes, padded_size(p, node));
    }
    place->size   = padded_size(p, node);
    place->placed = true;
}

static bool release(struct plan * p, const struct ggml_tensor * t, int i) {
    struct place * place = place_of(p, tnn__root(t));
    if (place == NULL || !place->placed || place->last_use != i) {
        return true;
    }
    place->last_use = -1;
    return tnn__free_list_insert(&p->holes, place->offset, place->size);
}

static bool place_all(struct plan * p) {
    for (int i = 0; i < p->graph->n_leafs; i++) {
        place_input(p, tnn__root(p->graph->leafs[i]));
    }
    for (int i = 0; i < p->graph->n_nodes; i++) {
        const struct ggml_tensor * node = p->graph->nodes[i];
        if (node->op == GGML_OP_NONE /* ggml lists parameters as nodes */
            || (p->s->gradients_kept && tnn__is_parameter_gradient(tnn__kernel_of(node)))) {
            place_input(p, tnn__root(node)); /* the next batch may add to this gradient, so its place stays in use */
        }
    }
    for (int i = 0, first = 0; i < p->graph->n_nodes; i++) {
        place_node(p, p->graph->nodes[i], i);
        bool ok = true;
        for (; end_of(p, i) == i && first <= i; first++) { /* frees the places of the tensors that no later node uses */
            const struct ggml_tensor * used = p->graph->nodes[first];
            ok = release(p, used, i) && ok;
            for (int j = 0; j < GGML_MAX_SRC && used->src[j] != NULL; j++) {
                ok = release(p, used->src[j], i) && ok;
            }
        }
        /* the operand of RMS_NORM is kept for one more node; see find_last_uses */
        if (i > 0 && p->graph->nodes[i - 1]->op == GGML_OP_RMS_NORM) {
            ok = release(p, p->graph->nodes[i - 1]->src[0], i) && ok;
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

static void attach(const struct plan * p, ggml_backend_buffer_t buffer, struct ggml_tensor * t) {
    if (t->buffer != NULL) {
        return;
    }
    if (t->view_src != NULL) {
        attach(p, buffer, t->view_src); /* this recursion has one level at most, because ggml makes no views of views */
        t->data = NULL;
        ggml_backend_view_init(t);
    } else {
        const struct place * place = place_of(p, t); /* place_of works only while the tensor has no buffer */
        t->flags = place->is_output ? t->flags | TNN_FLAG_KEPT : t->flags & ~TNN_FLAG_KEPT;
        ggml_backend_tensor_alloc(buffer, t, (char *) ggml_backend_buffer_get_base(buffer) + place->offset);
    }
}

static bool makes_a_view(const struct ggml_tensor * node) {
    return node->op == GGML_OP_NONE || node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE || node->op == GGML_OP_PERMUTE
        || node->op == GGML_OP_TRANSPOSE;
}

/* Returns a mapped weight that the node would write, or NULL. The weight is an operand that the operator writes, or the
 * result shares its memory. */
static const struct ggml_tensor * mapped_target(tnn_session * s, const struct ggml_tensor * node) {
    if (!makes_a_view(node) && tnn__is_mapped(s, node)) {
        return tnn__root(node);
    }
    const uint32_t writes = tnn__operands_written(node);
    for (int j = 0; j < GGML_MAX_SRC && node->src[j] != NULL; j++) {
        if ((writes & TNN_OPERAND(j)) && tnn__is_mapped(s, node->src[j])) {
            return tnn__root(node->src[j]);
        }
    }
    return NULL;
}

static int check_writes(tnn_session * s, const struct ggml_cgraph * graph) {
    for (int i = 0; s->mappings != NULL && i < graph->n_nodes; i++) {
        const struct ggml_tensor * target = mapped_target(s, graph->nodes[i]);
        if (target != NULL) {
            return tnn__fail(s, TNN_E_VALUE, "node %s would write the weight %s of shape %s, but this weight is mapped from a file and "
                                             "cannot be written; use an unmapped weight",
                             ggml_get_name(graph->nodes[i]), ggml_get_name(target), tnn__shape(target));
        }
    }
    return TNN_OK;
}

int tnn__plan_and_allocate(tnn_session * s, struct ggml_cgraph * graph) {
    struct plan p = { .s = s, .graph = graph, .align = ggml_backend_buft_get_alignment(ggml_backend_cpu_buffer_type()) };
    int rc = check_writes(s, graph);
    if (rc != TNN_OK) {
        return rc;
    }

    p.places = tnn__zeroed_alloc(s, graph->visited_hash_set.size * sizeof(*p.places), "the plan of a graph");
    if (p.places == NULL) {
        rc = s->code;
        goto done;
    }
    find_last_uses(&p);
    if (!place_all(&p)) {
        rc = tnn__fail(s, TNN_E_MEMORY, "cannot plan a graph of %d nodes: out of memory", graph->n_nodes);
        goto done;
    }
    const size_t need = p.holes.end > 0 ? p.holes.end : p.align;
    if (s->buf_c == NULL || ggml_backend_buffer_get_size(s->buf_c) < need) {
        ggml_backend_buffer_free(s->buf_c);
        s->buf_c = tnn__buffer_alloc(s, need, "the graph's tensors");
        if (s->buf_c == NULL) {
            rc = s->code;
            goto done;
        }
    }
    for (int i = 0; i < graph->n_leafs; i++) {
        attach(&p, s->buf_c, graph->leafs[i]);
    }
    for (int i = 0; i < graph->n_nodes; i++) {
        attach(&p, s->buf_c, graph->nodes[i]);
    }
    s->nbytes_c = need;
done:
    free(p.holes.holes);
    free(p.places);
    return rc;
}
