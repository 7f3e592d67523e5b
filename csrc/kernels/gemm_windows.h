/* kernels/gemm_windows.h - a matrix product whose k consists of windows, as in the gradient of a weight.
 * kernels/gemm_blocks.h includes this file.
 *
 * Each window is one chain of multiply-adds. In run_chains, all of k is one chain. The sums of the windows are added as a tree
 * (kernels/window_sums.h). C is computed in blocks, and all windows of a block are computed before the next block. So
 * the nodes of the tree need a buffer for one block of C, not for all of C. The nodes of one tile are side by side in
 * this buffer, so they are in the cache when the tile's windows are added.
 */

#define GROUP     8 /* number of windows that are packed together, if they are short */
#define LINE      16 /* number of elements in a cache line */
#define MAX_NODES 8 /* largest number of nodes that the micro-kernel adds to its result before it writes the result */

/* A tile of C: the local slots of its nodes, then a slot for the window that is being computed. */
struct window_tile {
    const struct tnn_gemm * g;
    float * slots;
    int64_t at; /* index of the tile's first element in C */
    int64_t height, width;
};

static int64_t n_local(const struct tnn_gemm * g) {
    return tnn__local_slots(g->windows->n, g->windows->at == 0);
}

static struct tile_rows rows_at(const struct window_tile * t, struct tnn_place p) {
    const struct tnn_gemm * g = t->g;
    if (p.tier == TNN_LOCAL) {
        return (struct tile_rows) { t->slots + (int64_t) p.slot * MR * NR, NR };
    }
    if (p.tier == TNN_STORED) {
        return (struct tile_rows) { g->windows->stored[p.bank][p.level] + g->stored_at + t->at, g->c_row };
    }
    return (struct tile_rows) { g->rows.slots + (size_t) p.slot * g->rows.slot_size + g->between_at + t->at, g->c_row };
}

static void add_rows(const struct window_tile * t, float * sum, struct tile_rows from) {
    for (int64_t r = 0; r < t->height; r++) {
        for (int64_t s = 0; s < t->width; s++) {
            sum[r * NR + s] = from.p[r * from.row + s] + sum[r * NR + s];
        }
    }
}

static void copy_tile(const struct window_tile * t, struct tile_rows from, struct tile_rows to) {
    for (int64_t r = 0; r < t->height; r++) {
        memcpy(to.p + r * to.row, from.p + r * from.row, (size_t) t->width * sizeof(float));
    }
}

/* Adds the sum of a window to the tree of a tile. sum: the sum of the window, MR x NR elements. */
static void end_window(const struct window_tile * t, const struct tnn_window_end * e, float * sum) {
    const struct tile_rows c = { t->g->c + t->at, t->g->c_row };
    for (int i = 0; i < e->n_add; i++) {
        add_rows(t, sum, rows_at(t, e->add[i]));
    }
    if (e->to_node) {
        copy_tile(t, (struct tile_rows) { sum, NR }, rows_at(t, e->to));
    }
    if (!e->last) {
        return;
    }
    for (int i = 0; i < e->n_rest; i++) {
        add_rows(t, sum, rows_at(t, e->rest[i]));
    }
    if (t->g->accumulate) {
        add_rows(t, sum, c);
    }
    copy_tile(t, (struct tile_rows) { sum, NR }, c);
}

/* A part of k: `windows` whole windows of kc elements each, or one part of one window. */
struct window_part {
    int64_t window, windows;
    int64_t p0, kc;
    bool    first, last; /* first: the part contains the beginning of a window; last: it contains the end */
};

/* Returns the smallest multiple of K_UNIT that is at least kc. */
static inline int64_t whole_units(int64_t kc) {
    return (kc + K_UNIT - 1) / K_UNIT * K_UNIT;
}

