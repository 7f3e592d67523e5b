/* graph/schedule.h - the order in which the nodes of graph b run. */
#ifndef TNN_SCHEDULE_H
#define TNN_SCHEDULE_H

#include "session.h"

/* Moves each optimizer step up to where its gradient is complete and its weight was read for the last time (schedule.c). */
int tnn__schedule_steps(tnn_session * s, struct ggml_cgraph * graph);
/* Orders the nodes so that those which need no barrier between them are side by side, as s->group_end states (groups.c). */
int tnn__group_nodes(tnn_session * s, struct ggml_cgraph * graph);
/* Once the order is final: makes the graph that ggml runs, s->leaders (groups.c). */
int tnn__groups_seal(tnn_session * s, struct ggml_cgraph * graph);

#endif
