/* session.h - what the shim's files share: the session, its error funnel, its handles. */
#ifndef TINYNN_INTERNAL_H
#define TINYNN_INTERNAL_H

#include "tinynn.h"
#include "memory/reserve.h"

#include <fenv.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ggml.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"

#define TNN_MAX_CAPACITY     (INT64_C(1) << 21)
#define TNN_DEFAULT_CAPACITY 16384
#define TNN_MAX_PERSISTENT   (INT64_C(1) << 21)
#define TNN_MAX_ELEMENTS     INT64_C(2147483647) /* ggml's kernels count rows and elements in int */
#define TNN_MAX_THREADS      GGML_MAX_N_THREADS
#define TNN_MESSAGE_SIZE     512
#define TNN_THREAD_MESSAGE_SIZE 128
/* ggml adds at most this many tensors to a graph for the gradient of one forward node (MUL_MAT and SET: 7). */
#define TNN_BACKWARD_NODES_PER_NODE 8

/* Where a graph generation stands. Each call names the states it may run in. */
enum tnn_stage {
    TNN_STAGE_DECLARE,           /* persistent tensors are being declared */
    TNN_STAGE_BUILD,             /* weights allocated; nodes are being appended */
    TNN_STAGE_FORWARD_BUILT,     /* tnn_build_forward_only done */
    TNN_STAGE_BACKWARD_BUILT,    /* tnn_build_backward done; optimizer nodes may follow */
    TNN_STAGE_FORWARD_REALIZED,
    TNN_STAGE_BACKWARD_REALIZED
};

/* One handle: the tensor and what the session knows of it beyond ggml. */
struct tnn_entry {
    struct ggml_tensor * tensor;
    bool is_input; /* declared by the caller, not made by an operator */
    bool uploaded; /* holds the caller's data (persistent tensors: always, they start as zeros) */
};

struct tnn_table {
    struct tnn_entry * entries;
    int64_t n, size;
};

/* A loss node's reduction state (ops/cross_entropy.c). */
struct tnn_loss;

struct tnn_session {
    /* identity */
    uint64_t serial;
    uint64_t generation; /* of the compute context; 0 is the weights' */
    uint64_t fork_epoch;
    enum tnn_stage stage;

    /* error of the last call */
    const char * call;
    int          code;
    char         message[TNN_MESSAGE_SIZE];

    /* weights contexts */
    struct tnn_chunk    * chunks_w; /* ggml contexts of a fixed size each */
    ggml_backend_buffer_t buf_w;
    struct tnn_table      weights;

    /* compute context: made at the first per-graph tensor, dropped by tnn_reset_for_rebuild */
    int64_t               capacity;
    struct ggml_context * ctx_c;
    void                * mem_c;
    ggml_backend_buffer_t buf_c; /* kept across generations while large enough */
    size_t                nbytes_c;
    int64_t               n_tensors_c; /* in ctx_c, at most capacity */
    struct tnn_table      nodes;
    struct ggml_cgraph  * gf;
    struct ggml_cgraph  * gb;
    bool                  reset_done; /* since the last compute_backward */
    bool                  computed;
    struct tnn_loss     * losses;     /* list */
    struct tnn_kernel   * kernels;    /* list, of the nodes that the shim computes */
    int                 * group_end;  /* by node of gb: the last of those that run with it; NULL: each runs alone */
    struct ggml_tensor ** leaders;    /* gb as it runs: the last node of each group */
    int                   n_leaders;
    bool                  in_groups;  /* this compute runs groups */
    struct ggml_cgraph  * gb_unfinished; /* what a tnn_build_backward that ran out of memory leaves for the next try */

