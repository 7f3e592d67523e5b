/* tinynn.h - the TinyNN session API: the one list of calls that toynn offers over ggml.
 *
 * Intended use:
 *   1. tnn_session_new, tnn_session_set_graph_capacity
 *   2. declare the persistent tensors (weights, moments, token ids), tnn_finalize_weights, upload them
 *   3. tnn_reset_for_rebuild; declare the inputs of one graph; build it with the operators
 *   4. forward only:  tnn_realize(s, out); upload the inputs; tnn_compute; tnn_download
 *      training:      tnn_set_param, tnn_set_loss, tnn_build_forward_only(s, loss), tnn_build_backward,
 *                     tnn_tensor_grad + tnn_opt_step_* + tnn_extend_backward_graph for each parameter,
 *                     tnn_realize_backward; then in each step: tnn_graph_reset*; upload the inputs;
 *                     tnn_compute_backward; tnn_download(loss)
 *   5. tnn_reset_for_rebuild for the next graph, or tnn_session_free
 *
 * Conventions:
 *   - A tensor is a handle. A handle contains its session and its graph generation, so a handle of another session, or
 *     of a graph that tnn_reset_for_rebuild dropped, is recognised and refused. 0 is never a tensor.
 *   - Shapes are ggml's: [ne0, ne1, ...], with the fastest-varying dimension first. A row-major (rows, cols) matrix has
 *     the shape [cols, rows]. A tensor is f32 unless stated otherwise.
 *   - On failure a call returns 0 (tnn_tensor), an error code (int), a negative error code (int64_t) or NULL. Then
 *     tnn_last_error names the call, the argument, its value and what was expected. Nothing was changed unless stated.
 *   - Every argument is checked before it is passed to ggml, so that no call can reach a GGML_ASSERT.
 *   - A session must be used by one thread at a time; the caller ensures this. A session belongs to the process
 *     that made it: after fork() the child gets TNN_E_STATE.
 *
 * `make generate` (tools/generate_tinynn.py) writes the Python functions from this file. The documentation of a
 * function is the comment before its call, or after it on the same line:
 *   - A heading "---- name ----" begins a group of calls: the module toynn.tinynn.calls.name.
 *   - If the first sentence ends with ", or none", the call may return None in Python (in C, 0 or NULL and TNN_OK).
 *   - The comment after an argument describes it. If it starts with "optional", the tensor may be left out (0 or None).
 *     If it starts with "default V:", the argument is a keyword in Python, with that default.
 *   - In the groups flags and introspection, a call on a tensor t takes only the tensor in Python, which knows its session.
 *   - Lines that start with an error code describe errors of the call, besides the errors in the heading.
 */
#ifndef TINYNN_H
#define TINYNN_H

#include <stdint.h>
#if defined(__GNUC__)
#define TNN_API __attribute__((visibility("default")))
#else
#define TNN_API
#endif
/* cffi: begin */
typedef struct tnn_session tnn_session;
typedef int64_t tnn_tensor;

enum tnn_error {
    TNN_OK         = 0,
    TNN_E_VALUE    = 1, /* a wrong shape, range or number: TinyNNValueError in Python */
    TNN_E_TYPE     = 2, /* a wrong dtype or kind of value: TinyNNTypeError */
    TNN_E_STATE    = 3, /* a wrong order of calls, or a stale or foreign handle: SessionError */
    TNN_E_MEMORY   = 4, /* memory that cannot be allocated: TinyNNMemoryError */
    TNN_E_INTERNAL = 5, /* ggml reported a failure that the checks did not foresee: InternalError */
    TNN_E_FILE     = 6  /* a mapped file was changed while it was in use: MappedFileError */
};
enum tnn_dtype { TNN_F32 = 0, TNN_F16 = 1, TNN_I32 = 26, TNN_BF16 = 30 }; /* ggml's ids of its dtypes */
enum tnn_flag { TNN_FLAG_INPUT = 1, TNN_FLAG_OUTPUT = 2, TNN_FLAG_PARAM = 4, TNN_FLAG_LOSS = 8 }; /* bits, as in ggml */

/* ---- build ---- Describe this build and this machine. These calls need no session. Their strings are static. */
TNN_API const char * tnn_ggml_version(void); /* Return the version of the compiled ggml, for example "0.20.2". */
TNN_API const char * tnn_ggml_commit(void);  /* Return the commit of ggml, as stated by ggml. */
/* Return the instruction-set profile, for example "x86-64-v3". The same profile and inputs give the same bits. */
TNN_API const char * tnn_profile(void);
TNN_API const char * tnn_compiler(void);      /* Return the compiler that made this build. */
TNN_API const char * tnn_build_type(void);    /* Return CMake's build type. */
TNN_API const char * tnn_build_options(void); /* Return the options that this build was configured with. */
TNN_API const char * tnn_cpu_features(void);  /* Return the CPU features compiled in, separated by spaces. */
/* Return the features of the profile that this CPU lacks, separated by spaces; "" if the CPU can run this build. If a
 * feature is missing, no other call is safe. In Python, the import makes this call first and raises ImportError. */
TNN_API const char * tnn_cpu_missing(void);
/* Return the name of the kernel that computes the matrix products of the fused operators, for example "v8". At its
 * first matrix product, a process chooses the fastest kernel that its CPU can run. In Python the environment variable
 * TOYNN_GEMM_KERNEL can name another kernel. All kernels give the same bits. */
TNN_API const char * tnn_gemm_kernel(void);
/* Return the name of kernel i in the list of kernels that this CPU can run, or none. The fastest kernel is the first one. */
TNN_API const char * tnn_gemm_kernel_at(int32_t i);
/* Use the named kernel for all products of this process from now on.
 * TNN_E_VALUE: this CPU, or this build, has no kernel of that name. */
TNN_API int tnn_gemm_use_kernel(const char * name);
/* Return the number of cores (at least 1) that this process may use, limited by its affinity mask and cgroup quotas. */
TNN_API int32_t tnn_available_cores(void);
/* Return the number of bytes that this process can still allocate, on the machine and within its cgroups. */
TNN_API int64_t tnn_available_memory(void);

/* ---- session ---- A session owns the weights, and one graph at a time over them. */
/* Return a new session. kind: 0, the CPU, is the only kind of device. On failure return NULL. Then tnn_last_error(NULL),
 * called by the same thread, returns the message. */
TNN_API tnn_session * tnn_session_new(int32_t kind);
/* Return a new session on the device with the given number; the CPU has only device 0. Fails as tnn_session_new
 * does. */
TNN_API tnn_session * tnn_session_new_on(int32_t kind, int32_t device);
TNN_API void tnn_session_free(tnn_session * s); /* Free everything that the session owns. NULL is allowed. */
/* Return the message of the last call on s if the call failed, else "". The message is valid until the next call. */
TNN_API const char * tnn_last_error(const tnn_session * s);
/* Return the error code of the last call on s, TNN_OK if the call succeeded. */
TNN_API int tnn_last_error_code(const tnn_session * s);
/* Set the number of nodes that a graph may have, forward and backward together: 16384 by default, at most 2^21.
 * TNN_E_STATE: tensors of a graph exist. Set the capacity before the first tensor of a graph, or right after
 * tnn_reset_for_rebuild. */
TNN_API int tnn_session_set_graph_capacity(tnn_session * s, int64_t n_nodes);
TNN_API int64_t tnn_session_graph_capacity(tnn_session * s); /* Return the number of nodes that a graph may have. */
/* Set the number of threads that compute: 1 to tnn_available_cores(), which is the default, or up to 512 if
 * oversubscribe is not 0 (slow, for tests). Results do not depend on the number of threads. */
TNN_API int tnn_session_set_n_threads(tnn_session * s, int32_t n, int32_t oversubscribe);
/* Divide the rows of each batch of the fused operators into n windows of equal size: 1 by default. A gradient and a loss
 * are added up in each window first. Then the sums of the windows are added as a binary tree over the numbers of the
 * windows in the step, so the bits do not depend on the sizes of the batches (tnn_train_step). This session computes
 * some windows of each step, or all of them. first: the number of the first window that this session computes.
 * TNN_E_STATE: tensors of a graph exist, as for tnn_session_set_graph_capacity. */
