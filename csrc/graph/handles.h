/* graph/handles.h - handles, the numbers that stand for tensors outside of the shim. */
#ifndef TNN_HANDLES_H
#define TNN_HANDLES_H

#include "session.h"

/* Returns the tensor of a handle, or NULL with an error that names the argument. */
struct ggml_tensor * tnn__tensor(tnn_session * s, const char * arg, tnn_tensor h);
struct tnn_entry * tnn__entry(tnn_session * s, const char * arg, tnn_tensor h);
/* Returns the entry of a tensor of this session, or NULL if the tensor has no handle. */
struct tnn_entry * tnn__entry_of(tnn_session * s, const struct ggml_tensor * t);
/* Returns the handle of a tensor of the compute context, and makes a handle if the tensor has none. Returns 0 for
 * NULL, or with an error. */
tnn_tensor tnn__handle(tnn_session * s, struct ggml_tensor * t);
/* Returns whether t is a weight of a session, not a tensor of a graph. */
bool tnn__is_persistent(const struct ggml_tensor * t);

/* Returns whether dtype is the number of a type whose matrices ggml's CPU backend multiplies: F32, F16, BF16, or a
 * quantized type that can be converted to f32. */
bool tnn__is_matrix_type(int32_t dtype);

/* Makes sure that the table has space for one more entry. Returns false with an error. */
bool tnn__table_grow(tnn_session * s, struct tnn_table * table);
/* Adds an entry for t and returns its handle, or 0 with an error. */
tnn_tensor tnn__table_add(tnn_session * s, struct tnn_table * table, uint64_t generation, struct ggml_tensor * t);

struct tnn_shape {
    char text[96]; /* long enough for four numbers of 20 digits */
};
struct tnn_shape tnn__shape_of(const struct ggml_tensor * t);
/* Returns the shape of t as text, "[a, b, c]", without sizes of 1 at the end. The text is valid until the end of the
 * expression that contains the call. */
#define tnn__shape(t) (tnn__shape_of(t).text)

#endif
