/* session.h - shared by all C files: the session, the error path and the stages of a graph.
 *
 * Every call of tinynn.h begins with tnn__enter, checks its arguments and reports a problem with tnn__fail. */
#ifndef TNN_SESSION_H
#define TNN_SESSION_H

#include "kernels/window_sums.h"
#include "memory/reserve.h"
#include "tinynn.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#define TNN_MAX_CAPACITY        (INT64_C(1) << 21)
#define TNN_DEFAULT_CAPACITY    16384
#define TNN_MAX_PERSISTENT      (INT64_C(1) << 21)
#define TNN_MAX_ELEMENTS        INT64_C(2147483647) /* ggml's kernels count rows and elements in int */
#define TNN_MAX_THREADS         GGML_MAX_N_THREADS
#define TNN_MAX_MAPPINGS        64
#define TNN_MESSAGE_SIZE        512
#define TNN_THREAD_MESSAGE_SIZE 128
/* ggml adds at most this many tensors to a graph for the gradient of one forward node (MUL_MAT and SET: 7). */
#define TNN_BACKWARD_NODES_PER_NODE 8

/* A handle: sign 0 | serial 19 bits | generation 22 bits | index + 1 22 bits (graph/handles.c). */
#define TNN_SERIAL_BITS     19
#define TNN_GENERATION_BITS 22
#define TNN_INDEX_BITS      22
#define TNN_BITS(n)         ((UINT64_C(1) << (n)) - 1)

/* The stage of the current generation's graph. Each call is allowed only in certain stages, and checks the stage. */
enum tnn_stage {
    TNN_STAGE_DECLARE,           /* persistent tensors can be declared */
    TNN_STAGE_BUILD,             /* the weights are allocated, and nodes can be appended */
    TNN_STAGE_FORWARD_BUILT,     /* after tnn_build_forward_only */
    TNN_STAGE_BACKWARD_BUILT,    /* after tnn_build_backward; optimizer nodes may follow */
    TNN_STAGE_FORWARD_REALIZED,
    TNN_STAGE_BACKWARD_REALIZED
};

/* The entry of one handle: its tensor, and properties of the tensor that ggml does not store. */
struct tnn_entry {
    struct ggml_tensor * tensor;
    bool is_input; /* declared by the caller, not the result of an operator */
    bool uploaded; /* has values; always true for persistent tensors, which start as zeros */
    bool is_mapped; /* its memory is a mapped file, which must not be written */
    bool is_cache;  /* its memory is a part of `caches` */
    bool bf16_products; /* a matrix: the operands of its products are rounded to bfloat16 */
    int32_t interleaved; /* rows of a head, if the rows of each head are stored in interleaved order; otherwise 0 */
};

struct tnn_table {
    struct tnn_entry * entries;
    int64_t n, size;
};

struct tnn_session {
    /* identity */
    uint64_t serial;
    uint64_t generation; /* number of the compute context, counted from 1; handles of weights have 0 */
    uint64_t fork_epoch;
    enum tnn_stage stage;

    /* error of the last call */
    const char * call;
    int          code;
    char         message[TNN_MESSAGE_SIZE];

    /* weights */
    struct tnn_chunk    * chunks_w; /* ggml contexts of a fixed size each */
    ggml_backend_buffer_t buf_w;
    void                * caches;     /* the memory of the caches of keys and values, or NULL */
    ggml_backend_buffer_t buf_caches; /* the same memory as a buffer of ggml */
    struct tnn_table      weights;
    struct tnn_mapping  * mappings; /* attached files, the last one first */
    bool                  tainted;  /* an attached file changed during a compute: the values of the session may be wrong */

    /* compute context: it is created with the first per-graph tensor, and tnn_reset_for_rebuild drops it */
    int64_t               capacity;
    struct ggml_context * ctx_c;
    void                * mem_c;
    ggml_backend_buffer_t buf_c; /* kept for later generations as long as it is large enough */
    size_t                nbytes_c;
    int64_t               n_tensors_c; /* number of tensors in ctx_c, at most capacity */
    struct tnn_table      nodes;
    struct tnn_block    * blocks_c; /* other memory of this generation, from tnn__graph_alloc */
    struct ggml_cgraph  * gf;
    struct ggml_cgraph  * second;       /* the second forward graph; NULL: tnn_realize_b was never called */
    bool                  second_built; /* tnn_realize_b succeeded */
    struct ggml_cgraph  * current;      /* the realized forward graph whose tensors have memory: gf, second or NULL */
    struct ggml_cgraph  * gb;
    /* A graph left by a tnn_build_backward that ran out of memory. The next call uses this graph again. */
    struct ggml_cgraph  * gb_unfinished;
    bool                  reset_done; /* the gradients were reset after the last tnn_compute_backward */
    bool                  computed;
    int                 * group_end;  /* indexed by node of gb: the last node of its group; NULL if each node runs alone */
    struct ggml_tensor ** leaders;    /* the nodes that ggml runs: the last node of each group */
    int                   n_leaders;
    bool                  in_groups;  /* true while a compute runs groups of nodes */

    /* compute */
    int32_t              n_threads;
    ggml_threadpool_t    pool;
    struct tnn_threads * threads; /* the threads of the pool, started before the pool */
    struct tnn_reserve   reserve; /* the reserve for blocks that ggml allocates and frees in a compute */
    int32_t              pool_threads;
    void               * work;
    size_t               work_size;
    void               * scratch; /* scratch memory of the kernels: scratch_per_thread bytes for each thread */
    size_t               scratch_size, scratch_per_thread;
    struct tnn_windows   windows;        /* the windows of this compute */
    int64_t              first_window;   /* this session computes windows of a step from this window on */
    int64_t              next_window;    /* the window after the last batch of an unfinished step, or -1 */
    int                  next_node;      /* the first node of gb that the batch of tnn_begin_step has not computed; -1: no such batch */
    size_t               nodes_nbytes;   /* bytes of the nodes that kernels keep between the rows of a batch */
    size_t               stored_size;    /* number of elements of a stored node */
    bool                 update;         /* this compute runs the optimizer steps of a fused graph */
    bool                 gradients_kept; /* in the realized training graph, the gradient of each parameter is an output */
};

/* ---- error path (tinynn.c) ---- */

/* Starts a call: clears the error, and checks that the session belongs to this process. If not, sets the error and
 * returns false. */
bool tnn__enter(tnn_session * s, const char * call);
/* Records the error of a call on s, and returns its code. If s is NULL, the error belongs to the calling thread. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
int tnn__fail(tnn_session * s, int code, const char * fmt, ...);
/* Records the error of a call in the wrong stage. The message says what the call needs and in which stage the session
 * is. */
int tnn__fail_stage(tnn_session * s, const char * needs);

#endif