    /* compute */
    int32_t                 n_threads;
    ggml_threadpool_t       pool;
    struct tnn_crew       * crew;    /* the pool's threads, as they were started */
    struct tnn_reserve      reserve; /* what ggml allocates in a compute, and frees */
    int32_t                 pool_threads;
    void                  * work;
    size_t                  work_size;
    void                  * scratch; /* the kernels', scratch_per_thread for each thread */
    size_t                  scratch_size, scratch_per_thread;
    bool                    accumulate; /* this compute adds to the gradients of the last */
    bool                    update;     /* this compute runs the optimizer steps of a fused graph */
    bool                    gradients_kept; /* the realized graph b flags each gradient of a parameter as an output */
};

/* ---- error funnel (tinynn.c) ---- */
/* Opens a call: clears the error, checks the session's process. False: refused, error set. */
bool tnn__enter(tnn_session * s, const char * call);
/* Records the error and returns its code. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
int tnn__fail(tnn_session * s, int code, const char * fmt, ...);
/* Error for a call in the wrong stage: says where the session stands and what comes first. */
int tnn__fail_stage(tnn_session * s, const char * needs);

/* ---- handles (tinynn.c) ---- */
/* The tensor behind a handle, or NULL with an error naming arg. */
struct ggml_tensor * tnn__tensor(tnn_session * s, const char * arg, tnn_tensor h);
struct tnn_entry * tnn__entry(tnn_session * s, const char * arg, tnn_tensor h);
/* The entry of a tensor of this session that has a handle, or NULL. */
struct tnn_entry * tnn__entry_of(tnn_session * s, const struct ggml_tensor * t);
/* Handle of a tensor of the compute context (made if it has none); 0 with an error. */
tnn_tensor tnn__handle(tnn_session * s, struct ggml_tensor * t);
/* Is t a weight of a session (not a per-graph tensor)? */
bool tnn__is_persistent(const struct ggml_tensor * t);

/* A place more in the table, or false with an error; then the handle of the tensor that takes it. */
bool tnn__table_grow(tnn_session * s, struct tnn_table * table);
tnn_tensor tnn__table_add(tnn_session * s, struct tnn_table * table, uint64_t generation, struct ggml_tensor * t);

/* ---- contexts (graph/declare.c) ---- */
void tnn__weights_free(tnn_session * s);
void tnn__compute_context_free(tnn_session * s);
/* Makes sure that n more tensors fit the compute context and may be appended now. */
bool tnn__reserve_nodes(tnn_session * s, int n);
/* "[a, b, c]" without trailing ones; good until the end of the expression it stands in. */
struct tnn_shape {
    char text[96]; /* 4 * 20 digits fit */
};
struct tnn_shape tnn__shape_of(const struct ggml_tensor * t);
#define tnn__shape(t) (tnn__shape_of(t).text)

/* ---- operands (ops/operands.c): the tensor, or NULL with an error naming arg; true, or an error naming arg ---- */
bool tnn__want_type(tnn_session * s, const char * arg, const struct ggml_tensor * t, enum ggml_type type);
/* f32, f16 or bf16 */
bool tnn__want_float_type(tnn_session * s, const char * arg, const struct ggml_tensor * t);
bool tnn__want_contiguous(tnn_session * s, const char * arg, const struct ggml_tensor * t);
/* f32 and contiguous */
struct ggml_tensor * tnn__f32_operand(tnn_session * s, const char * arg, tnn_tensor h);
/* an i32 vector whose values are known before the graph runs: an input, or a view of one */
struct ggml_tensor * tnn__index_operand(tnn_session * s, const char * arg, tnn_tensor h);
/* f32, of w's shape */
struct ggml_tensor * tnn__like(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * w);
struct ggml_tensor * tnn__parameter_operand(tnn_session * s, tnn_tensor w);
/* Do a and b lie in the same memory? */
bool tnn__same_memory(const struct ggml_tensor * a, const struct ggml_tensor * b);
/* t lies in the memory of none of the n tensors that a node writes */
bool tnn__want_apart(tnn_session * s, const char * arg, const struct ggml_tensor * t, struct ggml_tensor * const * written, int n);
/* f32 [n] */
struct ggml_tensor * tnn__hyper_parameters(tnn_session * s, tnn_tensor hp, int64_t n);
bool tnn__want_input(tnn_session * s, const char * arg, const struct ggml_tensor * t);
bool tnn__want_finite(tnn_session * s, const char * arg, float x);
bool tnn__want_eps(tnn_session * s, float eps);
/* Error for a result with more than TNN_MAX_ELEMENTS. */
void tnn__fail_elements(tnn_session * s, const char * what);

