/* graph/backward.h - what a training step does with graph b. */
#ifndef TNN_BACKWARD_H
#define TNN_BACKWARD_H

#include "session.h"

/* Before a compute: sets the gradient of the loss to 1 and, with moments, the moments to 0. */
int tnn__reset(tnn_session * s, bool moments);

#endif
