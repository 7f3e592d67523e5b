/* tinynn.h - the TinyNN session API: the one list of calls that toynn offers over ggml.
 *
 * Intended use:
 *   1. tnn_session_new, tnn_session_set_graph_capacity
 *   2. declare the persistent tensors (weights, moments, token ids), tnn_finalize_weights, upload them
 *   3. tnn_reset_for_rebuild; declare the inputs of one graph; build it with the operators
 *   4. forward only:  tnn_realize(s, out)       ; upload inputs ; tnn_compute          ; tnn_download
 *      training:      tnn_set_param, tnn_set_loss, tnn_build_forward_only(s, loss), tnn_build_backward,
 *                     tnn_tensor_grad + tnn_opt_step_* + tnn_extend_backward_graph for each parameter,
 *                     tnn_realize_backward ; then per step: tnn_graph_reset* ; upload inputs ;
 *                     tnn_compute_backward ; tnn_download(loss)
 *   5. tnn_reset_for_rebuild for the next graph, or tnn_session_free
 *
 * Conventions:
 *   - A tensor is a handle: it names its session and its graph generation, so a handle of another session or of
 *     a graph that tnn_reset_for_rebuild dropped is recognised and refused. 0 is never a tensor.
 *   - Shapes are ggml's: ne0 is the fastest-varying dimension. A row-major (rows, cols) matrix is ne = [cols, rows].
 *   - A call that returns tnn_tensor returns 0 on failure; one that returns int returns TNN_OK or an error code;
 *     one that returns int64_t returns a negative error code on failure. tnn_last_error then names the call, the
 *     argument, its value and what was expected. Nothing is changed by a call that fails, except where stated.
 *   - Every argument is checked before ggml sees it: no call can reach a GGML_ASSERT.
 *   - A session belongs to one thread at a time (the caller serialises) and to the process that made it: after
 *     fork() the child gets TNN_E_STATE.
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
    TNN_E_VALUE    = 1, /* a shape, a range, a number: Python ValueError */
    TNN_E_TYPE     = 2, /* a dtype or a thing of the wrong kind: Python TypeError */
    TNN_E_STATE    = 3, /* wrong order, stale or foreign handle: Python SessionError */
    TNN_E_MEMORY   = 4, /* memory that cannot be had: Python MemoryError */
    TNN_E_INTERNAL = 5  /* ggml reported a failure the checks did not foresee */
};

/* ggml's type ids, as far as the session API takes them */
enum tnn_dtype {
    TNN_F32  = 0,
    TNN_F16  = 1,
    TNN_I32  = 26,
    TNN_BF16 = 30
};

/* bits of tnn_tensor_flags, as in ggml */
enum tnn_flag {
    TNN_FLAG_INPUT  = 1,
    TNN_FLAG_OUTPUT = 2,
    TNN_FLAG_PARAM  = 4,
    TNN_FLAG_LOSS   = 8
};

/* ---- about this build (no session; strings are static) ---- */
TNN_API const char * tnn_ggml_version(void);
TNN_API const char * tnn_ggml_commit(void);
TNN_API const char * tnn_profile(void);       /* instruction-set profile, e.g. "x86-64-v3" */
TNN_API const char * tnn_compiler(void);
TNN_API const char * tnn_build_type(void);
TNN_API const char * tnn_build_options(void);
TNN_API const char * tnn_cpu_features(void);  /* features compiled in, space separated */
TNN_API const char * tnn_cpu_missing(void);   /* features this CPU lacks for the profile; "" when it may run. Call it first: nothing else is safe otherwise */
/* Which kernel computes the products of the fused operators. The process chooses its CPU's fastest at the first product; all give
 * the same bits. */
