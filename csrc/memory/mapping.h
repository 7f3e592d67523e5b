/* memory/mapping.h - weights that are the pages of a file, which the caller has mapped for reading. */
#ifndef TNN_MAPPING_H
#define TNN_MAPPING_H

#include "session.h"

/* Returns the place of nbytes bytes at an offset in the file that was attached last, or NULL with an error. */
char * tnn__mapped_bytes(tnn_session * s, enum ggml_type type, int64_t offset, size_t nbytes);
/* Returns the buffer of the file that was attached last. */
ggml_backend_buffer_t tnn__mapped_buffer(const tnn_session * s);
/* Returns whether t is a mapped weight or a view of a mapped weight. Such a tensor must not be written. */
bool tnn__is_mapped(tnn_session * s, const struct ggml_tensor * t);

/* Prepares for reading the mapped files. Returns TNN_OK, or TNN_E_FILE if a file was changed since it was attached. */
int tnn__mappings_begin(tnn_session * s);
/* Returns TNN_OK, or TNN_E_FILE if a file was changed. After TNN_E_FILE, values that were computed since
 * tnn__mappings_begin may be wrong. */
int tnn__mappings_end(tnn_session * s);

#endif
