/* kernels/window_sums.c - the binary tree over the windows of a step. */
#include "kernels/window_sums.h"

#include <string.h>

struct node {
    int64_t start;
    int     level;
    enum tnn_bank bank;
};

/* Returns the number of levels below the root of the binary tree over n windows (window_sums.h). */
static int levels(int64_t n) {
    int level = 0;
    while (INT64_C(1) << level < n) {
        level++;
    }
    return level;
}

/* A node whose windows all belong to the batch uses the slot whose number is its level. At most one node at a time begins
 * before the batch and ends in the batch; that node uses the last slot. */
int tnn__local_slots(int64_t n, bool first) {
    return levels(n) + (first ? 0 : 1);
}

static struct tnn_place place_of(const struct tnn_windows * w, const struct tnn_rows_of_batch * rows, struct node node) {
    const int64_t size    = INT64_C(1) << node.level, end = node.start + size;
    const bool    earlier = end <= w->at;
    const bool    waits   = node.bank == TNN_LEFT || end + size > w->at + w->n;
    if (earlier || (waits && w->keep)) {
        return (struct tnn_place) { .tier = TNN_STORED, .bank = (int8_t) node.bank, .level = (int8_t) node.level };
    }
    const int8_t slot = (int8_t) (node.start >= w->at ? node.level : levels(w->n));
    if (rows == NULL || rows->n == 0) {
        return (struct tnn_place) { .tier = TNN_LOCAL, .slot = slot };
    }
    /* a node needs a slot between calls if its rows end before the current rows (was_waiting), or if the rows of its
     * parent end after the current rows (is_waiting) */
    const bool    last        = rows->first + rows->n >= w->n * rows->window;
    const int64_t parent_end  = (end + size - w->at) * rows->window;
    const bool    is_waiting  = !last && parent_end > rows->first + rows->n;
    const bool    was_waiting = (end - w->at) * rows->window <= rows->first;
    return (struct tnn_place) { .tier = was_waiting || is_waiting ? TNN_BETWEEN_ROWS : TNN_LOCAL, .slot = slot };
}

/* Lists the nodes that are complete after the batch, from the last to the first, but not the node `except`. */
static void list_rest(const struct tnn_windows * w, const struct tnn_rows_of_batch * rows, struct tnn_window_end * e, struct node except) {
    const int64_t end = w->at + w->n;
    for (int level = 0; level < TNN_LEVELS && end >> level > 0; level++) {
        const struct node node = { (end >> level >> 1) << level << 1, level, TNN_RIGHT };
        if ((end >> level & 1) != 0 && node.start >= w->begin && node.start != except.start) {
            e->rest[e->n_rest++] = place_of(w, rows, node);
        }
    }
    for (int level = levels(end); level >= 0 && w->begin > 0; level--) {
        const int64_t     size = INT64_C(1) << level;
        const struct node node = { (w->begin + size - 1) >> level << level, level, TNN_LEFT };
        if ((node.start >> level & 1) != 0 && node.start + size <= end && node.start != except.start) {
            e->rest[e->n_rest++] = place_of(w, rows, node);
        }
    }
}

void tnn__window_end(const struct tnn_windows * w, const struct tnn_rows_of_batch * rows, int64_t i, struct tnn_window_end * e) {
    struct node node = { w->at + i, 0, TNN_RIGHT };
    e->n_add = e->n_rest = 0;
    for (; (node.start >> node.level & 1) != 0; node.level++) {
        const int64_t left = node.start - (INT64_C(1) << node.level);
        if (left < w->begin) {
            node.bank = TNN_LEFT;
            break;
        }
        e->add[e->n_add++] = place_of(w, rows, (struct node) { left, node.level, TNN_RIGHT });
        node.start = left;
    }
    e->last    = i == w->n - 1;
    e->to_node = !e->last || w->keep;
    e->to      = place_of(w, rows, node);
    if (e->last) {
        list_rest(w, rows, e, node);
    }
}

static float * at_place(const struct tnn_column_sums * c, struct tnn_place p) {
    return p.tier == TNN_LOCAL ? c->local + p.slot * c->n : c->windows->stored[p.bank][p.level] + c->at;
}

void tnn__add_row(float * sum, const float * from, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        sum[j] = from[j] + sum[j];
    }
}

void tnn__finish_sum(const struct tnn_column_sums * c, const float * sum) {
    for (int64_t j = 0; j < c->n; j++) {
        c->out[j] = !c->add_out ? sum[j] : sum[j] == 0.0f ? c->out[j] : c->out[j] + sum[j];
    }
}

void tnn__add_window(const struct tnn_column_sums * c, int64_t i, float * sum) {
    struct tnn_window_end e;
    tnn__window_end(c->windows, NULL, i, &e);
    for (int a = 0; a < e.n_add; a++) {
        tnn__add_row(sum, at_place(c, e.add[a]), c->n);
    }
    if (e.to_node) {
        memcpy(at_place(c, e.to), sum, (size_t) c->n * sizeof(float));
    }
    for (int r = 0; r < e.n_rest; r++) {
        tnn__add_row(sum, at_place(c, e.rest[r]), c->n);
    }
    if (e.last) {
        tnn__finish_sum(c, sum);
    }
}