TNN_API int tnn_session_set_windows(tnn_session * s, int64_t n, int64_t first);
TNN_API const char * tnn_backend_name(tnn_session * s); /* Return the name of the backend that computes: "CPU". */
TNN_API int64_t tnn_session_n_threads(tnn_session * s); /* Return the number of threads that compute. */
/* Return the size of the weights buffer in bytes, without caches and mapped weights; 0 before the buffer is allocated. */
TNN_API int64_t tnn_session_weights_nbytes(tnn_session * s);
/* Return the size of the realized graph's compute buffer in bytes; 0 before a graph is realized. */
TNN_API int64_t tnn_session_compute_nbytes(tnn_session * s);
/* Drop all graphs and their tensors, whose handles become stale. The weights stay. */
TNN_API int tnn_reset_for_rebuild(tnn_session * s);

/* ---- declare ----
 * Declare persistent tensors before tnn_finalize_weights. Their values are zero until they are uploaded. Declare the
 * inputs of a graph after tnn_finalize_weights. Each input must be uploaded before the graph computes, and keeps its
 * values for later computes. A session without persistent tensors needs no tnn_finalize_weights: the declaration of the
 * first input does the same.
 *
 * All these calls raise TNN_E_VALUE for a size that is not positive or too large, and TNN_E_STATE if they are called at
 * the wrong time. */
TNN_API tnn_tensor tnn_input_1d_f32_persistent(tnn_session * s, int64_t n); /* Declare a weight [n]. */
/* Declare a weight, a row-major (rows, cols) matrix: its shape is [cols, rows]. */
TNN_API tnn_tensor tnn_input_2d_f32_persistent(tnn_session * s, int64_t rows, int64_t cols);
/* Declare a weight of ne2 row-major (rows, cols) matrices: its shape is [cols, rows, ne2]. */
TNN_API tnn_tensor tnn_input_3d_f32_persistent(tnn_session * s, int64_t ne2, int64_t rows, int64_t cols);
/* Declare a weight of ne3 times ne2 row-major (rows, cols) matrices: its shape is [cols, rows, ne2, ne3]. */
TNN_API tnn_tensor tnn_input_4d_f32_persistent(tnn_session * s, int64_t ne3, int64_t ne2, int64_t rows, int64_t cols);
/* Declare a persistent tensor of ids, i32 [n]. */
TNN_API tnn_tensor tnn_input_1d_i32_persistent(tnn_session * s, int64_t n);
/* Declare a weight of dtype TNN_F32, TNN_F16 or TNN_BF16, a row-major (rows, cols) matrix: its shape is [cols, rows].
 * TNN_E_TYPE: another dtype. */
TNN_API tnn_tensor tnn_input_2d_persistent_typed(tnn_session * s, int64_t rows, int64_t cols, int32_t dtype);
/* Declare a cache of keys and values for tnn_fused_attention_cached, of dtype TNN_F32 or TNN_F16 and of shape [cols, rows].
 * A cache is a persistent tensor whose pages get memory from the system when they are first written.
 * TNN_E_TYPE: another dtype. */
TNN_API tnn_tensor tnn_kv_cache(tnn_session * s, int64_t rows, int64_t cols, int32_t dtype);
/* Change the number of rows of all caches of the session. Their values become zero. Call this after tnn_finalize_weights
 * or tnn_reset_for_rebuild, before the first tensor of a graph. */
TNN_API int tnn_resize_kv_caches(tnn_session * s, int64_t rows);
/* Declare a weight [n] for the frequency factors of tnn_rope_ext. The factors are zero until they are uploaded, and
 * division by zero gives infinite angles: upload the factors before the graph computes. */
TNN_API tnn_tensor tnn_rope_freq_factors_alloc(tnn_session * s, int64_t n);
/* Return how many bytes n elements of a row need in a dtype of ggml, for example 0 (F32) or 8 (Q8_0). This call needs
 * no session and sets no error message.
 * TNN_E_TYPE: an unknown dtype.
 * TNN_E_VALUE: n is not a positive multiple of the dtype's block, or above 2^31 - 1. */
TNN_API int64_t tnn_row_size(int32_t dtype, int64_t n);
/* Attach a file. The mmap calls below use its pages as weights. If several files are attached, the mmap calls use the
 * file that was attached last. A file can be attached again, so that the mmap calls use it again. The mapping must stay until the
 * session is freed. If the file is changed or becomes shorter, computing and downloading raise TNN_E_FILE, and the
 * process survives.
 * TNN_E_FILE: the file is shorter than size, or was changed.
 * TNN_E_STATE: the weights are finalized already, or too many files are attached. */
TNN_API int tnn_session_attach_weight_mmap(tnn_session * s,
    const void * address, /* start of the mapping, which is read-only */
    int64_t      size,    /* bytes of the mapping */
    int32_t      fd,      /* descriptor of the mapped file, to detect changes; -1: none */
    const char * name);   /* name of the file in errors; may be NULL */
/* Declare a weight [n] that is mapped from the attached file. No call can write to the weight. dtype is ggml's number
 * of the type: F32, F16, BF16, or a quantized type that ggml multiplies.
 * TNN_E_TYPE: another dtype.
 * TNN_E_VALUE: the tensor ends beyond the file, the offset is not aligned, or a row is not a whole number of blocks.
 * TNN_E_STATE: no file is attached. */
TNN_API tnn_tensor tnn_input_1d_persistent_mmap(tnn_session * s,
    int64_t n,       /* number of elements */
    int32_t dtype,   /* type of the elements */
    int64_t offset); /* position of the first byte in the file */
/* Declare a weight [cols, rows] that is mapped from the attached file; see tnn_input_1d_persistent_mmap. */
TNN_API tnn_tensor tnn_input_2d_persistent_mmap(tnn_session * s,
    int64_t rows,    /* number of rows */
    int64_t cols,    /* elements of a row */
    int32_t dtype,   /* type of the elements */
    int64_t offset); /* position of the first byte in the file */
/* Declare a weight [cols, rows, matrices] that is mapped from the attached file; see tnn_input_1d_persistent_mmap. */
TNN_API tnn_tensor tnn_input_3d_persistent_mmap(tnn_session * s,
    int64_t matrices, /* number of matrices */
    int64_t rows,     /* rows of a matrix */
    int64_t cols,     /* elements of a row */
    int32_t dtype,    /* type of the elements */
    int64_t offset);  /* position of the first byte in the file */
/* Allocate the weights buffer, once, and fill it with zeros.
 * TNN_E_MEMORY: the memory cannot be allocated; the session stays as it was.
 * TNN_E_STATE: the weights are finalized already. */
TNN_API int tnn_finalize_weights(tnn_session * s);
TNN_API tnn_tensor tnn_input_1d_f32(tnn_session * s, int64_t n); /* Declare an input of the graph, [n]. */
/* Declare an input of the graph, a row-major (rows, cols) matrix: its shape is [cols, rows]. */
TNN_API tnn_tensor tnn_input_2d_f32(tnn_session * s, int64_t rows, int64_t cols);
TNN_API tnn_tensor tnn_input_1d_i32(tnn_session * s, int64_t n); /* Declare an input of the graph, i32 [n]. */
/* Declare an input of the graph, i32 [n], as tnn_input_1d_i32 does. The Ruby project toy has both calls. */
TNN_API tnn_tensor tnn_input_1d_i32_ctx(tnn_session * s, int64_t n);

/* ---- data ---- Copy values between arrays and tensors. ne0 varies fastest. n must be the tensor's number of elements.
 * */
