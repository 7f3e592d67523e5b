/* ops/optimizer.h - checks the operands of the optimizer steps. */
#ifndef TNN_OPTIMIZER_H
#define TNN_OPTIMIZER_H

#include "session.h"

#define TNN_ADAMW_OPERANDS 5
#define TNN_MUON_OPERANDS  4

/* f32 [n] */
struct ggml_tensor * tnn__hyper_parameters(tnn_session * s, tnn_tensor hp, int64_t n);
/* Returns the operand step: an i32 input [1] with the number of a step whose moments are rounded to bfloat16. */
struct ggml_tensor * tnn__step_operand(tnn_session * s, tnn_tensor step);
/* Fills args with w, grad, m, v and hp [7]. moments: the type of m and v. Returns false with an error. */
bool tnn__adamw_operands(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp,
                         enum ggml_type moments, struct ggml_tensor * args[TNN_ADAMW_OPERANDS]);
/* Fills args with w, which is a matrix, grad, m and hp [3]. moments: the type of m. Returns false with an error. */
bool tnn__muon_operands(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor hp,
                        enum ggml_type moments, struct ggml_tensor * args[TNN_MUON_OPERANDS]);

#endif
