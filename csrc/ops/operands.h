/* ops/operands.h - checks of the arguments of operators.
 *
 * A function returns the tensor or true. If a check fails, it returns NULL or false, with an error that names the
 * argument. */
#ifndef TNN_OPERANDS_H
#define TNN_OPERANDS_H

#include "graph/declare.h"
#include "graph/handles.h"
#include "session.h"

/* Counts n appended nodes, and returns the handle of the last of them, `result`. */
tnn_tensor tnn__appended(tnn_session * s, int n, struct ggml_tensor * result);

bool tnn__want_type(tnn_session * s, const char * arg, const struct ggml_tensor * t, enum ggml_type type);
/* Checks that t is f32, f16 or bf16. */
bool tnn__want_float_type(tnn_session * s, const char * arg, const struct ggml_tensor * t);
/* Checks that t is f32, f16, bf16, or of a quantized type that ggml multiplies with f32 (tnn__is_matrix_type). */
bool tnn__want_matrix_type(tnn_session * s, const char * arg, const struct ggml_tensor * t);
/* Checks that t is not quantized, so that single elements can be addressed. */
bool tnn__want_elements(tnn_session * s, const char * arg, const struct ggml_tensor * t);
bool tnn__want_contiguous(tnn_session * s, const char * arg, const struct ggml_tensor * t);
bool tnn__want_matrix(tnn_session * s, const char * arg, const struct ggml_tensor * t);
/* Checks that the pointer list is not NULL and that 1 <= n <= limit. */
bool tnn__want_list(tnn_session * s, const char * arg, const tnn_tensor * list, int32_t n, int32_t limit);
bool tnn__want_finite(tnn_session * s, const char * arg, float x);
bool tnn__want_eps(tnn_session * s, float eps);
bool tnn__want_freq_base(tnn_session * s, float freq_base);
/* Returns an operand that must be f32 and contiguous. */
struct ggml_tensor * tnn__f32_operand(tnn_session * s, const char * arg, tnn_tensor h);
/* Returns an operand that must be f32, contiguous and two-dimensional. */
struct ggml_tensor * tnn__rows_operand(tnn_session * s, const char * arg, tnn_tensor h);
/* Returns an operand that must be an i32 vector whose values are known before the graph runs: an input, or a view of
 * an input. */
struct ggml_tensor * tnn__index_operand(tnn_session * s, const char * arg, tnn_tensor h);
/* Returns an operand that must be i32 and contiguous, with values below rows. The operand is an input, which tnn__check_ids
 * checks before each compute, or a result of tnn_argsort or tnn_top_k, whose values are known to be small enough. */
struct ggml_tensor * tnn__ids_operand(tnn_session * s, const char * arg, tnn_tensor h, int64_t rows);
/* Checks that ids are between 0 and rows - 1, before a compute. `of` is the tensor that has the rows. */
int tnn__check_ids(tnn_session * s, const struct ggml_tensor * ids, const struct ggml_tensor * of, int64_t rows);
/* Returns an operand that must be f32 and contiguous, and have the shape of x, the argument x_arg. */
struct ggml_tensor * tnn__like_operand(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * x, const char * x_arg);
/* Returns an operand that must be f32 [ne0 of x], with one value for each column of x. */
struct ggml_tensor * tnn__per_column(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * x);
/* Returns whether a and b share memory. */
bool tnn__same_memory(const struct ggml_tensor * a, const struct ggml_tensor * b);
/* Checks that t shares no memory with the n tensors that a node writes. */
bool tnn__want_apart(tnn_session * s, const char * arg, const struct ggml_tensor * t, struct ggml_tensor * const * written, int n);
/* Records the error of a result with more than TNN_MAX_ELEMENTS elements. */
void tnn__fail_elements(tnn_session * s, const char * what);

#endif
