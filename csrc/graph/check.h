/* graph/check.h - finds problems on which ggml would abort, before ggml is called. */
#ifndef TNN_CHECK_H
#define TNN_CHECK_H

#include "session.h"

/* Checks that every node between a parameter and the loss has a derivative that ggml's CPU backend computes. */
int tnn__check_differentiable(tnn_session * s, const struct ggml_cgraph * gf);
/* Checks that every input is uploaded and that every id is in range. */
int tnn__check_inputs(tnn_session * s, const struct ggml_cgraph * graph);

#endif
