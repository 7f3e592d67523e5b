/* graph/forward.h - expands a graph from its result. */
#ifndef TNN_FORWARD_H
#define TNN_FORWARD_H

#include "session.h"

/* Appends to a graph the ancestors of t, then t. */
int tnn__expand(tnn_session * s, struct ggml_cgraph * graph, struct ggml_tensor * t);
/* Expands the forward graph of out. arg is the name of this argument in the call, for errors. */
int tnn__build_forward(tnn_session * s, tnn_tensor out, const char * arg);

#endif
