/* graph/run.h - runs a realized graph. */
#ifndef TNN_RUN_H
#define TNN_RUN_H

#include "session.h"

/* Checks the inputs and runs the graph. seconds: NULL, or an array with one value for each node. With an array, the
 * nodes run one by one, and the array gets their times. */
int tnn__run(tnn_session * s, struct ggml_cgraph * graph, double * seconds);
/* Runs the graph like tnn__run, but the caller must have checked the inputs with tnn__check_inputs. */
int tnn__run_checked(tnn_session * s, struct ggml_cgraph * graph, double * seconds);
/* Checks the inputs and runs the nodes begin to end - 1 of the training graph. If the graph has groups,
 * each group must be wholly inside or wholly outside this range. */
int tnn__run_part(tnn_session * s, int begin, int end);

#endif