TNN_API const char * tnn_gemm_kernel(void);              /* the one in use: "v8", or "avx512" where this CPU has it */
TNN_API const char * tnn_gemm_kernel_at(int32_t i);      /* those that this CPU can run, the fastest at 0; NULL beyond the last */
TNN_API int tnn_gemm_use_kernel(const char * name);      /* TNN_E_VALUE: this CPU, or this build, has no kernel of that name */
TNN_API int32_t tnn_available_cores(void);    /* cores this process may run on: affinity mask and quotas of its cgroups, at least 1 */
TNN_API int64_t tnn_available_memory(void);   /* bytes that may still be had: of the machine, of this process's cgroups */

/* ---- session ---- */
/* kind 0 = CPU. NULL on failure: tnn_last_error(NULL) tells why (per thread). */
TNN_API tnn_session * tnn_session_new(int32_t kind);
/* Frees everything the session owns. NULL is allowed. */
TNN_API void tnn_session_free(tnn_session * s);
/* Message of the last failed call on s; "" when the last call succeeded. Valid until the next call. */
TNN_API const char * tnn_last_error(const tnn_session * s);
TNN_API int tnn_last_error_code(const tnn_session * s);
/* Node budget of one graph, forward and backward together (default 16384, at most 2^21). Only while no per-graph
 * tensor exists: before the first one, or right after tnn_reset_for_rebuild. */
TNN_API int tnn_session_set_graph_capacity(tnn_session * s, int64_t n_nodes);
TNN_API int64_t tnn_session_graph_capacity(tnn_session * s);
/* 1 <= n <= tnn_available_cores(), or up to 512 with oversubscribe != 0 (slow, for tests).
 * Results do not depend on it. The default is tnn_available_cores(). */
TNN_API int tnn_session_set_n_threads(tnn_session * s, int32_t n, int32_t oversubscribe);
TNN_API int64_t tnn_session_n_threads(tnn_session * s);
/* Bytes of the weights buffer, and of the compute buffer of the realized graph (0 before). */
TNN_API int64_t tnn_session_weights_nbytes(tnn_session * s);
TNN_API int64_t tnn_session_compute_nbytes(tnn_session * s);
/* Drops all per-graph tensors and graphs; their handles become stale. Weights stay. */
TNN_API int tnn_reset_for_rebuild(tnn_session * s);

/* ---- declare ---- */
/* Persistent tensors: before tnn_finalize_weights only. Zero until uploaded. */
TNN_API tnn_tensor tnn_input_1d_f32_persistent(tnn_session * s, int64_t ne0);
TNN_API tnn_tensor tnn_input_2d_f32_persistent(tnn_session * s, int64_t ne0, int64_t ne1);
TNN_API tnn_tensor tnn_input_3d_f32_persistent(tnn_session * s, int64_t ne0, int64_t ne1, int64_t ne2);
TNN_API tnn_tensor tnn_input_1d_i32_persistent(tnn_session * s, int64_t ne0);
TNN_API tnn_tensor tnn_input_2d_persistent(tnn_session * s, int32_t dtype, int64_t ne0, int64_t ne1); /* dtype TNN_F32, TNN_F16 or TNN_BF16 */
/* Per-graph inputs: after tnn_finalize_weights. Each must be uploaded before the graph computes; what is uploaded
 * stays for later computes (its memory is never lent to other nodes). _ctx is the reference's second name. */
TNN_API tnn_tensor tnn_input_1d_f32(tnn_session * s, int64_t ne0);
TNN_API tnn_tensor tnn_input_2d_f32(tnn_session * s, int64_t ne0, int64_t ne1);
TNN_API tnn_tensor tnn_input_1d_i32(tnn_session * s, int64_t ne0);
TNN_API tnn_tensor tnn_input_1d_i32_ctx(tnn_session * s, int64_t ne0);
/* Allocates the weights buffer, once, and fills it with zeros. TNN_E_MEMORY leaves the session as it was. */
TNN_API int tnn_finalize_weights(tnn_session * s);