/* Upload real numbers to an f32, f16 or bf16 tensor. The numbers are rounded to the dtype of the tensor. */
TNN_API int tnn_upload_from_float_array(tnn_session * s, tnn_tensor t, const float * data, int64_t n);
/* Upload integers to an i32 tensor. */
TNN_API int tnn_upload_from_int_array(tnn_session * s, tnn_tensor t, const int32_t * data, int64_t n);
/* Download an f32, f16, bf16 or quantized tensor. Each NaN arrives as the same bits, 0x7fc00000, on every processor. */
TNN_API int tnn_download(tnn_session * s, tnn_tensor t, float * data, int64_t n);
/* Download an i32 tensor. */
TNN_API int tnn_download_to_int_array(tnn_session * s, tnn_tensor t, int32_t * data, int64_t n);
TNN_API int tnn_zero_tensor(tnn_session * s, tnn_tensor t); /* Set all elements to zero. */

/* ---- operators ----
 * Each call appends one node, or several, to the graph and returns the result.
 *
 * All these calls raise TNN_E_VALUE for wrong shapes and numbers, TNN_E_TYPE for wrong dtypes, and TNN_E_STATE for stale
 * or foreign handles, or if no graph is being built. */
/* Return the product of the tensors a [k, m] (f32, f16, bf16 or quantized) and b [k, n]: [m, n]. Dimensions 2 and 3
 * of a are repeated to match those of b. */
TNN_API tnn_tensor tnn_matmul(tnn_session * s, tnn_tensor a, tnn_tensor b);
/* Return a + b. A smaller b is repeated to the shape of a. */
TNN_API tnn_tensor tnn_add(tnn_session * s, tnn_tensor a, tnn_tensor b);
/* Return a - b. A smaller b is repeated to the shape of a. */
TNN_API tnn_tensor tnn_sub(tnn_session * s, tnn_tensor a, tnn_tensor b);
/* Return a * b, element by element. A smaller b is repeated to the shape of a. */
TNN_API tnn_tensor tnn_mul(tnn_session * s, tnn_tensor a, tnn_tensor b);
/* Return a / b, element by element. A smaller b is repeated to the shape of a; a repeated b has no derivative. */
TNN_API tnn_tensor tnn_div(tnn_session * s, tnn_tensor a, tnn_tensor b);
/* Return the product of a [m, k] and b [n, k], summed over k: [m, n]. Dimensions 2 and 3 of a are repeated to match
 * those of b. The product has no derivative. */
TNN_API tnn_tensor tnn_out_prod(tnn_session * s, tnn_tensor a, tnn_tensor b);
TNN_API tnn_tensor tnn_scale(tnn_session * s, tnn_tensor a, float factor); /* Return a * factor. */
TNN_API tnn_tensor tnn_scale_bias(tnn_session * s, tnn_tensor a, float factor, float bias); /* Return a * factor + bias. */
TNN_API tnn_tensor tnn_exp(tnn_session * s, tnn_tensor a);      /* Return exp(a). */
TNN_API tnn_tensor tnn_neg(tnn_session * s, tnn_tensor a);      /* Return -a. */
TNN_API tnn_tensor tnn_softplus(tnn_session * s, tnn_tensor a); /* Return log(1 + exp(a)). */
/* Return 1 / (1 + exp(-a)). ggml has no derivative for this operator. */
TNN_API tnn_tensor tnn_sigmoid(tnn_session * s, tnn_tensor a);
/* Return the values of the tensor a, without passing a gradient back to it. Operators before this tensor that depend
 * on a parameter still need a derivative. */
TNN_API tnn_tensor tnn_detach(tnn_session * s, tnn_tensor a);
/* Return silu(gate) * up, element by element. gate and up have the same shape. */
TNN_API tnn_tensor tnn_swiglu_split(tnn_session * s, tnn_tensor gate, tnn_tensor up);
/* Return a / max(eps, sqrt(sum of a^2)) over ne0. ggml has no derivative for this operator. */
TNN_API tnn_tensor tnn_l2_norm(tnn_session * s, tnn_tensor a, float eps);
TNN_API tnn_tensor tnn_silu(tnn_session * s, tnn_tensor a);                /* Return a / (1 + exp(-a)). */
/* Return GELU of the tensor a, in ggml's tanh approximation. ggml has no derivative for this operator. */
TNN_API tnn_tensor tnn_gelu(tnn_session * s, tnn_tensor a);
TNN_API tnn_tensor tnn_tanh(tnn_session * s, tnn_tensor a); /* Return tanh(a). ggml has no derivative for this operator. */
TNN_API tnn_tensor tnn_sqrt(tnn_session * s, tnn_tensor a); /* Return sqrt(a). */
/* Return x / sqrt(mean(x^2) + eps) over ne0, times gamma [ne0]. */
TNN_API tnn_tensor tnn_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps);
/* Return (x - mean) / sqrt(variance + eps) over ne0, times gamma [ne0], plus beta [ne0]. This operator has no derivative. */
TNN_API tnn_tensor tnn_layer_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, tnn_tensor beta, float eps);
TNN_API tnn_tensor tnn_softmax(tnn_session * s, tnn_tensor a); /* Return the softmax over ne0. */
/* Return softmax(a * scale + mask) over ne0. */
TNN_API tnn_tensor tnn_soft_max_ext(tnn_session * s,
    tnn_tensor    a,
    tnn_tensor    mask,      /* optional, [ne0, >= ne1] */
    float         scale,     /* factor of a */
    float         max_bias); /* above 0: use ALiBi, which needs a mask and has no derivative */
/* Return a copy of the tensor a with -inf in each element whose index in ne0 is greater than n_past + its index in ne1. */
TNN_API tnn_tensor tnn_diag_mask_inf(tnn_session * s, tnn_tensor a, int32_t n_past);
/* Return x with rotary position embeddings, in x's shape. */
TNN_API tnn_tensor tnn_rope_ext(tnn_session * s,
    tnn_tensor    x,            /* [d, heads, T] */
    tnn_tensor    positions,    /* i32 [T] */
    int32_t       n_dims,       /* number of dimensions that are rotated, at most d */
    float         freq_base,    /* base of the frequencies */
    float         freq_scale,   /* factor of the positions */
    float         ext_factor,   /* above 0: use YaRN */
    float         attn_factor,  /* factor of the cosines and sines */
    float         beta_fast,    /* YaRN: pairs that rotate more often than this in n_ctx_orig tokens keep their frequency */
    float         beta_slow,    /* YaRN: pairs that rotate less often than this in n_ctx_orig tokens are scaled by freq_scale */
    tnn_tensor    freq_factors, /* optional, [>= n_dims/2]: divisors of the frequencies */
    int32_t       mode,         /* default 2: 2 (NEOX): rotate pairs of elements n_dims/2 apart; 0: rotate pairs of neighbours */
    int32_t       n_ctx_orig);  /* default 0: context length of the original training, for YaRN */
/* Return the rows of table [d, rows] at ids i32 [n]: [d, n]. ids must be an input; each compute checks their values. */
TNN_API tnn_tensor tnn_get_rows(tnn_session * s, tnn_tensor table, tnn_tensor ids);
/* Return the concatenation of a and b along dimension dim. The graph contains two SET operators of ggml instead of
 * CONCAT, because CONCAT has no derivative. The bits are the same. */
TNN_API tnn_tensor tnn_concat(tnn_session * s, tnn_tensor a, tnn_tensor b, int32_t dim);
/* Return the concatenation of one or more tensors along dimension dim; see tnn_concat. */
TNN_API tnn_tensor tnn_concat_n(tnn_session * s, const tnn_tensor * parts, int32_t n, int32_t dim);
/* Return the tensor a, repeated to the shape of b. Each size of b must be a multiple of the same size of a. The
 * values of b are not read. */
TNN_API tnn_tensor tnn_repeat(tnn_session * s, tnn_tensor a, tnn_tensor b);
/* Return a view of the tensor a, in which dimension i of a is dimension axis_i. Most operators need a contiguous
 * tensor: use tnn_cont_2d. */
TNN_API tnn_tensor tnn_permute(tnn_session * s, tnn_tensor a, int32_t axis0, int32_t axis1, int32_t axis2, int32_t axis3);
/* Return a copy of the tensor a in which b [ne0, ne1] replaces elements, starting at an offset in bytes. In the
 * copy, each row of b begins nb1 bytes after the previous row. */
