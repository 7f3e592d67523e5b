/* memory/plan.h - gives each tensor of a graph its place in one buffer. */
#ifndef TNN_PLAN_H
#define TNN_PLAN_H

#include "session.h"

/* Gives every tensor of the graph its place in s->buf_c. Returns TNN_OK or the code of the error. */
int tnn__plan_and_allocate(tnn_session * s, struct ggml_cgraph * graph);

#endif
