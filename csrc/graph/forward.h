/* graph/forward.h - expands a graph from its result. */
#ifndef TNN_FORWARD_H
#define TNN_FORWARD_H

#include "session.h"

/* Appends to a graph the ancestors of t, then t. */
int tnn__expand(tnn_session * s, struct ggml_cgraph * graph, struct ggml_tensor * t);
/* Makes the graph if it is NULL, and appends the ancestors of out, then out. arg is the name of this argument in the
 * call, for errors. If the call fails, the graph has the same nodes as before. */
int tnn__expand_for(tnn_session * s, struct ggml_cgraph ** graph, const char * arg, tnn_tensor out);
/* Removes the nodes from n_nodes on, which must be the last that were appended. */
void tnn__truncate(struct ggml_cgraph * graph, int n_nodes);
/* Expands the forward graph of out. arg is the name of this argument in the call, for errors. */
int tnn__build_forward(tnn_session * s, tnn_tensor out, const char * arg);

#endif