/* ---- build: operators. Each appends one node, or several, and returns the result ---- */
TNN_API tnn_tensor tnn_matmul(tnn_session * s, tnn_tensor a, tnn_tensor b); /* a [k,m], b [k,n] f32 -> [m,n]; a f32, f16 or bf16; higher dims broadcast a over b */
TNN_API tnn_tensor tnn_add(tnn_session * s, tnn_tensor a, tnn_tensor b);    /* b repeats to a's shape */
TNN_API tnn_tensor tnn_sub(tnn_session * s, tnn_tensor a, tnn_tensor b);
TNN_API tnn_tensor tnn_mul(tnn_session * s, tnn_tensor a, tnn_tensor b);
TNN_API tnn_tensor tnn_scale(tnn_session * s, tnn_tensor a, float factor);
TNN_API tnn_tensor tnn_silu(tnn_session * s, tnn_tensor a);
TNN_API tnn_tensor tnn_gelu(tnn_session * s, tnn_tensor a);                 /* no derivative in ggml */
TNN_API tnn_tensor tnn_tanh(tnn_session * s, tnn_tensor a);                 /* no derivative in ggml */
TNN_API tnn_tensor tnn_sqrt(tnn_session * s, tnn_tensor a);
TNN_API tnn_tensor tnn_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps);                    /* ggml rms_norm, then mul by gamma [ne0] */
TNN_API tnn_tensor tnn_layer_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, tnn_tensor beta, float eps); /* no derivative in ggml */
TNN_API tnn_tensor tnn_softmax(tnn_session * s, tnn_tensor a);                                                  /* over ne0 */
/* softmax(a*scale + mask); mask 0 = none, else f32 [ne0, >=ne1]. max_bias > 0 (ALiBi) needs a mask and has no derivative */
TNN_API tnn_tensor tnn_soft_max_ext(tnn_session * s, tnn_tensor a, tnn_tensor mask, float scale, float max_bias);
TNN_API tnn_tensor tnn_diag_mask_inf(tnn_session * s, tnn_tensor a, int32_t n_past);
/* x [d, heads, T], positions i32 [T], freq_factors 0 = none or f32 [>= n_dims/2]; mode 0 = normal, 2 = NEOX */
TNN_API tnn_tensor tnn_rope_ext(tnn_session * s, tnn_tensor x, tnn_tensor positions, tnn_tensor freq_factors, int32_t n_dims,
                                int32_t mode, int32_t n_ctx_orig, float freq_base, float freq_scale, float ext_factor,
                                float attn_factor, float beta_fast, float beta_slow);
/* table [d, rows], ids i32 [n] -> [d, n] f32. ids must be an input (not computed); its values are checked at each compute */
TNN_API tnn_tensor tnn_get_rows(tnn_session * s, tnn_tensor table, tnn_tensor ids);
/* f32, along dimension dim: two SETs into one tensor, bit-equal to ggml's CONCAT and, unlike it, differentiable */
TNN_API tnn_tensor tnn_concat(tnn_session * s, tnn_tensor a, tnn_tensor b, int32_t dim);
/* the same for n >= 1 tensors in one result */
TNN_API tnn_tensor tnn_concat_n(tnn_session * s, const tnn_tensor * parts, int32_t n, int32_t dim);
TNN_API tnn_tensor tnn_transpose(tnn_session * s, tnn_tensor a);                                          /* [m,n] -> [n,m], materialised */
TNN_API tnn_tensor tnn_cont_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1);
TNN_API tnn_tensor tnn_reshape_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1);               /* a contiguous */
TNN_API tnn_tensor tnn_reshape_3d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t ne2);
TNN_API tnn_tensor tnn_view_1d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t offset);               /* a contiguous; offset in bytes */
TNN_API tnn_tensor tnn_view_2d(tnn_session * s, tnn_tensor a, int64_t ne0, int64_t ne1, int64_t nb1, int64_t offset); /* row stride nb1 and offset in bytes */
TNN_API tnn_tensor tnn_cpy(tnn_session * s, tnn_tensor a, tnn_tensor b);                                  /* writes a into b, returns a view of b; both floating */
TNN_API tnn_tensor tnn_cast(tnn_session * s, tnn_tensor a, int32_t dtype);                                /* between TNN_F32, TNN_F16 and TNN_BF16 */
TNN_API tnn_tensor tnn_sum(tnn_session * s, tnn_tensor a);                                                /* -> [1] */
TNN_API tnn_tensor tnn_sum_rows(tnn_session * s, tnn_tensor a);                                           /* -> [1, ne1, ...] */
/* logits, labels f32 [vocab, rows] -> [1]: mean over rows of -sum(labels * log_softmax(logits)). Reduced as ggml does it
 * with four threads, whatever number of threads computes it: same bits for any thread count. */
