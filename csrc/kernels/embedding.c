/* kernels/embedding.c - the gradient of an embedding table. The forward operator is ggml's GET_ROWS (tnn_get_rows). */
#include "kernels/embedding.h"

#include "graph/gradients.h"
#include "kernels/each_vector.h"
#include "kernels/kernel.h"
#include "kernels/parts.h"

struct embedding {
    int64_t vocab, d, rows, windows; /* rows: the number of tokens of a batch */
};

/* The scratch memory of a thread. For each id, first[id] is the first row of dy with this id, and next[row] is the next
 * row with the same id; -1: none. */
struct tokens {
    int32_t * first, * next;
    float   * sums;
};

static struct tokens lay_out(const struct embedding * p, void * scratch, size_t * size) {
    struct tokens t = { .first = scratch };
    t.next = t.first + p->vocab;
    const size_t at = GGML_PAD((size_t) (p->vocab + p->rows) * sizeof(int32_t), 64);
    t.sums = (float *) ((char *) scratch + at);
    if (size != NULL) {
        *size = at + tnn__sums_scratch(p->d, p->windows);
    }
    return t;
}

static size_t scratch_size(const void * params) {
    size_t size;
    lay_out(params, (void *) 64, &size);
    return size;
}

/* Lists the rows of the ids begin to end - 1. */
static void list_rows(const struct embedding * p, const int32_t * ids, int64_t begin, int64_t end, const struct tokens * t) {
    for (int64_t id = begin; id < end; id++) {
        t->first[id] = -1;
    }
    for (int64_t row = p->rows - 1; row >= 0; row--) {
        if (ids[row] >= begin && ids[row] < end) {
            t->next[row]      = t->first[ids[row]];
            t->first[ids[row]] = (int32_t) row;
        }
    }
}

/* Adds up the rows of dy that belong to one id, from `row` up to the last such row before `end`. Writes the result to sum.
 * Returns the first row of this id that was not added, or a negative number if no row is left. */
static int32_t sum_rows(const struct tnn_kernel * k, const struct tnn_column_sums * c, const struct tokens * t, const float * dy,
                        int32_t row, int64_t end, float * sum) {
    const int64_t d = c->n;
    tnn__start_sum(k, c, sum);
    for (; row >= 0 && row < end; row = t->next[row]) {
        const float * g = dy + row * d;
        EACH_VECTOR(d, { STORE(sum, LOAD(sum) + LOAD(g)); })
    }
    return row;
}

/* Returns the level of the smallest node of the tree (kernels/window_sums.h) that contains both windows. */
static int common_level(int64_t a, int64_t b) {
    int level = 0;
    while (a >> level != b >> level) {
        level++;
    }
    return level;
}

/* Adds up, as a tree, the sums of the windows in which an id occurs. Windows without the id are left out: adding
 * their sum, 0, changes no bit, because a sum that starts from 0 is never -0. The nodes whose right half is not
 * complete form a stack of n nodes. level[i] is the level of the smallest node that contains node i - 1 and node i. */
static void sum_windows_with_id(const struct tnn_kernel * k, const struct tnn_column_sums * c, const struct tokens * t, const float * dy,
                                int32_t row, int64_t in_window) {
    int     level[TNN_LEVELS + 2], n = 0;
    int64_t before = 0;
    while (row >= 0) {
        const int64_t window = row / in_window;
        level[n] = n > 0 ? common_level(before, window) : 0;
        while (n > 1 && level[n - 1] < level[n]) {
            tnn__add_row(t->sums + (n - 2) * c->n, t->sums + (n - 1) * c->n, c->n);
            level[n - 1] = level[n];
            n--;
        }
        row    = sum_rows(k, c, t, dy, row, (window + 1) * in_window, t->sums + n * c->n);
        before = window;
        n++;
    }
    for (; n > 1; n--) {
        tnn__add_row(t->sums + (n - 2) * c->n, t->sums + (n - 1) * c->n, c->n);
    }
    tnn__finish_sum(c, t->sums);
}

/* Computes the gradient of an embedding. Row i of dy is added to row ids[i] of the gradient: within a window in the
 * order of i, and then over the windows as a tree. Each thread computes some rows of the gradient. Operands: [gradient
 * so far,] dy, ids. */
static void run(const struct tnn_kernel * k, struct ggml_tensor * dst, int ith, int nth, void * scratch) {
    const struct embedding   * p   = k->params;
    const float              * dy  = tnn__data(tnn__operand(k, dst, 0));
    const int32_t            * ids = tnn__operand(k, dst, 1)->data;
    const struct tokens        t   = lay_out(p, scratch, NULL);
    const int64_t d = p->d, in_window = p->rows / p->windows;
    /* every row of a stored node must be written, even if its id does not occur */
    const bool every_row = k->s->windows.keep || k->s->windows.at > 0;
    int64_t begin, end;
    tnn__part(dst->ne[1], 1, ith, nth, &begin, &end);
    list_rows(p, ids, begin, end, &t);
    for (int64_t id = begin; id < end; id++) {
        const struct tnn_column_sums sums = tnn__column_sums(k, dst, id * d, d, t.sums + d);
        int32_t row = t.first[id];
        for (int64_t window = 0; window < p->windows && every_row; window++) {
            row = sum_rows(k, &sums, &t, dy, row, (window + 1) * in_window, t.sums);
            tnn__add_window(&sums, window, t.sums);
        }
        if (!every_row && row >= 0) {
            sum_windows_with_id(k, &sums, &t, dy, row, in_window);
        } else if (!every_row && !k->continues) {
            memset(sums.out, 0, (size_t) d * sizeof(float));
        }
    }
}

static const struct tnn_kernel_type EMBEDDING_BACK = {
    .name = "EMBEDDING_BACK", .run = run, .sum = TNN_SUM_IN_PLACE, .over_windows = true, .scratch = scratch_size, .params_size = sizeof(struct embedding),
};

void tnn__embedding_backward(struct tnn_gradients * g, struct ggml_tensor * node, struct ggml_tensor * grad) {
    const struct ggml_tensor * table  = node->src[0];
    struct ggml_tensor       * args[] = { grad, node->src[1] };
    const struct embedding     p      = { .vocab = table->ne[1], .d = table->ne[0], .rows = grad->ne[1], .windows = g->s->windows.n };
    tnn__add_gradient(g, node->src[0], &EMBEDDING_BACK, &p, args, 2);
}
