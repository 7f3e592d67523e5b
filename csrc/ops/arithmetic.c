/* ops/arithmetic.c - products, element-wise operators and sums. */
#include "ops/operands.h"
#include "ops/rules.h"

tnn_tensor tnn_matmul(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * w = tnn__tensor(s, "a", a);
    struct ggml_tensor * x = w != NULL ? tnn__tensor(s, "b", b) : NULL;
    if (x == NULL || !tnn__want_matrix_type(s, "a", w) || !tnn__want_type(s, "b", x, GGML_TYPE_F32) || !tnn__want_contiguous(s, "a", w)
        || !tnn__want_contiguous(s, "b", x)) {
        return 0;
    }
    if (w->ne[0] != x->ne[0] || x->ne[2] % w->ne[2] != 0 || x->ne[3] % w->ne[3] != 0) {
        tnn__fail(s, TNN_E_VALUE, "the tensor a has shape %s and the tensor b has shape %s; their ne0 must be equal, and ne2 and ne3 "
                                  "of b must be multiples of ne2 and ne3 of a",
                  tnn__shape(w), tnn__shape(x));
        return 0;
    }
    if (w->ne[1] > TNN_MAX_ELEMENTS / (x->ne[1] * x->ne[2] * x->ne[3])) {
        tnn__fail_elements(s, "the product");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_mul_mat(s->ctx_c, w, x)) : 0;
}

typedef struct ggml_tensor * (*binary_op)(struct ggml_context *, struct ggml_tensor *, struct ggml_tensor *);
typedef struct ggml_tensor * (*unary_op)(struct ggml_context *, struct ggml_tensor *);

static tnn_tensor binary(tnn_session * s, const char * call, binary_op op, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, call)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    struct ggml_tensor * y = x != NULL ? tnn__f32_operand(s, "b", b) : NULL;
    if (y == NULL) {
        return 0;
    }
    if (!ggml_can_repeat(y, x)) {
        tnn__fail(s, TNN_E_VALUE, "b has shape %s, but each size of b must divide the same size of the tensor a, of shape %s",
                  tnn__shape(y), tnn__shape(x));
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, op(s->ctx_c, x, y)) : 0;
}

tnn_tensor tnn_add(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    return binary(s, __func__, ggml_add, a, b);
}

tnn_tensor tnn_sub(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    return binary(s, __func__, ggml_sub, a, b);
}

tnn_tensor tnn_mul(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    return binary(s, __func__, ggml_mul, a, b);
}

tnn_tensor tnn_div(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    return binary(s, __func__, ggml_div, a, b);
}

tnn_tensor tnn_out_prod(tnn_session * s, tnn_tensor a, tnn_tensor b) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    struct ggml_tensor * y = x != NULL ? tnn__f32_operand(s, "b", b) : NULL;
    if (y == NULL) {
        return 0;
    }
    if (x->ne[1] != y->ne[1] || y->ne[2] % x->ne[2] != 0 || y->ne[3] % x->ne[3] != 0) {
        tnn__fail(s, TNN_E_VALUE, "the tensor a has shape %s and the tensor b has shape %s; their ne1 must be equal, and ne2 and ne3 "
                                  "of b must be multiples of ne2 and ne3 of a",
                  tnn__shape(x), tnn__shape(y));
        return 0;
    }
    if (x->ne[0] > TNN_MAX_ELEMENTS / (y->ne[0] * y->ne[2] * y->ne[3])) {
        tnn__fail_elements(s, "the product");
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_out_prod(s->ctx_c, x, y)) : 0;
}

tnn_tensor tnn_swiglu_split(tnn_session * s, tnn_tensor gate, tnn_tensor up) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * g = tnn__f32_operand(s, "gate", gate);
    struct ggml_tensor * u = g != NULL ? tnn__like_operand(s, "up", up, g, "gate") : NULL;
    return u != NULL && tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_swiglu_split(s->ctx_c, g, u)) : 0;
}

tnn_tensor tnn_scale_bias(tnn_session * s, tnn_tensor a, float factor, float bias) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    if (x == NULL || !tnn__want_finite(s, "factor", factor) || !tnn__want_finite(s, "bias", bias) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_scale_bias(s->ctx_c, x, factor, bias));
}

