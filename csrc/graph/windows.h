/* graph/windows.h - the windows of the batches of a training step. */
#ifndef TNN_WINDOWS_H
#define TNN_WINDOWS_H

#include "session.h"

/* Gives each gradient of the training graph its place in a stored node (kernels/window_sums.h). */
void tnn__windows_realize(tnn_session * s);
/* Prepares a batch of a step, and allocates the nodes that it stores. mode: the mode of tnn_train_step. Returns TNN_OK
 * or an error; after an error nothing has changed. */
int tnn__windows_begin(tnn_session * s, int32_t mode);
/* Ends the batch. done: whether the batch was computed. */
void tnn__windows_end(tnn_session * s, bool done);
/* Drops the batch that tnn_begin_step has begun, if there is one, together with its unfinished step. */
void tnn__abandon_batch(tnn_session * s);

#endif
