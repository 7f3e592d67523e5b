/* memory/allocate.h - allocates memory. If that fails, the error of the session names what the memory was for. */
#ifndef TNN_ALLOCATE_H
#define TNN_ALLOCATE_H

#include "session.h"

/* Returns size bytes aligned to 64, to be freed with free(), or NULL with an error. what: a noun phrase, e.g. "the plan of a graph". */
void * tnn__aligned_alloc(tnn_session * s, size_t size, const char * what);
/* Returns size zero bytes, aligned as malloc does, to be freed with free(), or NULL with an error. */
void * tnn__zeroed_alloc(tnn_session * s, size_t size, const char * what);
/* Returns size zero bytes, aligned to 64, that tnn_reset_for_rebuild frees, or NULL with an error. */
void * tnn__graph_alloc(tnn_session * s, size_t size, const char * what);
/* Returns a CPU buffer of size bytes, or NULL with an error. what: a noun phrase in the plural, e.g. "the weights". */
ggml_backend_buffer_t tnn__buffer_alloc(tnn_session * s, size_t size, const char * what);
/* Calls tnn__reserve_open; if that fails, sets the error of the session. */
bool tnn__reserve_for_ggml(tnn_session * s, struct tnn_reserve * r, struct tnn_needs needs);

#endif