TNN_API tnn_tensor tnn_set_2d(tnn_session * s, tnn_tensor a, tnn_tensor b, int64_t nb1, int64_t offset);
/* Return the transpose of the tensor a [m, n] as a contiguous tensor [n, m]. */
TNN_API tnn_tensor tnn_transpose(tnn_session * s, tnn_tensor a);
/* Return a contiguous copy of the tensor a as [ne0, ne1], with the same number of elements. */
TNN_API tnn_tensor tnn_cont_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1);
/* Return a view of the tensor a, which must be contiguous, as [ne0, ne1]. */
TNN_API tnn_tensor tnn_reshape_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1);
/* Return a view of the tensor a, which must be contiguous, as [ne0, ne1, ne2]. */
TNN_API tnn_tensor tnn_reshape_3d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t ne2);
/* Return a view of ne0 elements of the tensor a, which must be contiguous. The view starts at an offset in bytes. */
TNN_API tnn_tensor tnn_view_1d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t offset);
/* Return a view [ne0, ne1] of the tensor a. The view starts at an offset in bytes, and each row begins nb1 bytes
 * after the previous row. */
TNN_API tnn_tensor tnn_view_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t nb1, int64_t offset);
/* Convert the tensor a to the floating-point dtype of b, write the result to b, and return a view of b. */
TNN_API tnn_tensor tnn_cpy(tnn_session * s, tnn_tensor a, tnn_tensor b);
/* Return the tensor a, converted to TNN_F32, TNN_F16 or TNN_BF16. */
TNN_API tnn_tensor tnn_cast(tnn_session * s, tnn_tensor a, int32_t dtype);
TNN_API tnn_tensor tnn_sum(tnn_session * s, tnn_tensor a);      /* Return the sum of all elements: [1]. */
TNN_API tnn_tensor tnn_sum_rows(tnn_session * s, tnn_tensor a); /* Return the sums over ne0: [1, ne1, ...]. */
/* Return the mean over the rows of -sum(labels * log_softmax(logits)): [1]. logits and labels have the same shape
 * [vocab, rows]. The rows are added in four parts, as ggml does with four threads, so the bits do not depend on the
 * number of threads. */
TNN_API tnn_tensor tnn_cross_entropy_loss(tnn_session * s, tnn_tensor logits, tnn_tensor labels);
/* Append one AdamW step on the parameter w and its moments m and v, in place. */
TNN_API tnn_tensor tnn_opt_step_adamw(tnn_session * s,
    tnn_tensor    w,    /* a parameter */
    tnn_tensor    grad, /* its gradient */
    tnn_tensor    m,    /* first moment */
    tnn_tensor    v,    /* second moment */
    tnn_tensor    hp);  /* [7]: learning rate, beta1, beta2, eps, weight decay, factor of m, factor of v */
/* Append one SGD step on the parameter w, in place. hp [2] holds the learning rate and the weight decay. */
TNN_API tnn_tensor tnn_opt_step_sgd(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor hp);
/* Write row i of rows [d, n] to row ids[i] of dst [d, N], and return a view of dst. ids must be an input, and its
 * values must all differ. */
TNN_API tnn_tensor tnn_set_rows(tnn_session * s, tnn_tensor dst, tnn_tensor rows, tnn_tensor ids);
/* Return the attention of queries over keys and values, [dv, h, T]. ggml has no derivative for this operator. */
TNN_API tnn_tensor tnn_flash_attn_ext(tnn_session * s,
    tnn_tensor    q,              /* [d, T, h] */
    tnn_tensor    k,              /* [d, S, h_kv] */
    tnn_tensor    v,              /* [dv, S, h_kv] */
    tnn_tensor    mask,           /* optional, f16 [S, >= T] */
    float         scale,          /* factor of the scores */
    float         max_bias,       /* above 0: use ALiBi */
    float         logit_softcap); /* above 0: scores x become logit_softcap * tanh(x / logit_softcap) */

/* ---- experts ---- Sorting and routing, for mixtures of experts. Errors are as in the group "operators". */
/* Return the order of the elements of each row, i32 in the shape of a: order 0 is ascending, 1 is descending. Equal
 * elements keep their order, and NaN comes last. */
TNN_API tnn_tensor tnn_argsort(tnn_session * s, tnn_tensor a, int32_t order);
/* Return the places of the k largest elements of each row, i32 [k, ...], the largest first. NaN comes last. */
TNN_API tnn_tensor tnn_top_k(tnn_session * s, tnn_tensor a, int32_t k);
/* Return the products of b with the matrices that ids select: [m, n_used, T]. This operator has no derivative. */
TNN_API tnn_tensor tnn_mul_mat_id(tnn_session * s,
    tnn_tensor    matrices, /* [k, m, n_experts], with a dtype that tnn_matmul accepts for a */
    tnn_tensor    b,        /* [k, n_used or a divisor of it, T] */
    tnn_tensor    ids);     /* i32 [n_used, T]: an input, or a result of tnn_argsort or tnn_top_k */
/* Return the sum of each row (i, t) of the tensor a and row ids[i, t] of b. This operator has no derivative. */
TNN_API tnn_tensor tnn_add_id(tnn_session * s,
    tnn_tensor    a,    /* [d, n_used, T] */
    tnn_tensor    b,    /* [d, n_experts] */
    tnn_tensor    ids); /* i32 [n_used, T], as for tnn_mul_mat_id */

/* ---- convolution ---- Convolutions, with strides, paddings and dilations. Errors are as in the group "operators". */
/* Return the patches of x that a kernel reads, as rows: [kw kh channels, out_w, out_h, N], or [kw channels, out_w, N] in
 * one dimension. Only the shape of the kernel is used. */
TNN_API tnn_tensor tnn_im2col(tnn_session * s,
    tnn_tensor    kernel, /* [kw, kh, channels, ...], or [kw, channels, ...] in one dimension */
    tnn_tensor    x,      /* [w, h, channels, N], or [w, channels, N] in one dimension */
    int32_t       s0,     /* stride along w */
    int32_t       s1,     /* stride along h */
    int32_t       p0,     /* padding along w */
    int32_t       p1,     /* padding along h */
    int32_t       d0,     /* dilation along w */
    int32_t       d1,     /* dilation along h */
    int32_t       is_2d); /* 1: two dimensions; 0: one dimension, so s1, p1 and d1 are ignored */
/* Return the convolution of x: [out_w, out_channels, N]. The convolution has no derivative, because ggml multiplies f16
 * patches; tnn_im2col followed by tnn_matmul has a derivative. */
TNN_API tnn_tensor tnn_conv_1d(tnn_session * s,
    tnn_tensor    kernel, /* f32 or f16 [kw, channels, out_channels] */
    tnn_tensor    x,      /* [w, channels, N] */
    int32_t       s0,     /* stride */
    int32_t       p0,     /* padding */
    int32_t       d0);    /* dilation */
/* Return the convolution of x: [out_w, out_h, out_channels, N]. As in tnn_conv_1d, the convolution has no
 * derivative. */
TNN_API tnn_tensor tnn_conv_2d(tnn_session * s,
    tnn_tensor    kernel, /* f32 or f16 [kw, kh, channels, out_channels] */
    tnn_tensor    x,      /* [w, h, channels, N] */
    int32_t       s0,     /* stride along w */
    int32_t       s1,     /* stride along h */
    int32_t       p0,     /* padding along w */
    int32_t       p1,     /* padding along h */
    int32_t       d0,     /* dilation along w */
    int32_t       d1);    /* dilation along h */

/* ---- recurrence ---- The operators of state-space models. These operators have no derivatives. Errors are as in the
 * group "operators". */
/* Return the causal convolution of each channel with its own kernel: [d_inner, T, n_seqs]. */
TNN_API tnn_tensor tnn_ssm_conv(tnn_session * s,
    tnn_tensor    x,       /* [d_conv - 1 + T, d_inner, n_seqs] */
    tnn_tensor    kernel); /* [d_conv, d_inner] */
/* Return the selective scan of Mamba: y [head_dim, n_heads, T, n_seqs], followed by the new states [d_state, head_dim,
 * n_heads, n_seqs], as one vector. */
