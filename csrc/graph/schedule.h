/* graph/schedule.h - the order in which the nodes of the training graph run. */
#ifndef TNN_SCHEDULE_H
#define TNN_SCHEDULE_H

#include "session.h"

/* Puts each gradient that need not wait (tnn_kernel_type.at_once) immediately after the last node that computes one of
 * its operands. */
int tnn__schedule_gradients(tnn_session * s, struct ggml_cgraph * graph);
/* Moves each optimizer step to the first place at which its gradient is complete and no later node reads its weight
 * (schedule.c). */
int tnn__schedule_steps(tnn_session * s, struct ggml_cgraph * graph);
/* Orders the nodes so that nodes which need no barrier between them are neighbours, and records the groups in
 * s->group_end (groups.c). */
int tnn__group_nodes(tnn_session * s, struct ggml_cgraph * graph);
/* Makes the graph that ggml runs, s->leaders. Call this after the order of the nodes is final (groups.c). */
int tnn__groups_seal(tnn_session * s, struct ggml_cgraph * graph);

#endif
