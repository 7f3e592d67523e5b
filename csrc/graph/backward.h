/* graph/backward.h - prepares the training graph ("graph b") for a compute. */
#ifndef TNN_BACKWARD_H
#define TNN_BACKWARD_H

#include "session.h"

/* Sets the gradient of the loss to 1, and the moments to 0 if `moments` is true. Call it before a compute. */
int tnn__reset(tnn_session * s, bool moments);

#endif