TNN_API tnn_tensor tnn_ssm_scan(tnn_session * s,
    tnn_tensor    state, /* [d_state, head_dim, n_heads, n_states] */
    tnn_tensor    x,     /* [head_dim, n_heads, T, n_seqs] */
    tnn_tensor    dt,    /* [n_heads, T, n_seqs] */
    tnn_tensor    a,     /* [d_state, n_heads] (Mamba-1) or [1, n_heads] (Mamba-2) */
    tnn_tensor    b,     /* [d_state, n_groups, T, n_seqs] */
    tnn_tensor    c,     /* [d_state, n_groups, T, n_seqs] */
    tnn_tensor    ids);  /* i32 [n_seqs], an input: for each sequence, the index of its initial state */
/* Return the result of the gated delta rule: [d n_heads, n_seqs (T + d)], the outputs of the tokens and then the new
 * states. */
TNN_API tnn_tensor tnn_gated_delta_net(tnn_session * s,
    tnn_tensor    q,      /* [d, n_heads or a divisor of it, T, n_seqs or a divisor of it] */
    tnn_tensor    k,      /* like q; k may have other numbers of heads and sequences than q */
    tnn_tensor    v,      /* [d, n_heads, T, n_seqs] */
    tnn_tensor    g,      /* log of the decay, [1 or d, n_heads, T, n_seqs] */
    tnn_tensor    beta,   /* [1, n_heads, T, n_seqs] */
    tnn_tensor    state); /* [d, d, n_heads, n_seqs], each matrix transposed */

/* ---- derivatives ----
 * The backward passes of some operators, as ggml's own differentiation uses them. These operators have no derivatives
 * of their own. Errors are as in the group "operators". */
/* Return the gradient of x. dy is the gradient of x / sqrt(mean(x^2) + eps) over ne0 (tnn_rms_norm without gamma). */
TNN_API tnn_tensor tnn_rms_norm_back(tnn_session * s, tnn_tensor dy, tnn_tensor x, float eps);
/* Return the gradient of the tensor a. dy is the gradient of y = softmax(a). */
TNN_API tnn_tensor tnn_softmax_back(tnn_session * s, tnn_tensor dy, tnn_tensor y);
/* Return the gradient of x. dy is the gradient of silu(x). */
TNN_API tnn_tensor tnn_silu_back(tnn_session * s, tnn_tensor x, tnn_tensor dy);
/* Return the gradient of x. dy is the gradient of tnn_rope_ext(x) with the same values of the other arguments. */
TNN_API tnn_tensor tnn_rope_ext_back(tnn_session * s,
    tnn_tensor    dy,           /* [d, heads, T] */
    tnn_tensor    positions,    /* i32 [T] */
    int32_t       n_dims,       /* number of dimensions that are rotated, at most d */
    float         freq_base,    /* base of the frequencies */
    float         freq_scale,   /* factor of the positions */
    float         ext_factor,   /* above 0: use YaRN */
    float         attn_factor,  /* factor of the cosines and sines */
    float         beta_fast,    /* YaRN: pairs that rotate more often than this in n_ctx_orig tokens keep their frequency */
    float         beta_slow,    /* YaRN: pairs that rotate less often than this in n_ctx_orig tokens are scaled by freq_scale */
    tnn_tensor    freq_factors, /* optional, [>= n_dims/2]: divisors of the frequencies */
    int32_t       mode,         /* default 2: 2 (NEOX): rotate pairs of elements n_dims/2 apart; 0: rotate pairs of neighbours */
    int32_t       n_ctx_orig);  /* default 0: context length of the original training, for YaRN */
/* Return the gradient of table [d, rows]. dy [d, n] is the gradient of tnn_get_rows(table, ids). Only the shape of
 * table is used. */
TNN_API tnn_tensor tnn_get_rows_back(tnn_session * s, tnn_tensor dy, tnn_tensor ids, tnn_tensor table);

/* ---- fused ----
 * The fused operators are the shim's own kernels. ggml runs them as custom operators.
 *
 * Each element of a matrix product is a sum of fused multiply-adds along k in a fixed order, so a row of a result has
 * the same bits in any batch and at any number of threads. The shim differentiates a graph whose loss is
 * tnn_fused_cross_entropy. Between the parameters and the loss, only the fused operators, tnn_get_rows, and tnn_add of
 * equal shapes are allowed. Tensors are two-dimensional, with one row for each token. Errors are as in the group
 * "operators". */
/* Return the products x W_i^T + b_i of one to three weights, side by side, plus the tensor add: [sum of m_i, rows]. */
TNN_API tnn_tensor tnn_fused_linear(tnn_session * s,
    tnn_tensor         x,       /* [k, rows] */
    const tnn_tensor * weights, /* n weights [k, m_i], f32, f16, bf16 or quantized, converted to f32 */
    const tnn_tensor * biases,  /* NULL, or n biases [m_i] */
    int32_t            n,       /* 1 to 3 */
    tnn_tensor         add);    /* optional, [sum of m_i, rows] */
/* Return y plus the product x W^T, which is added to m columns of y from `column` on: [columns, rows]. */
TNN_API tnn_tensor tnn_fused_add_product(tnn_session * s,
    tnn_tensor y,       /* [columns, rows] */
    tnn_tensor x,       /* [k, rows] */
    tnn_tensor weight,  /* W, f32 [k, m] */
    int64_t    column); /* first column of y to which the product is added */
/* Return factor * x. */
TNN_API tnn_tensor tnn_fused_scale(tnn_session * s, tnn_tensor x, float factor);
/* Return x / sqrt(mean(x^2) + eps) over ne0, times gamma [ne0]. */
TNN_API tnn_tensor tnn_fused_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps);
/* Return qkv with each query head and each key head normalized as tnn_fused_rms_norm does. Value heads stay unchanged.
 * */
TNN_API tnn_tensor tnn_fused_head_norm(tnn_session * s,
    tnn_tensor    qkv,     /* [(n_heads + 2 n_kv) d_head, rows]: query heads, key heads, value heads of a token */
    tnn_tensor    gamma_q, /* weight of all query heads, [d_head] */
    tnn_tensor    gamma_k, /* weight of all key heads, [d_head] */
    int32_t       n_heads, /* number of query heads */
    int32_t       n_kv,    /* number of key heads, which is also the number of value heads */
    float         eps);    /* added to the mean of the squares */
/* Return the table of rotations for tnn_fused_attention: [d_head, rows]. Each row holds d_head/2 cosines, then d_head/2
 * sines. An angle is freq_scale * position * freq_base^(-2 pair / d_head) / freq_factor, computed in f64. */
TNN_API tnn_tensor tnn_fused_rope_table(tnn_session * s,
    tnn_tensor    positions,    /* i32 [rows] */
    tnn_tensor    freq_factors, /* optional, [d_head/2] */
    int32_t       d_head,       /* size of a head */
    float         freq_base,    /* base of the frequencies */
    float         freq_scale,   /* factor of the positions */
    float         attn_factor); /* factor of the cosines and sines */
/* Return causal attention within each of B sequences, after NEOX RoPE: [n_heads d_head, B t_seq]. Query head h reads
 * key-value head h // (n_heads / n_kv). With starts, a token sees only tokens of its own sample. The
 * results and gradients of a sample then have the same bits at every place in a sequence. Each compute checks the
 * values of starts. */
TNN_API tnn_tensor tnn_fused_attention(tnn_session * s,
    tnn_tensor    qkv,        /* [(n_heads + 2 n_kv) d_head, B t_seq]: query heads, key heads, value heads of a token */
    tnn_tensor    rope_table, /* [d_head, B t_seq], from tnn_fused_rope_table */
    int32_t       n_heads,    /* number of query heads */
    int32_t       n_kv,       /* number of key-value heads */
    int64_t       t_seq,      /* tokens of one sequence */
    int64_t       window,     /* default 0: number of tokens that a token sees, itself included; 0: itself and all earlier tokens */
    float         scale,      /* default 0.0: factor of the scores; 0: 1/sqrt(d_head) */
    tnn_tensor    starts);    /* optional, i32 [B t_seq]: position, in its sequence, of the first token of the sample */