TNN_API tnn_tensor tnn_cross_entropy_loss(tnn_session * s, tnn_tensor logits, tnn_tensor labels);
/* hp f32 [7]: alpha, beta1, beta2, eps, wd, factor of m, factor of v. w must be a parameter; writes w, m, v. */
TNN_API tnn_tensor tnn_opt_step_adamw(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp);
/* hp f32 [2]: alpha, wd */
TNN_API tnn_tensor tnn_opt_step_sgd(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor hp);
/* writes row i of rows [d, n] to row ids[i] of dst [d, N]; returns a view of dst. ids as for get_rows, and all different */
TNN_API tnn_tensor tnn_set_rows(tnn_session * s, tnn_tensor dst, tnn_tensor rows, tnn_tensor ids);
/* q [d, T, h], k [d, S, h_kv], v [dv, S, h_kv], mask 0 or f16 [S, >=T] -> [dv, h, T]. No derivative in ggml */
TNN_API tnn_tensor tnn_flash_attn_ext(tnn_session * s, tnn_tensor q, tnn_tensor k, tnn_tensor v, tnn_tensor mask, float scale,
                                      float max_bias, float logit_softcap);

/* ---- build: fused operators, the shim's own kernels behind ggml's custom-op door. ----
 * Their matrix products are one chain of fused multiply-adds along k for each element, so a row of a result has the same
 * bits in any batch and with any number of threads. A graph whose loss is tnn_fused_cross_entropy is differentiated by the
 * shim: between its parameters and the loss may stand these operators, tnn_get_rows, and tnn_add of equal shapes.
 * All f32; x and the like are two-dimensional, a row for each token. */
/* x [k, rows], n = 1..3 weights [k, m_i], biases NULL or n of [m_i], add 0 or [sum of m_i, rows] -> [sum of m_i, rows]:
 * the products x W_i^T + b_i side by side, plus add */
TNN_API tnn_tensor tnn_fused_linear(tnn_session * s, tnn_tensor x, const tnn_tensor * weights, const tnn_tensor * biases, int32_t n,
                                    tnn_tensor add);
TNN_API tnn_tensor tnn_fused_rms_norm(tnn_session * s, tnn_tensor x, tnn_tensor gamma, float eps); /* gamma [ne0] */
/* positions i32 [rows], freq_factors 0 or f32 [d_head/2] -> [d_head, rows]: d_head/2 cosines, then as many sines, in f64 and rounded */
TNN_API tnn_tensor tnn_fused_rope_table(tnn_session * s, tnn_tensor positions, tnn_tensor freq_factors, int32_t d_head, float freq_base,
                                        float freq_scale, float attn_factor);
/* qkv [(n_heads + 2 n_kv) d_head, B t_seq]: a token's query, key and value heads; rope_table [d_head, B t_seq] -> [n_heads d_head, B t_seq].
 * NEOX RoPE, then causal attention within each of the B sequences, scores scaled by 1/sqrt(d_head) */
TNN_API tnn_tensor tnn_fused_attention(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, int32_t n_heads, int32_t n_kv, int64_t t_seq);
/* The same for the last n tokens of one sequence: qkv [.., n], rope_table [d_head, n], kv_cache persistent f32
 * [2 n_kv d_head, n_ctx], n_past i32 [1], checked at each compute: 0 <= n_past <= n_ctx - n. The cache must hold the keys and values of
 * the n_past tokens before; those of the n tokens are written behind them. Same bits as without a cache. No derivative */