tnn_tensor tnn_scale(tnn_session * s, tnn_tensor a, float factor) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    if (x == NULL || !tnn__want_finite(s, "factor", factor) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_scale(s->ctx_c, x, factor));
}

static tnn_tensor unary(tnn_session * s, const char * call, unary_op op, tnn_tensor a) {
    if (!tnn__enter(s, call)) {
        return 0;
    }
    struct ggml_tensor * x = tnn__f32_operand(s, "a", a);
    return x != NULL && tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, op(s->ctx_c, x)) : 0;
}

tnn_tensor tnn_silu(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_silu, a);
}

tnn_tensor tnn_gelu(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_gelu, a);
}

tnn_tensor tnn_tanh(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_tanh, a);
}

tnn_tensor tnn_exp(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_exp, a);
}

tnn_tensor tnn_neg(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_neg, a);
}

tnn_tensor tnn_softplus(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_softplus, a);
}

tnn_tensor tnn_sigmoid(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_sigmoid, a);
}

/* ggml's backward pass ends at a STEP, whose derivative is 0. When the graph is realized, tnn__losses_seal turns the
 * STEP into a copy. */
tnn_tensor tnn_detach(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_step, a);
}

tnn_tensor tnn_sqrt(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_sqrt, a);
}

tnn_tensor tnn_sum(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_sum, a);
}

tnn_tensor tnn_sum_rows(tnn_session * s, tnn_tensor a) {
    return unary(s, __func__, ggml_sum_rows, a);
}

/* ------------------------------------------------------------------ derivatives */

static const char * refuses_sub(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    return tnn__grad_needed(g, t->src[1]) && !ggml_are_same_shape(t->src[0], t->src[1])
         ? "ggml has no derivative for a tensor b that is repeated; use tnn_add of the scaled b" : NULL;
}

static const char * refuses_div(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    return tnn__grad_needed(g, t->src[1]) && !ggml_are_same_shape(t->src[0], t->src[1])
         ? "ggml has no derivative for a tensor b that is repeated; use tnn_repeat first" : NULL;
}

static const char * refuses_mul_mat(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    const struct ggml_tensor * a = t->src[0], * b = t->src[1];
    if (tnn__grad_needed(g, b) && ggml_is_quantized(a->type) && (a->ne[2] != b->ne[2] || a->ne[3] != b->ne[3])) {
        return "ggml has no derivative for a quantized tensor a that is repeated";
    }
    if (tnn__grad_needed(g, a) && (a->ne[2] != b->ne[2] || a->ne[3] != b->ne[3]) && b->ne[3] != 1) {
        return "ggml has no derivative for a tensor a that is repeated over ne3";
    }
    return NULL;
}

static const char * refuses_unary(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    const enum ggml_unary_op op = ggml_get_unary_op(t);
    (void) g;
    return op != GGML_UNARY_OP_SILU && op != GGML_UNARY_OP_EXP && op != GGML_UNARY_OP_NEG && op != GGML_UNARY_OP_SOFTPLUS
         ? "ggml has no derivative for it" : NULL;
}

const struct tnn_op_rule tnn__arithmetic_rules[] = {
    { .op = GGML_OP_MUL_MAT, .differentiable = true, .refuses = refuses_mul_mat },
    { .op = GGML_OP_ADD, .differentiable = true },
    { .op = GGML_OP_SUB, .differentiable = true, .refuses = refuses_sub },
    { .op = GGML_OP_MUL, .differentiable = true },
    { .op = GGML_OP_DIV, .differentiable = true, .refuses = refuses_div },
    { .op = GGML_OP_GLU, .differentiable = true },
    { .op = GGML_OP_SCALE, .differentiable = true },
    { .op = GGML_OP_UNARY, .differentiable = true, .refuses = refuses_unary },
    { .op = GGML_OP_SQRT, .differentiable = true },
    { .op = GGML_OP_SUM, .differentiable = true },
    { .op = GGML_OP_SUM_ROWS, .differentiable = true },
    { .op = GGML_OP_NONE },
};