/* Return the attention of the last t tokens of each of B sequences. The keys and values of the earlier tokens are in a
 * cache, and the keys and values of the new tokens are written to this cache. With a cache in F32, the bits are those of
 * tnn_fused_attention. A cache in F16 rounds rotated keys and values to F16, and attention then reads the rounded
 * numbers. The bits of a sequence do not depend on the other sequences. This operator has no derivative. */
TNN_API tnn_tensor tnn_fused_attention_cached(tnn_session * s,
    tnn_tensor    qkv,        /* [(n_heads + 2 n_kv) d_head, B t] */
    tnn_tensor    rope_table, /* [d_head, B t] */
    tnn_tensor    kv_cache,   /* persistent [2 n_kv d_head, rows], from tnn_kv_cache, or of dtype F32 */
    tnn_tensor    n_past,     /* i32 [B], number of earlier tokens of each sequence, 0 to n_ctx - t (checked by each compute) */
    int32_t       n_heads,    /* number of query heads */
    int32_t       n_kv,       /* number of key-value heads */
    int64_t       window,     /* default 0: as for tnn_fused_attention */
    float         scale,      /* default 0.0: as for tnn_fused_attention */
    int64_t       n_ctx,      /* default 0: largest number of tokens of a sequence; 0: the rows of the cache */
    tnn_tensor    first_rows); /* optional, i32 [B]: first row of each sequence in the cache, in rising order; needed if B > 1 */
/* Return silu(gate) * up: [d_ff, rows]. A row of gate_up [2 d_ff, rows] holds its gate, then its up. */
TNN_API tnn_tensor tnn_fused_swiglu(tnn_session * s, tnn_tensor gate_up);
/* Return gelu(gate) * up: [d_ff, rows]. A row of gate_up [2 d_ff, rows] holds its gate, then its up. GELU is the
 * approximation by tanh: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2. */
TNN_API tnn_tensor tnn_fused_geglu(tnn_session * s, tnn_tensor gate_up);
/* Return the sum of -log_softmax(logits)[target] over the rows whose target is not ignore_id, divided by the divisor:
 * [1]. The gradients of ignored rows are 0. The losses are added in f64, in the order of the rows of each window. Each compute checks
 * that targets are tokens or ignore_id, and that the divisor is finite and above 0. Without a divisor, at least one
 * target must be a token. */
TNN_API tnn_tensor tnn_fused_cross_entropy(tnn_session * s,
    tnn_tensor    logits,    /* [vocab, rows] */
    tnn_tensor    targets,   /* i32 [rows] */
    int32_t       ignore_id, /* a target that does not count; it is not a token */
    tnn_tensor    divisor);  /* optional, an input [1] that replaces the number of targets that are not ignore_id */
/* Return the loss that tnn_fused_cross_entropy computes from the logits x W^T, with the same bits: [1]. The logits and
 * their gradients are computed in parts, each of several rows. A part is dropped before the next part is computed. */
TNN_API tnn_tensor tnn_fused_output_loss(tnn_session * s,
    tnn_tensor    x,         /* [k, rows] */
    tnn_tensor    weight,    /* W, [k, vocab], of a type as in tnn_fused_linear */
    tnn_tensor    targets,   /* i32 [rows] */
    int32_t       ignore_id, /* as for tnn_fused_cross_entropy */
    tnn_tensor    divisor,   /* optional, as for tnn_fused_cross_entropy */
    int64_t       part);     /* rows of a part */
/* Add the z-loss to a cross entropy. The gradients become the gradients of a sum: the loss, plus the coefficient times
 * the mean of the squares of log(sum(exp(logits))) over the rows that count. The value of the loss does not change. Make
 * this call before tnn_build_backward. The call has no effect on tnn_fused_preference_loss. */
TNN_API int tnn_set_z_loss(tnn_session * s,
    tnn_tensor    cross_entropy, /* a result of tnn_fused_cross_entropy or tnn_fused_output_loss */
    float         coefficient);  /* at least 0; 0: no z-loss */
/* The losses of tnn_fused_preference_loss for a pair with the margin m. SIGMOID: -log(sigmoid(beta m)), as in DPO.
 * HINGE: max(0, 1 - beta m). IPO: (m - 1/(2 beta))^2, with each log-probability divided by the number of its
 * targets. */
enum tnn_preference { TNN_PREFERENCE_SIGMOID = 0, TNN_PREFERENCE_HINGE = 1, TNN_PREFERENCE_IPO = 2 };
/* Return the sum of the losses of pairs of sequences, divided by the divisor: [1]. The first sequence of a pair is
 * preferred to the second. The change of a sequence is its log-probability minus the log-probability in the reference
 * model. The margin of a pair is the change of the first sequence minus the change of the second. Operand 0 of the result
 * has the shape [sequences / 2, 3]. Operand 0 holds the loss of each pair, and then the derivative of the result with
 * respect to the negative log-probability of each sequence. Losses are added in f64, as a binary tree over the
 * pairs. */
TNN_API tnn_tensor tnn_fused_preference_loss(tnn_session * s,
    tnn_tensor    cross_entropy, /* a result of tnn_fused_cross_entropy or tnn_fused_output_loss */
    tnn_tensor    reference,     /* an input [sequences, 2]: log-probabilities in the reference model, each a sum of two numbers */
    tnn_tensor    settings,      /* an input [3]: beta, label smoothing (for the sigmoid), divisor */
    int32_t       kind);         /* default 0: a value of enum tnn_preference */
/* Return the norm of all gradients together, and the factor by which clipping multiplies each gradient: [2]. Make this
 * call after tnn_build_backward. clip [2] holds the largest norm (0: no limit) and a factor for all gradients, for
 * example 1/n for n accumulated steps. */
TNN_API tnn_tensor tnn_fused_grad_norm(tnn_session * s, const tnn_tensor * grads, int32_t n, tnn_tensor clip);
/* Append one AdamW step on the clipped gradient, with the same bits as tnn_opt_step_adamw. If the norm is not finite,
 * w, m and v stay unchanged. If step is given, the moments are BF16. The new weights are then computed from the new
 * moments in F32, and the moments are rounded to BF16 stochastically: the random bits depend only on
 * seed, step and the place in w. */
TNN_API tnn_tensor tnn_fused_adamw(tnn_session * s,
    tnn_tensor    w,     /* a parameter */
    tnn_tensor    grad,  /* its gradient */
    tnn_tensor    m,     /* first moment, F32, or BF16 if step is given */
    tnn_tensor    v,     /* second moment, in the dtype of m */
    tnn_tensor    hp,    /* [7], as for tnn_opt_step_adamw */
    tnn_tensor    norm,  /* optional, a result of tnn_fused_grad_norm, by which the gradient is clipped */
    tnn_tensor    step,  /* optional, an input i32 [1]: the number of the step */
    int32_t       seed); /* default 0: the seed of the random bits, which should differ between weights */
/* Append one Muon step on the clipped gradient of a matrix. The step computes the momentum
 * (Nesterov), moves its singular values close to 1 by five Newton-Schulz iterations, multiplies the resulting matrix
 * by lr sqrt(max(1, ne1 / ne0)), and subtracts the product from w. If the norm is not finite, w and m stay unchanged. */
TNN_API tnn_tensor tnn_fused_muon(tnn_session * s,
    tnn_tensor    w,     /* a parameter [ne0, ne1] */
    tnn_tensor    grad,  /* its gradient */
    tnn_tensor    m,     /* momentum, F32, or BF16 if step is given */
    tnn_tensor    hp,    /* [3]: learning rate, momentum, weight decay */
    tnn_tensor    norm,  /* optional, a result of tnn_fused_grad_norm */
    tnn_tensor    step,  /* optional, as for tnn_fused_adamw */
    int32_t       seed); /* default 0: as for tnn_fused_adamw */

/* ---- flags ---- Set the role and the name of a tensor. */
/* Make an f32 input or weight a parameter, which gets a gradient.
 * TNN_E_TYPE: t is not f32.
 * TNN_E_VALUE: an operator computes t, or t is mapped from a file. */
