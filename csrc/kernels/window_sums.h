/* kernels/window_sums.h - the order in which the windows of a step are added up.
 *
 * The rows of a step are divided into windows of equal size (tnn_session_set_windows). The gradient of a parameter is
 * first summed within each window. Then the sums of the windows are added as a binary tree over the numbers of the
 * windows in the step: node (start, level) covers the windows start to start + 2^level - 1, start is a multiple of
 * 2^level, and the node is the sum of its left half and its right half. If windows are missing at the end of the step,
 * a node without a right half equals its left half.
 *
 * A batch computes a part of this tree. So neither the size of the batches nor the division of a step among processes
 * changes a bit. A node must be stored if the other half of its parent is computed later or by another process:
 *   in stored[TNN_RIGHT], if the right half belongs to a later batch
 *   in stored[TNN_LEFT], if the left half belongs to the windows of another process, which come first
 */
#ifndef TNN_WINDOW_SUMS_H
#define TNN_WINDOW_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNN_LEVELS 62

enum tnn_bank { TNN_RIGHT, TNN_LEFT };

/* The rows of a batch that a kernel adds, if it does not add all rows at once. */
struct tnn_rows_of_batch {
    int64_t first, n; /* the first row, and the number of rows; n = 0: all rows of the batch */
    int64_t window;   /* rows of a window */
    /* The nodes that wait for later rows: for each local slot, slot_size elements. NULL if n is 0. */
    float * slots;
    size_t  slot_size;
};

/* The windows of the current batch. */
struct tnn_windows {
    int64_t n;      /* number of windows in a batch */
    int64_t begin;  /* this process computes the windows of the step from this window on */
    int64_t at;     /* the first window of this batch, counted in the step */
    bool    keep;   /* later batches may follow: store the nodes that they need */
    bool    single; /* the step has only one window, so a second part of a gradient continues the sum of the first part */
    float * stored[2][TNN_LEVELS]; /* stored[TNN_RIGHT or TNN_LEFT][level]: a node's sums of all gradients, or NULL */
};

/* Sets the windows of a compute that is a whole step. */
static inline void tnn__whole_step(struct tnn_windows * w) {
    w->at     = 0;
    w->begin  = 0;
    w->keep   = false;
    w->single = w->n == 1;
}

/* The place of a node's value. */
enum tnn_tier {
    TNN_LOCAL,        /* in slot `slot` of the kernel's own memory, during one call of the kernel */
    TNN_BETWEEN_ROWS, /* in slot `slot` of tnn_rows_of_batch.slots, if the node waits for later rows of the batch */
    TNN_STORED        /* in stored[bank][level] */
};
struct tnn_place {
    int8_t tier, slot, bank, level;
};

/* What to do with the sum of a window, in these steps:
 * 1. Add the n_add nodes in `add` to the sum, one after the other.
 * 2. If to_node is true, store the result in `to`.
 * 3. If the window is the last one of the batch, add the n_rest nodes in `rest`, one after the other. This gives the sum
 *    of the step so far. */
struct tnn_window_end {
    int              n_add, n_rest;
    bool             to_node, last;
    struct tnn_place to;
    struct tnn_place add[TNN_LEVELS], rest[2 * TNN_LEVELS];
};

/* Sets e to the steps after window i of the batch. rows: NULL, or the rows that the kernel adds in this call. */
void tnn__window_end(const struct tnn_windows * w, const struct tnn_rows_of_batch * rows, int64_t i, struct tnn_window_end * e);

/* Returns the number of local slots that a kernel needs for a batch of n windows. first: the batch is the first one of
 * the step. */
int tnn__local_slots(int64_t n, bool first);

/* The sums of a few columns of a gradient. */
struct tnn_column_sums {
    const struct tnn_windows * windows;
    size_t  at;     /* index of the first column in a stored node */
    int64_t n;      /* number of columns */
    float * local;  /* tnn__local_slots(windows->n, false) slots of n elements */
    float * out;    /* the sum of the step so far */
    /* Add the sum to out, which holds the gradients of the same parameter that were computed before. A sum of 0 leaves
     * its element of out unchanged, so columns whose sums are 0 need not be computed. */
    bool    add_out;
};

/* Adds the sum of window i, sum [n], to the tree. The windows of a batch must be added in their order. Overwrites
 * sum. */
void tnn__add_window(const struct tnn_column_sums * c, int64_t i, float * sum);

/* Adds two rows of n elements: sum = from + sum. */
void tnn__add_row(float * sum, const float * from, int64_t n);

/* Writes the sum of the step to c->out, or adds the sum to c->out if c->add_out is true. */
void tnn__finish_sum(const struct tnn_column_sums * c, const float * sum);

#endif
