/* graph/declare.h - checks that a graph can take more tensors. */
#ifndef TNN_DECLARE_H
#define TNN_DECLARE_H

#include "session.h"

/* Checks that n more tensors may be appended to the graph now and fit its capacity. Returns false with an error. */
bool tnn__reserve_nodes(tnn_session * s, int n);

#endif