/* Returns the part that begins at element p0 of k. */
static struct window_part part_at(const struct tnn_gemm * g, int64_t t_len, int64_t p0) {
    const int64_t row = g->rows.first + p0, window = row / t_len, at = row % t_len, left = g->k - p0;
    if (at == 0 && t_len <= KC && t_len <= left) {
        const int64_t fit = KC / whole_units(t_len);
        return (struct window_part) { .window = window, .windows = tnn__min(tnn__min(GROUP, fit), left / t_len), .p0 = p0,
                                      .kc = t_len, .first = true, .last = true };
    }
    const int64_t rest = tnn__min(t_len - at, left), parts = (rest + KC - 1) / KC;
    const int64_t kc   = tnn__min(rest, whole_units((rest + parts - 1) / parts));
    return (struct window_part) { .window = window, .windows = 1, .p0 = p0, .kc = kc, .first = at == 0, .last = at + kc == t_len };
}

/* Decides whether the micro-kernel can do the work of end_window while it computes the tile. If so, sets nodes to
 * the *n tiles that the micro-kernel must add, and returns the place of the result. Otherwise, returns a place with
 * p = NULL. */
static struct tile_rows written_at_once(const struct window_tile * t, const struct tnn_window_end * e, struct tile_rows * nodes, int * n) {
    const bool whole = t->width % LANES == 0; /* the micro-kernel reads and writes C and stored nodes in whole vectors */
    *n = 0;
    for (int i = 0; i < e->n_add + e->n_rest; i++) {
        const struct tnn_place from = i < e->n_add ? e->add[i] : e->rest[i - e->n_add];
        if (*n == MAX_NODES || (from.tier != TNN_LOCAL && !whole)) {
            return (struct tile_rows) { NULL, 0 };
        }
        nodes[(*n)++] = rows_at(t, from);
    }
    if (!e->last) {
        return e->to.tier == TNN_LOCAL || whole ? rows_at(t, e->to) : (struct tile_rows) { NULL, 0 };
    }
    if (e->to_node || !whole || (t->g->accumulate && *n == MAX_NODES)) {
        return (struct tile_rows) { NULL, 0 };
    }
    const struct tile_rows c = { t->g->c + t->at, t->g->c_row };
    if (t->g->accumulate) {
        nodes[(*n)++] = c;
    }
    return c;
}

/* Lets the CPU fetch rows of a tile into the cache during the multiply-adds of the tile. */
static inline void prefetch_tile(const struct window_tile * t, struct tile_rows rows) {
    for (int64_t r = 0; r < t->height; r++) {
        for (int64_t s = 0; s < NR; s += LINE) {
            __builtin_prefetch(rows.p + r * rows.row + s);
        }
    }
}

/* Computes the windows of a part for one tile. tile has the operands of the first window. */
static void run_tile_windows(const struct window_tile * t, const struct window_part * part, const struct tnn_window_end * ends,
                             struct tile tile, bool along_k, int64_t a_window) {
    float * const sum = t->slots + n_local(t->g) * MR * NR;
    void (*const run_tile_of)(const struct tile *) = function_of(&tile, along_k, t->height, t->width);
    for (int64_t w = 0; w < part->windows; w++) {
        struct tile_rows nodes[MAX_NODES], out = { NULL, 0 };
        int n_nodes = 0;
        if (part->last) {
            out = written_at_once(t, &ends[w], nodes, &n_nodes);
        }
        if (!part->first && part->p0 == 0) { /* an earlier call computed the beginning of the window */
            copy_tile(t, (struct tile_rows) { t->g->c + t->at, t->g->c_row }, (struct tile_rows) { sum, NR });
        }
        tile.c       = part->first ? NULL : sum;
        tile.nodes   = nodes;
        tile.n_nodes = out.p != NULL ? n_nodes : 0;
        tile.out     = out.p != NULL ? out.p : sum;
        tile.out_row = out.p != NULL ? out.row : NR;
        if (w == 0) { /* for the tile's other windows, the nodes are in the cache already */
            for (int i = 0; i < tile.n_nodes; i++) {
                prefetch_tile(t, nodes[i]);
            }
            prefetch_tile(t, (struct tile_rows) { tile.out, tile.out_row });
        }
        run_tile_of(&tile);
        if (part->last && out.p == NULL) {
            end_window(t, &ends[w], sum);
        } else if (!part->last && part->p0 + part->kc == t->g->k) { /* a later call computes the end of the window */
            copy_tile(t, (struct tile_rows) { sum, NR }, (struct tile_rows) { t->g->c + t->at, t->g->c_row });
        }
        tile.a += a_window;
        tile.b += tile.steps * tile.b_row;
    }
}