/* ---- operators (ops/arithmetic.c) ---- */
/* The handle of the last of n nodes that were appended. */
tnn_tensor tnn__appended(tnn_session * s, int n, struct ggml_tensor * result);

/* ---- what the system says (machine/cpu.c) ---- */
/* The first size - 1 bytes of a file as a string, without asking for memory. */
bool tnn__read_start(const char * path, char * text, size_t size);
/* The first number behind the first prefix in a text, or UINT64_MAX. */
uint64_t tnn__number_behind(const char * text, const char * prefix);

/* ---- what the control groups of this process leave it (machine/cgroup.c) ---- */
uint64_t tnn__cgroup_memory(void); /* bytes, or UINT64_MAX */
int64_t tnn__cgroup_cores(void);   /* at least 1, or INT64_MAX */

/* ---- memory (memory/plan.c) ---- */
/* Bytes that may still be had on this machine (available memory, cgroup limit). */
uint64_t tnn__memory_available(void);
/* size bytes for free(), or NULL with an error naming what they are for. */
void * tnn__aligned_alloc(tnn_session * s, size_t size, const char * what);
/* The same, all zeros, aligned as malloc does. */
void * tnn__zeroed_alloc(tnn_session * s, size_t size, const char * what);
/* A CPU buffer of size bytes, or NULL with an error naming what it is for. */
ggml_backend_buffer_t tnn__buffer_alloc(tnn_session * s, size_t size, const char * what);
/* Gives every tensor of the graph its place in s->buf_c. */
int tnn__plan_and_allocate(tnn_session * s, struct ggml_cgraph * graph);

/* ---- graph checks (graph/check.c) ---- */
/* Every node on a gradient path of gf has a derivative that ggml's CPU backend computes. */
int tnn__check_differentiable(tnn_session * s, const struct ggml_cgraph * gf);
/* Every input is uploaded and every id is a row of its table. */
int tnn__check_inputs(tnn_session * s, const struct ggml_cgraph * graph);

/* ---- loss (ops/cross_entropy.c) ---- */
/* Lets the node be reduced by the shim; ggml's op comes back for the backward expansion. */
bool tnn__loss_add(tnn_session * s, struct ggml_tensor * node);
void tnn__losses_seal(tnn_session * s);
bool tnn__is_loss_node(const struct ggml_tensor * node);
void tnn__losses_free(tnn_session * s);

/* ---- arithmetic (machine/cpu.c) ---- */
/* From here to the second call the thread rounds to nearest and keeps denormals, whatever mode the caller left it in: a library
 * that was built with fast-math sets one when it is loaded. Threads that start meanwhile take it over. */
void tnn__arithmetic_begin(fenv_t * callers);
void tnn__arithmetic_end(const fenv_t * callers);

/* ---- graph (graph/forward.c) ---- */
/* Appends t's ancestors and t. */
int tnn__expand(tnn_session * s, struct ggml_cgraph * graph, struct ggml_tensor * t);
/* The forward graph of out, which the call names arg. */
int tnn__build_forward(tnn_session * s, tnn_tensor out, const char * arg);
void tnn__pool_free(tnn_session * s);
/* Checks the inputs and runs the graph; with seconds, node by node, timing each. */
int tnn__run(tnn_session * s, struct ggml_cgraph * graph, double * seconds);

/* ---- graph b (graph/backward.c) ---- */
/* Gradients, moments and the loss's own gradient before a tnn_compute_backward. */
int tnn__reset(tnn_session * s, bool moments);

#endif
