/* memory/plan.c - where the tensors of a graph lie.
 *
 * The shim places them itself rather than through ggml's graph allocator, for three reasons: that allocator aborts when
 * a graph leaves more than 256 holes; it lends an input's memory to later nodes, so a caller who skips an upload
 * computes on garbage; and the size must be known, and refused, before any memory is asked for.
 *
 * Inputs (ids, labels, hyper-parameters, the gradient of the loss) keep their place for the whole graph. A node's place is
 * free again after its last reader, unless it is an output; an element-wise node takes over its operand's place.
 */
#define _GNU_SOURCE
#include "kernels/kernel.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "ggml-impl.h"

/* ------------------------------------------------------------------ what can be had */

/* What the kernel says is left of the machine's, or UINT64_MAX. Without a stream of C's, which needs memory. */
static uint64_t kib_available(void) {
    char text[4096];
    return tnn__read_start("/proc/meminfo", text, sizeof(text)) ? tnn__number_behind(text, "MemAvailable:") : UINT64_MAX;
}

uint64_t tnn__memory_available(void) {
    const uint64_t kib       = kib_available();
    uint64_t       available = kib < UINT64_MAX / 1024 ? kib * 1024 : UINT64_MAX;
    if (available == UINT64_MAX) {
        const long pages = sysconf(_SC_PHYS_PAGES);
        const long size  = sysconf(_SC_PAGESIZE);
        available = pages > 0 && size > 0 ? (uint64_t) pages * (uint64_t) size : UINT64_MAX;
    }
    const uint64_t rest = tnn__cgroup_memory();
    return rest < available ? rest : available;
}

int64_t tnn_available_memory(void) {
    const uint64_t available = tnn__memory_available();
    return available < INT64_MAX ? (int64_t) available : INT64_MAX;
}

#define WORTH_ASKING ((size_t) 16 << 20)

/* The kernel promises more than it has; a promise broken later is a killed process, so ask what is really there. */
static bool is_there(size_t size) {
    return size < WORTH_ASKING || (size < SIZE_MAX / 2 && size <= tnn__memory_available());
}

static void * allocated(tnn_session * s, void * memory, size_t size, const char * what) {
    if (memory == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "no memory for %s (%zu bytes)", what, size);
    }
    return memory;
}

void * tnn__aligned_alloc(tnn_session * s, size_t size, const char * what) {
    return allocated(s, is_there(size) ? aligned_alloc(64, GGML_PAD(size, 64)) : NULL, size, what);
}

void * tnn__zeroed_alloc(tnn_session * s, size_t size, const char * what) {
    return allocated(s, is_there(size) ? calloc(1, size) : NULL, size, what);
}

ggml_backend_buffer_t tnn__buffer_alloc(tnn_session * s, size_t size, const char * what) {
    const uint64_t available = tnn__memory_available();
    if (size > available) {
        tnn__fail(s, TNN_E_MEMORY, "%s need %zu bytes (%.1f GiB), %" PRIu64 " are available", what, size,
                  (double) size / (1024.0 * 1024.0 * 1024.0), available);
        return NULL;
    }
    struct tnn_reserve reserve = { 0 }; /* for its header, and the buffer itself where that is small */
    if (!tnn__reserve_open(s, &reserve, (struct tnn_needs) { .small = 2 })) {
        return NULL;
    }
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    tnn__reserve_close(&reserve);
    if (buffer == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "%s need %zu bytes (%.1f GiB), which the system refused", what, size,
                  (double) size / (1024.0 * 1024.0 * 1024.0));
    }
    return buffer;
}

/* ------------------------------------------------------------------ free blocks, sorted by offset */

struct block {
    size_t offset, size;
};

struct free_list {
    struct block * blocks;
    int64_t        n, size;
    size_t         end; /* everything from here on is free */
};