TNN_API tnn_tensor tnn_fused_attention_cached(tnn_session * s, tnn_tensor qkv, tnn_tensor rope_table, tnn_tensor kv_cache,
                                              tnn_tensor n_past, int32_t n_heads, int32_t n_kv);
TNN_API tnn_tensor tnn_fused_swiglu(tnn_session * s, tnn_tensor gate_up); /* [2 d_ff, rows] -> silu(first half) * second half */
/* logits [vocab, rows], targets i32 [rows] -> [1]: mean of -log_softmax(logits)[target] over the rows whose target is not
 * ignore_id (which is no token). Checked at each compute: every target is a token or ignore_id, and one at least is a token */
TNN_API tnn_tensor tnn_fused_cross_entropy(tnn_session * s, tnn_tensor logits, tnn_tensor targets, int32_t ignore_id);
/* After tnn_build_backward. clip f32 [2]: the largest norm (0: no limit) and a factor of every gradient (1/n for n accumulated
 * steps). -> [2]: the norm of all gradients together times that factor, and what clipping multiplies a gradient by */
TNN_API tnn_tensor tnn_fused_grad_norm(tnn_session * s, const tnn_tensor * grads, int32_t n, tnn_tensor clip);
/* tnn_opt_step_adamw, bit for bit, on the clipped gradient; norm 0 or of tnn_fused_grad_norm. A norm that is not finite leaves
 * w, m and v as they are. */
TNN_API tnn_tensor tnn_fused_adamw(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp,
                                   tnn_tensor norm);

/* ---- flags and names ---- */
TNN_API int tnn_set_param(tnn_session * s, tnn_tensor t);  /* an f32 input or weight that gets a gradient */
TNN_API int tnn_set_loss(tnn_session * s, tnn_tensor t);   /* an f32 scalar that an operator made */
TNN_API int tnn_set_output(tnn_session * s, tnn_tensor t); /* keep its memory: required to download a computed tensor */
TNN_API int tnn_tensor_set_name(tnn_session * s, tnn_tensor t, const char * name); /* at most 63 bytes */
TNN_API const char * tnn_tensor_name(tnn_session * s, tnn_tensor t);               /* NULL on failure */

/* ---- forward ---- */
/* Expands the forward graph of out and allocates it. Once per graph generation. */
TNN_API int tnn_realize(tnn_session * s, tnn_tensor out);
/* Runs the forward graph. Fails, computing nothing, if an input was never uploaded or an id is out of range. */
TNN_API int tnn_compute(tnn_session * s);

/* ---- train ---- */
/* Expands the forward graph of the loss without allocating it. */
TNN_API int tnn_build_forward_only(tnn_session * s, tnn_tensor loss);
/* Duplicates the forward graph with gradients (graph b) and lets ggml expand its backward. Checked first: every node on a
 * gradient path has a derivative, and graph b fits the capacity. */
TNN_API int tnn_build_backward(tnn_session * s);
/* Gradient of a parameter in graph b. To download it, flag it with tnn_set_output before tnn_realize_backward. */
TNN_API tnn_tensor tnn_tensor_grad(tnn_session * s, tnn_tensor t);
/* Appends an optimizer node to graph b. */
TNN_API int tnn_extend_backward_graph(tnn_session * s, tnn_tensor node);
/* Flags every node of graph b as an output: no memory is shared, everything can be downloaded. */
TNN_API int tnn_pin_all_graph_b_nodes(tnn_session * s);
TNN_API int tnn_realize_backward(tnn_session * s);
/* Gradient of the loss = 1, gradients and the optimizers' moments = 0. */
TNN_API int tnn_graph_reset(tnn_session * s);
/* The same without the moments. */
TNN_API int tnn_graph_reset_grads_only(tnn_session * s);
/* Forward, backward, optimizer: one compute. Needs a reset since the last one. Fails as tnn_compute does. */
TNN_API int tnn_compute_backward(tnn_session * s);

