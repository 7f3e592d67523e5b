/* graph/half_products.h - the backward pass of products with f16 and bf16 matrices. */
#ifndef TNN_HALF_PRODUCTS_H
#define TNN_HALF_PRODUCTS_H

#include "session.h"

#include "ggml-impl.h"

/* Returns whether t is the result of a tnn_cast from f32 to f16 or bf16. */
bool tnn__is_half_cast(const struct ggml_tensor * t);
/* Returns the largest number of tensors that tnn__backward_expand adds to a graph, besides the tensors that ggml
 * adds. */
int64_t tnn__half_product_tensors(const struct ggml_cgraph * graph);
/* Calls ggml_build_backward_expand for graphs that tnn__check_differentiable accepts. */
void tnn__backward_expand(tnn_session * s, struct ggml_cgraph * graph);

#endif