static bool free_list_insert(struct free_list * f, size_t offset, size_t size) {
    int64_t lo = 0, hi = f->n;
    while (lo < hi) {
        const int64_t mid = (lo + hi) / 2;
        if (f->blocks[mid].offset < offset) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    const bool joins_left  = lo > 0 && f->blocks[lo - 1].offset + f->blocks[lo - 1].size == offset;
    const bool joins_right = lo < f->n && offset + size == f->blocks[lo].offset;
    if (joins_left && joins_right) {
        f->blocks[lo - 1].size += size + f->blocks[lo].size;
        memmove(&f->blocks[lo], &f->blocks[lo + 1], (size_t) (f->n - lo - 1) * sizeof(struct block));
        f->n--;
        return true;
    }
    if (joins_left) {
        f->blocks[lo - 1].size += size;
        return true;
    }
    if (joins_right) {
        f->blocks[lo].offset = offset;
        f->blocks[lo].size += size;
        return true;
    }
    if (f->n == f->size) {
        const int64_t  grown  = f->size > 0 ? 2 * f->size : 64;
        struct block * blocks = realloc(f->blocks, (size_t) grown * sizeof(*blocks));
        if (blocks == NULL) {
            return false;
        }
        f->blocks = blocks;
        f->size   = grown;
    }
    memmove(&f->blocks[lo + 1], &f->blocks[lo], (size_t) (f->n - lo) * sizeof(struct block));
    f->blocks[lo] = (struct block) { offset, size };
    f->n++;
    return true;
}

/* Best fit; else the last hole if it touches the end; else the end. */
static size_t free_list_take(struct free_list * f, size_t size) {
    int64_t best = -1;
    for (int64_t i = 0; i < f->n; i++) {
        if (f->blocks[i].size >= size && (best < 0 || f->blocks[i].size < f->blocks[best].size)) {
            best = i;
        }
    }
    if (best >= 0) {
        const size_t offset = f->blocks[best].offset;
        f->blocks[best].offset += size;
        f->blocks[best].size   -= size;
        if (f->blocks[best].size == 0) {
            memmove(&f->blocks[best], &f->blocks[best + 1], (size_t) (f->n - best - 1) * sizeof(struct block));
            f->n--;
        }
        return offset;
    }
    if (f->n > 0 && f->blocks[f->n - 1].offset + f->blocks[f->n - 1].size == f->end) {
        const size_t offset = f->blocks[--f->n].offset;
        f->end = offset + size;
        return offset;
    }
    const size_t offset = f->end;
    f->end += size;
    return offset;
}

/* ------------------------------------------------------------------ the plan */

/* What the plan knows of a tensor that owns memory; indexed by its slot in the graph's hash set. */
struct place {
    size_t offset, size;
    int    last_use; /* node that reads it last; INT32_MAX: never free */
    bool   placed;
};

struct plan {
    const tnn_session  * s;
    struct ggml_cgraph * graph;
    struct place       * places;
    struct free_list     holes;
    size_t               align;
};

static struct ggml_tensor * root_of(struct ggml_tensor * t) {
    return t->view_src != NULL ? t->view_src : t;
}

/* The place of a tensor that the plan owns, or NULL: weights have their own buffer. */
static struct place * place_of(const struct plan * p, struct ggml_tensor * t) {
    if (t->view_src != NULL || t->buffer != NULL) {
        return NULL;
    }
    return &p->places[ggml_hash_find(&p->graph->visited_hash_set, t)];
}

static size_t padded_size(const struct plan * p, const struct ggml_tensor * t) {
    return GGML_PAD(ggml_nbytes(t), p->align);
}

/* The node after which what node i uses is free: the last of its group, whose nodes run at the same time. */
static int end_of(const struct plan * p, int i) {
    return p->s->group_end != NULL && p->graph == p->s->gb ? p->s->group_end[i] : i;
}

static bool runs_alone(const struct plan * p, int i) {
    return end_of(p, i) == i && (i == 0 || end_of(p, i - 1) != i);
}

static void note_use(const struct plan * p, struct ggml_tensor * t, int node) {
    struct ggml_tensor * root = root_of(t);
    struct place * place = place_of(p, root);
    if (place == NULL) {
        return;
    }
    if ((t->flags | root->flags) & GGML_TENSOR_FLAG_OUTPUT) {
        place->last_use = INT32_MAX;
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
            /* ggml computes RMS_NORM and a MUL behind it as one: x must outlive both */
            note_use(p, node->src[j], node->op == GGML_OP_RMS_NORM ? i + 1 : end);
        }
    }
}

static void place_input(struct plan * p, struct ggml_tensor * t) {
    struct place * place = place_of(p, t);
    if (place != NULL && !place->placed) {
        *place = (struct place) { .offset = p->holes.end, .size = padded_size(p, t), .last_use = INT32_MAX, .placed = true };
        p->holes.end += place->size;
    }
}

/* Is operand j's memory read through another operand too, at other elements than the one being written? An element-wise sum
 * or product of a tensor with itself is not: both are read before either is written. */
static bool read_otherwise(const struct ggml_tensor * node, int j) {
    const bool elementwise = node->op == GGML_OP_ADD || node->op == GGML_OP_SUB || node->op == GGML_OP_MUL;
    for (int other = 0; other < GGML_MAX_SRC && node->src[other] != NULL; other++) {
        const bool same = elementwise && node->src[other] == node->src[j];
        if (other != j && !same && root_of(node->src[other]) == root_of(node->src[j])) {
            return true;
        }
    }
    return false;
}