/* The tensors of a training step: ids and targets i32 [n], hp f32 [n_hp], the loss, and the norm or 0. */
typedef struct tnn_step {
    tnn_tensor ids, targets, hp, loss, norm;
} tnn_step;
/* bits of mode */
enum tnn_step_mode {
    TNN_STEP_RESET_MOMENTS = 1, /* the optimizers' moments = 0 first */
    TNN_STEP_ACCUMULATE    = 2, /* add to the gradients of the step before; each must be flagged with tnn_set_output */
    TNN_STEP_NO_UPDATE     = 4  /* leave the weights and moments: tnn_fused_adamw steps do nothing */
};
/* Reset, upload, compute and download in one call. norm may be NULL where step.norm is 0. What fails after the upload (an id out of
 * range, memory) leaves it uploaded. */
TNN_API int tnn_train_step(tnn_session * s, const tnn_step * step, const int32_t * ids, const int32_t * targets, int64_t n,
                           const float * hp, int64_t n_hp, int32_t mode, float * loss, float * norm);
/* Runs the realized graph node by node and gives the seconds of each, in the order of tnn_graph_node. It is a compute like
 * tnn_compute or tnn_compute_backward, with the same results, only slower. */
TNN_API int tnn_compute_profiled(tnn_session * s, double * seconds, int64_t n);

/* ---- move data: n = number of elements, must equal the tensor's. Order: ne0 fastest ---- */
TNN_API int tnn_upload_from_float_array(tnn_session * s, tnn_tensor t, const float * data, int64_t n);   /* f32; rounded for f16, bf16 */
TNN_API int tnn_upload_from_int_array(tnn_session * s, tnn_tensor t, const int32_t * data, int64_t n);
TNN_API int tnn_download(tnn_session * s, tnn_tensor t, float * data, int64_t n);                        /* f32, f16, bf16 */
TNN_API int tnn_download_to_int_array(tnn_session * s, tnn_tensor t, int32_t * data, int64_t n);
TNN_API int tnn_zero_tensor(tnn_session * s, tnn_tensor t);

/* ---- look inside ---- */
TNN_API int64_t tnn_tensor_ne0(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_ne1(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_ne2(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_ne3(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_nbytes(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_nelements(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_dtype(tnn_session * s, tnn_tensor t);
TNN_API int64_t tnn_tensor_flags(tnn_session * s, tnn_tensor t);
TNN_API const char * tnn_tensor_op_name(tnn_session * s, tnn_tensor t); /* ggml's name of the op; "NONE" for inputs; NULL on failure */
/* Operand i (0..9) of t; 0 with tnn_last_error_code == TNN_OK when t has none there. */
TNN_API tnn_tensor tnn_tensor_src(tnn_session * s, tnn_tensor t, int32_t i);
/* Nodes of graph b if it is built, else of the forward graph; 0 nodes before either. */
TNN_API int64_t tnn_graph_n_nodes(tnn_session * s);
TNN_API tnn_tensor tnn_graph_node(tnn_session * s, int64_t i);

/* ---- random streams of the reference's initialisation (no session) ---- */
enum tnn_random_kind {
    TNN_RANDOM_LCG31      = 0,
    TNN_RANDOM_XORSHIFT64 = 1
};
/* State of a new stream. Any seed. TNN_E_VALUE for an unknown kind. */
TNN_API int tnn_random_seed(int32_t kind, int64_t seed, uint64_t * state);
/* n values of N(0, std^2) by Box-Muller in f64 (the C library's log, cos, sin), rounded to f32; state moves on.
 * Each call starts a fresh pair and an odd n drops the last sine. */
TNN_API int tnn_random_gaussian(int32_t kind, uint64_t * state, double std, float * data, int64_t n);
/* cffi: end */

#endif