static void run_windows(const struct tnn_gemm * g, void * scratch) {
    float * const b_block = scratch;
    float * const a_block = b_block + TNN_GEMM_KC * NC;
    float * const nodes   = (float *) ((char *) scratch + tnn__gemm_scratch());
    const int64_t t_len   = g->rows.n > 0 ? g->rows.window : g->k / g->windows->n, n_slots = n_local(g) + 1;
    const bool    along_k = K_UNIT == 1 && g->a_col == 1;
    const bool    pack_b  = K_UNIT > 1 || g->b_col != 1 || g->m > IN_PLACE_ROWS || g->k > IN_PLACE_K;
    /* the nodes of a block of C with block_rows rows and block_cols columns fit into the buffer */
    const int64_t most_cols  = tnn__min(NC, TNN_GEMM_NODES / (n_slots * MC) / NR * NR), blocks = (g->n + most_cols - 1) / most_cols;
    const int64_t block_cols = ((g->n + blocks - 1) / blocks + NR - 1) / NR * NR; /* the blocks have nearly equal widths */
    const int64_t block_rows = TNN_GEMM_NODES / (n_slots * block_cols) / MC * MC;
    struct tnn_window_end ends[GROUP];
    for (int64_t j0 = 0; j0 < g->n; j0 += block_cols) {
        const int64_t cols = tnn__min(block_cols, g->n - j0), panels = (cols + NR - 1) / NR;
        for (int64_t i0 = 0; i0 < g->m; i0 += block_rows) {
            const int64_t i_end = tnn__min(g->m, i0 + block_rows);
            for (int64_t p0 = 0, length; p0 < g->k; p0 += length) {
                const struct window_part part = part_at(g, t_len, p0);
                const int64_t steps = steps_of(part.kc), all_steps = part.windows * steps;
                length = part.windows * part.kc;
                const float * b      = g->b + part.p0 * g->b_row + j0 * g->b_col;
                for (int64_t w = 0; w < part.windows && part.last; w++) {
                    tnn__window_end(g->windows, &g->rows, part.window + w, &ends[w]);
                }
                for (int64_t j = 0; j < cols; j += NR) {
                    const int64_t width = tnn__min(NR, cols - j);
                    if (pack_b || width % LANES != 0) {
                        pack_panel(b + j * g->b_col, g->b_row, g->b_col, part.kc, part.windows, width, b_block + j * all_steps);
                    }
                }
                for (int64_t i1 = i0; i1 < i_end; i1 += MC) {
                    const int64_t rows = tnn__min(MC, i_end - i1);
                    const struct strips strips = strips_of(rows);
                    if (!along_k) {
                        pack_columns(g->a + i1 + part.p0 * g->a_col, g->a_col, part.kc, part.windows, &strips, a_block);
                    }
                    for (int64_t j = 0; j < cols; j += NR) {
                        const int64_t width  = tnn__min(NR, cols - j);
                        const bool    packed = pack_b || width % LANES != 0;
                        for (int64_t s = 0; s < strips.n; s++) {
                            const int64_t r = strips.begin[s], height = strips.begin[s + 1] - r;
                            /* the number of the tile, in the order of the loops */
                            const int64_t number = (i1 - i0) / MC * panels * (MC / MR) + j / NR * strips.n + s;
                            const struct window_tile t = {
                                .g = g, .slots = nodes + number * n_slots * MR * NR, .at = (i1 + r) * g->c_row + j0 + j,
                                .height = height, .width = width,
                            };
                            const struct tile tile = {
                                .steps = steps, .c_row = NR,
                                .a = along_k ? g->a + (i1 + r) * g->a_row + part.p0 : a_block + r * all_steps,
                                .a_row = g->a_row, .a_col = height,
                                .b = packed ? b_block + j * all_steps : b + j, .b_row = packed ? NR : g->b_row,
                            };
                            run_tile_windows(&t, &part, ends, tile, along_k, along_k ? part.kc : steps * height);
                        }
                    }
                }
            }
        }
    }
}