TNN_API int tnn_set_param(tnn_session * s, tnn_tensor t);
/* Make t the loss: an f32 scalar that an operator computes.
 * TNN_E_VALUE: t is an input, is not f32, or has more than one element. */
TNN_API int tnn_set_loss(tnn_session * s, tnn_tensor t);
/* Keep the memory of a computed tensor, so that it can be downloaded. */
TNN_API int tnn_set_output(tnn_session * s, tnn_tensor t);
/* Keep t for the backward pass of a fused graph. The nodes between two such tensors are not kept: the backward pass
 * computes them again, with the same bits, as far as gradients need them.
 * TNN_E_VALUE: t is an input. */
TNN_API int tnn_set_recompute(tnn_session * s, tnn_tensor t);
/* State that a mapped matrix stores the d_head rows of each head in interleaved order, as llama.cpp does for q and k:
 * 0, d_head/2, 1, d_head/2 + 1 and so on. After this call, tnn_fused_linear uses the rows in the order 0, 1, 2 and so
 * on; other operators and downloads use the stored order.
 * TNN_E_VALUE: t is not a mapped matrix, or d_head is odd or does not divide the number of rows. */
TNN_API int tnn_tensor_set_interleaved(tnn_session * s, tnn_tensor t, int32_t d_head);
/* Let fused operators round the operands of their products with the matrix t to bfloat16, to nearest even. These
 * operands are t, the activations and, in the backward pass, the gradients. The sums and the results are f32, and t
 * keeps its values. The call affects operators that are appended later, except tnn_fused_add_product.
 * TNN_E_VALUE: t is not a matrix, or an operator computes it. */
TNN_API int tnn_tensor_set_bf16_products(tnn_session * s, tnn_tensor t);
/* Name a tensor, in at most 63 bytes of UTF-8. */
TNN_API int tnn_tensor_set_name(tnn_session * s, tnn_tensor t, const char * name);
TNN_API const char * tnn_tensor_name(tnn_session * s, tnn_tensor t); /* Return the name of a tensor, "" by default. */

/* ---- forward ---- Allocate and run a graph without gradients. */
/* Build the forward graph of out and allocate it. A second call is allowed only after tnn_reset_for_rebuild. */
TNN_API int tnn_realize(tnn_session * s, tnn_tensor out);
/* Add a node to the forward graph, although the result of the graph does not depend on the node: for example a tnn_cpy
 * into a weight. Make this call before tnn_realize, once for each such node. These nodes are computed first, in the
 * order of the calls. */
TNN_API int tnn_add_to_graph(tnn_session * s, tnn_tensor t);
/* Run the forward graph. If the call raises an error, nothing was computed.
 * TNN_E_STATE: an input was never uploaded.
 * TNN_E_VALUE: an id is out of range. */
TNN_API int tnn_compute(tnn_session * s);
/* Build a second forward graph, which computes out, from nodes appended before or after tnn_realize. Nothing can be
 * appended after this call. Only one of the two graphs has memory at a time; at the start, the first graph has it. */
TNN_API int tnn_realize_b(tnn_session * s, tnn_tensor out);
/* Give the memory to the first forward graph. All inputs and results lose their values, so upload the inputs of the
 * first graph before its next compute. Weights keep their values. If the first graph already has the memory, the call
 * does nothing. */
TNN_API int tnn_switch_a(tnn_session * s);
TNN_API int tnn_switch_b(tnn_session * s); /* Give the memory to the second forward graph, as tnn_switch_a does. */
TNN_API int tnn_compute_b(tnn_session * s); /* Run the second forward graph. Raises the errors of tnn_compute. */

/* ---- train ---- Build, allocate and run a graph with its backward pass and its optimizer. */
/* Build the forward graph of the loss without allocating it. */
TNN_API int tnn_build_forward_only(tnn_session * s, tnn_tensor loss);
/* Build the training graph ("graph b"): a copy of the forward graph with gradients. First check that every node between
 * a parameter and the loss has a derivative, and that the graph fits the capacity. */
TNN_API int tnn_build_backward(tnn_session * s);
/* Return the gradient of a parameter. To download the gradient, flag it with tnn_set_output before tnn_realize_backward. */
TNN_API tnn_tensor tnn_tensor_grad(tnn_session * s, tnn_tensor t);
/* Append an optimizer node to the training graph. */
TNN_API int tnn_extend_backward_graph(tnn_session * s, tnn_tensor node);
/* Flag every node of the training graph as an output. Then no nodes share memory, and each can be downloaded. */
TNN_API int tnn_pin_all_graph_b_nodes(tnn_session * s);
TNN_API int tnn_realize_backward(tnn_session * s); /* Allocate the training graph. */
/* Set the gradient of the loss to 1, and all other gradients and the moments of the optimizer to 0. */
TNN_API int tnn_graph_reset(tnn_session * s);
/* Set the gradient of the loss to 1 and all other gradients to 0; leave the moments as they are. */
TNN_API int tnn_graph_reset_grads_only(tnn_session * s);
/* Run forward, backward and optimizer in one compute. Reset the graph before each call. Raises the errors of
 * tnn_compute. */
TNN_API int tnn_compute_backward(tnn_session * s);
/* The tensors of a training step: ids and targets, i32 [n]; hp [n_hp]; the loss; and the norm, or 0. */
typedef struct tnn_step {
    tnn_tensor ids, targets, hp, loss, norm;
} tnn_step;
/* the bits of the argument mode of tnn_train_step */
enum tnn_step_mode {
    TNN_STEP_RESET_MOMENTS = 1, /* set the moments of the optimizer to 0 first */
    TNN_STEP_ACCUMULATE    = 2, /* compute the next batch of a step whose earlier calls set TNN_STEP_NO_UPDATE */
    /* leave weights and moments unchanged: optimizer steps do nothing. If each gradient is flagged with
     * tnn_set_output, keep the sums of the windows for the next batch of the step. */
    TNN_STEP_NO_UPDATE     = 4
};
/* Reset, upload, compute and download in one call. If the compute fails, the uploaded values stay. */
TNN_API int tnn_train_step(tnn_session * s,
    const tnn_step * step,
    const int32_t *  ids,     /* n ids */
    const int32_t *  targets, /* n targets */
    int64_t          n,
    const float *    hp,      /* n_hp hyper-parameters */
    int64_t          n_hp,
    int32_t          mode,    /* sum of bits of enum tnn_step_mode */
    float *          loss,    /* result */
    float *          norm);   /* result; may be NULL if step->norm is 0 */
/* Begin a batch of a step as tnn_train_step does with TNN_STEP_NO_UPDATE, but compute nothing yet: tnn_continue_step
 * computes. step->loss and step->norm are not used. Each call of tnn_train_step, tnn_begin_step, tnn_graph_reset and
 * tnn_graph_reset_grads_only abandons a batch that is not complete, and the batches of its step.
 * TNN_E_STATE: the gradients are not flagged with tnn_set_output. */
TNN_API int tnn_begin_step(tnn_session * s,
    const tnn_step * step,
    const int32_t *  ids,        /* n ids */
    const int32_t *  targets,    /* n targets */
    int64_t          n,
    const float *    hp,         /* n_hp hyper-parameters */
    int64_t          n_hp,
    int32_t          accumulate); /* not 0: the next batch of a step, as with TNN_STEP_ACCUMULATE */
/* Continue the batch that tnn_begin_step has begun: compute until the gradient of t is complete, or until the end
 * of the batch if t is left out. tnn_download_window_sum can read complete gradients before the end of the batch. If the
 * call fails while it computes, the batch is abandoned.
 * TNN_E_STATE: no batch has been begun. */
TNN_API int tnn_continue_step(tnn_session * s,
    tnn_tensor t); /* optional, a parameter */
/* Allocate the memory that a step of this number of batches needs between its batches. Without this call, a step
 * allocates the memory when it needs it.
 * TNN_E_STATE: the gradients are not flagged with tnn_set_output. */
TNN_API int tnn_reserve_batches(tnn_session * s, int64_t batches);
/* Return the number of sums over the windows that together form the gradient of a parameter. There are 2 sums if the
 * graph uses the parameter in two kinds of operators, for example an embedding that is also the output matrix. Otherwise
 * there is 1 sum. The sums are added in their order. Elements of the second sum that are 0 do not change the first sum.
 * TNN_E_STATE: the training graph is not realized. */