/* The operand whose place node i may take over, or NULL. Only the operands that ggml's kernels read before they write. */
static struct place * inherited_place(const struct plan * p, const struct ggml_tensor * node, int i) {
    const struct tnn_kernel * kernel = tnn__kernel_of(p->s, node);
    if ((kernel != NULL ? kernel->replaces == TNN_REPLACES_NOTHING : !ggml_op_can_inplace(node->op)) || !runs_alone(p, i)) {
        return NULL;
    }
    const int first = kernel != NULL ? (int) kernel->replaces - TNN_REPLACES_SRC0 : 0;
    const int end   = kernel == NULL && (node->op == GGML_OP_ADD || node->op == GGML_OP_SUB || node->op == GGML_OP_MUL) ? 2 : first + 1;
    for (int j = first; j < end; j++) {
        struct ggml_tensor * src   = node->src[j];
        struct place       * place = place_of(p, src);
        if (place != NULL && place->last_use == i && src->op != GGML_OP_NONE && ggml_are_same_layout(node, src)
            && !read_otherwise(node, j)) {
            return place;
        }
    }
    return NULL;
}

static void place_node(struct plan * p, struct ggml_tensor * node, int i) {
    struct place * place = place_of(p, node);
    if (place == NULL || place->placed) {
        return;
    }
    struct place * from = inherited_place(p, node, i);
    if (from != NULL) {
        place->offset = from->offset;
        from->last_use = -1; /* its memory is the node's now */
    } else {
        place->offset = free_list_take(&p->holes, padded_size(p, node));
    }
    place->size   = padded_size(p, node);
    place->placed = true;
}

static bool release(struct plan * p, struct ggml_tensor * t, int i) {
    struct place * place = place_of(p, root_of(t));
    if (place == NULL || !place->placed || place->last_use != i) {
        return true;
    }
    place->last_use = -1;
    return free_list_insert(&p->holes, place->offset, place->size);
}

static bool place_all(struct plan * p) {
    for (int i = 0; i < p->graph->n_leafs; i++) {
        place_input(p, root_of(p->graph->leafs[i]));
    }
    for (int i = 0; i < p->graph->n_nodes; i++) {
        const struct tnn_kernel * kernel = tnn__kernel_of(p->s, p->graph->nodes[i]);
        if (p->graph->nodes[i]->op == GGML_OP_NONE /* parameters stand among the nodes */
            || (p->s->gradients_kept && tnn__is_parameter_gradient(kernel))) {
            place_input(p, root_of(p->graph->nodes[i])); /* a step may add to the gradient of the last */
        }
    }
    for (int i = 0, first = 0; i < p->graph->n_nodes; i++) {
        struct ggml_tensor * node = p->graph->nodes[i];
        place_node(p, node, i);
        bool ok = true;
        for (; end_of(p, i) == i && first <= i; first++) { /* what the nodes of this group were the last to use */
            struct ggml_tensor * used = p->graph->nodes[first];
            ok = release(p, used, i) && ok;
            for (int j = 0; j < GGML_MAX_SRC && used->src[j] != NULL; j++) {
                ok = release(p, used->src[j], i) && ok;
            }
        }
        /* RMS_NORM's operand is kept one node longer, see find_last_uses */
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
        attach(p, buffer, t->view_src); /* at most one deep: ggml resolves views of views */
        t->data = NULL;
        ggml_backend_view_init(t);
    } else {
        char * base = ggml_backend_buffer_get_base(buffer);
        ggml_backend_tensor_alloc(buffer, t, base + place_of(p, t)->offset);
    }
}

int tnn__plan_and_allocate(tnn_session * s, struct ggml_cgraph * graph) {
    struct plan p = { .s = s, .graph = graph, .align = ggml_backend_buft_get_alignment(ggml_backend_cpu_buffer_type()) };
    int rc = TNN_OK;

    p.places = tnn__zeroed_alloc(s, graph->visited_hash_set.size * sizeof(*p.places), "the plan of a graph");
    if (p.places == NULL) {
        rc = s->code;
        goto done;
    }
    find_last_uses(&p);
    if (!place_all(&p)) {
        rc = tnn__fail(s, TNN_E_MEMORY, "no memory to plan a graph of %d nodes", graph->n_nodes);
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
    free(p.holes.blocks);
    free(p.places);
    return rc;
}