TNN_API int64_t tnn_gradient_parts(tnn_session * s, tnn_tensor t);
/* Return the place of a sum of tnn_gradient_parts in a node of tnn_download_window_sum: the value of `at` for its first
 * element. part: the number of the sum, from 0. */
TNN_API int64_t tnn_gradient_place(tnn_session * s, tnn_tensor t, int32_t part);
/* Download n elements, from element `at` on, of a node of the binary tree over the windows: the sums of the windows from first
 * to first + 2^level - 1. All these windows must belong to batches of the unfinished step (TNN_STEP_NO_UPDATE), and the
 * parent of the node must also cover other windows.
 * TNN_E_STATE: there is no unfinished step, or the gradients are not flagged with tnn_set_output. */
TNN_API int tnn_download_window_sum(tnn_session * s,
    int64_t first,
    int32_t level,
    int64_t at,
    float * data, /* n elements */
    int64_t n);
/* Run the realized graph node by node and measure the seconds of each node, in the order of tnn_graph_node. The results are
 * those of tnn_compute or tnn_compute_backward, but this call is slower. */
TNN_API int tnn_compute_profiled(tnn_session * s, double * seconds, int64_t n);

/* ---- introspection ---- Inspect tensors and the graph. */
/* Return the size of dimension 0, the fastest-varying one. */
TNN_API int64_t tnn_tensor_ne0(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_ne1(tnn_session * s, tnn_tensor t);    /* Return the size of dimension 1. */
TNN_API int64_t tnn_tensor_ne2(tnn_session * s, tnn_tensor t);    /* Return the size of dimension 2. */
TNN_API int64_t tnn_tensor_ne3(tnn_session * s, tnn_tensor t);    /* Return the size of dimension 3. */
TNN_API int64_t tnn_tensor_nbytes(tnn_session * s, tnn_tensor t); /* Return the size of the tensor's data in bytes. */
TNN_API int64_t tnn_tensor_nelements(tnn_session * s, tnn_tensor t); /* Return the number of elements. */
/* Return ggml's id of the dtype: TNN_F32, TNN_F16, TNN_I32 or TNN_BF16. */
TNN_API int64_t tnn_tensor_dtype(tnn_session * s, tnn_tensor t);
/* Return the sum of the flags: 1 input, 2 output, 4 parameter, 8 loss. */
TNN_API int64_t tnn_tensor_flags(tnn_session * s, tnn_tensor t);
/* Return ggml's number of the operator that computes the tensor; 0 (NONE) for an input. */
TNN_API int64_t tnn_tensor_op(tnn_session * s, tnn_tensor t);
/* Return ggml's name of the operator that computes the tensor; "NONE" for an input. */
TNN_API const char * tnn_tensor_op_name(tnn_session * s, tnn_tensor t);
/* Return operand i of t, or none.
 * TNN_E_VALUE: i is not 0 to 9. */
TNN_API tnn_tensor tnn_tensor_src(tnn_session * s, tnn_tensor t, int32_t i);
/* Return the number of nodes of the training graph if it is built, else of the forward graph, else 0. */
TNN_API int64_t tnn_graph_n_nodes(tnn_session * s);
/* Return node i of the graph that tnn_graph_n_nodes counts, in the order of computation.
 * TNN_E_VALUE: i is out of range. */
TNN_API tnn_tensor tnn_graph_node(tnn_session * s, int64_t i);

/* ---- types ---- The number types of ggml, such as the quantized types of GGUF files. These calls need no session. */
/* Return ggml's name of a type that can be converted to f32, for example "q4_K", or none. */
TNN_API const char * tnn_type_name(int32_t dtype);
/* Return how many numbers a block of the type has; 0 if tnn_type_name has no name for the type. */
TNN_API int64_t tnn_type_block_size(int32_t dtype);
/* Return the size of a block of the type in bytes; 0 if tnn_type_name has no name for the type. */
TNN_API int64_t tnn_type_block_nbytes(int32_t dtype);
/* Convert n numbers to f32. Each NaN becomes the same bits, 0x7fc00000.
 * TNN_E_VALUE: the type cannot be converted, or nbytes is not the size of n numbers. */
TNN_API int tnn_dequantize(int32_t dtype, const uint8_t * data, int64_t nbytes, float * out, int64_t n);
/* Convert n numbers from f32 to the type, as ggml does without an importance matrix. In quantized types, numbers smaller
 * than 2^-60 count as 0.
 * TNN_E_VALUE: ggml cannot convert to the type, or needs tables or an importance matrix to do so (iq1, iq2, iq3); nbytes
 * is not the size of n numbers; a number is NaN or infinite, or too large for the type. */
TNN_API int tnn_quantize(int32_t dtype, const float * data, int64_t n, uint8_t * out, int64_t nbytes);

/* ---- slices ---- Compute with slices of weights: several processes that train together divide the elements of each
 * weight into slices. These calls need no session. */
/* Update n elements of a weight and of its moments by AdamW, with the same bits as tnn_fused_adamw. The slices must
 * not overlap.
 * TNN_E_VALUE: a pointer is NULL, or n is negative. */
TNN_API int tnn_slice_adamw(
    float * w,       /* a slice of the weight, which is updated */
    float * m,       /* its first moments, which are updated */
    float * v,       /* its second moments, which are updated */
    const float * g, /* its gradient */
    int64_t n,
    const float * hp, /* 7 numbers, as for tnn_opt_step_adamw */
    float factor);    /* factor by which the gradient is clipped */
/* Round n numbers of a moment to bfloat16 stochastically, in place. A step has computed the numbers in F32. The bits are those
 * that tnn_fused_adamw and tnn_fused_muon compute for moments in BF16.
 * TNN_E_VALUE: values is NULL, n or first is negative, first + n is above 2^31 - 1, or second is neither 0 nor 1. */
TNN_API int tnn_slice_round(
    float * values,  /* a slice of the moment, which is rounded */
    int64_t n,
    int32_t seed,    /* the seed of the random bits */
    int32_t step,    /* the number of the step */
    int64_t first,   /* the place of the first number in the weight */
    int32_t second); /* 1 for a second moment, 0 for a first moment or the momentum of Muon */
/* Compute the sums of the squares of the parts first to end - 1 of a gradient of `size` elements. The gradient has
 * 64 parts, and tnn_fused_grad_norm computes the norm from the sums of all parts. Part i begins at element
 * size * i / 64, rounded down. Write the sum of part i to sums[i].
 * TNN_E_VALUE: a pointer is NULL, size is negative or above 2^31 - 1, the condition 0 <= first <= end <= 64 is violated,
 * or n is not the number of elements in these parts. */
TNN_API int tnn_slice_squares(
    const float * g, /* the elements of these parts */
    int64_t n,       /* number of elements in g */
    int64_t size,
    int32_t first,
    int32_t end,
    double * sums); /* 64 numbers */

/* ---- random ---- Draw from the two random streams from which the Ruby project toy draws initial weights. These calls need
 * no session. */
enum tnn_random_kind { TNN_RANDOM_LCG31 = 0, TNN_RANDOM_XORSHIFT64 = 1 };
/* Compute the state of a new stream; any seed is allowed.
 * TNN_E_VALUE: state is NULL, or kind is not a value of enum tnn_random_kind. */
TNN_API int tnn_random_seed(int32_t kind, int64_t seed, uint64_t * state);
/* Fill data with n values of N(0, std^2), and advance the state. The values are computed by Box-Muller in f64 (log, cos
 * and sin of the C library), and rounded to f32. Box-Muller makes the values in pairs, from a cosine and a sine. If n is
 * odd, the last sine is dropped.
 * TNN_E_VALUE: a pointer is NULL, n is negative, std is not finite, or kind is not a value of enum tnn_random_kind. */
TNN_API int tnn_random_gaussian(int32_t kind, uint64_t * state, double std, float * data, int64_t n);
/* cffi: end */
#endif
