/* ops/optimizer.c - ggml's optimizer steps. */
#include "ops/optimizer.h"

#include "ops/operands.h"
#include "ops/rules.h"

/* Returns an operand that must be contiguous, of the given type, and have w's shape. */
static struct ggml_tensor * like(tnn_session * s, const char * arg, tnn_tensor h, const struct ggml_tensor * w, enum ggml_type type) {
    struct ggml_tensor * t = tnn__tensor(s, arg, h);
    if (t == NULL || !tnn__want_type(s, arg, t, type) || !tnn__want_contiguous(s, arg, t)) {
        return NULL;
    }
    if (!ggml_are_same_shape(t, w)) {
        tnn__fail(s, TNN_E_VALUE, "%s has shape %s, but it must have the shape of w, %s", arg, tnn__shape(t), tnn__shape(w));
        return NULL;
    }
    return t;
}

static struct ggml_tensor * parameter_operand(tnn_session * s, tnn_tensor w) {
    struct ggml_tensor * t = tnn__f32_operand(s, "w", w);
    if (t != NULL && !(t->flags & GGML_TENSOR_FLAG_PARAM)) {
        tnn__fail(s, TNN_E_VALUE, "w (%s) is not a parameter; call tnn_set_param first", ggml_get_name(t));
        return NULL;
    }
    return t;
}

/* A tensor that the optimizer writes must own its memory, so it must be an input. */
static bool want_input(tnn_session * s, const char * arg, const struct ggml_tensor * t) {
    if (t->op == GGML_OP_NONE) {
        return true;
    }
    tnn__fail(s, TNN_E_VALUE, "%s is the result of an operator (%s), but it must be a declared tensor",
              arg, ggml_op_name(t->op));
    return false;
}

struct ggml_tensor * tnn__hyper_parameters(tnn_session * s, tnn_tensor hp, int64_t n) {
    struct ggml_tensor * t = tnn__f32_operand(s, "hp", hp);
    if (t != NULL && ggml_nelements(t) != n) {
        tnn__fail(s, TNN_E_VALUE, "hp has shape %s, but it must be [%lld]", tnn__shape(t), (long long) n);
        return NULL;
    }
    return t;
}

struct ggml_tensor * tnn__step_operand(tnn_session * s, tnn_tensor step) {
    struct ggml_tensor * t = tnn__index_operand(s, "step", step);
    if (t != NULL && ggml_nelements(t) != 1) {
        tnn__fail(s, TNN_E_VALUE, "step has shape %s, but it must be [1]", tnn__shape(t));
        return NULL;
    }
    return t;
}

bool tnn__adamw_operands(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp,
                         enum ggml_type moments, struct ggml_tensor * args[TNN_ADAMW_OPERANDS]) {
    struct ggml_tensor * tw = parameter_operand(s, w);
    struct ggml_tensor * tg = tw != NULL ? like(s, "grad", grad, tw, GGML_TYPE_F32) : NULL;
    struct ggml_tensor * tm = tg != NULL ? like(s, "m", m, tw, moments) : NULL;
    struct ggml_tensor * tv = tm != NULL ? like(s, "v", v, tw, moments) : NULL;
    struct ggml_tensor * th = tv != NULL ? tnn__hyper_parameters(s, hp, 7) : NULL;
    if (th == NULL || !want_input(s, "m", tm) || !want_input(s, "v", tv)) {
        return false;
    }
    /* The threads of a step write w, m and v. If w, m or v shared memory with each other or with another operand, a
     * thread could read values that another thread has already changed. */
    struct ggml_tensor * const written[] = { tw, tm, tv };
    if (!tnn__want_apart(s, "m", tm, written, 1) || !tnn__want_apart(s, "v", tv, written, 2)
        || !tnn__want_apart(s, "grad", tg, written, 3) || !tnn__want_apart(s, "hp", th, written, 3)) {
        return false;
    }
    args[0] = tw;
    args[1] = tg;
    args[2] = tm;
    args[3] = tv;
    args[4] = th;
    return true;
}

bool tnn__muon_operands(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor hp,
                        enum ggml_type moments, struct ggml_tensor * args[TNN_MUON_OPERANDS]) {
    struct ggml_tensor * tw = parameter_operand(s, w);
    if (tw == NULL || !tnn__want_matrix(s, "w", tw)) {
        return false;
    }
    struct ggml_tensor * tg = like(s, "grad", grad, tw, GGML_TYPE_F32);
    struct ggml_tensor * tm = tg != NULL ? like(s, "m", m, tw, moments) : NULL;
    struct ggml_tensor * th = tm != NULL ? tnn__hyper_parameters(s, hp, 3) : NULL;
    if (th == NULL || !want_input(s, "m", tm)) {
        return false;
    }
    struct ggml_tensor * const written[] = { tw, tm };
    if (!tnn__want_apart(s, "m", tm, written, 1) || !tnn__want_apart(s, "grad", tg, written, 2)
        || !tnn__want_apart(s, "hp", th, written, 2)) {
        return false;
    }
    args[0] = tw;
    args[1] = tg;
    args[2] = tm;
    args[3] = th;
    return true;
}

tnn_tensor tnn_opt_step_adamw(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor m, tnn_tensor v, tnn_tensor hp) {
    struct ggml_tensor * a[TNN_ADAMW_OPERANDS];
    if (!tnn__enter(s, __func__) || !tnn__adamw_operands(s, w, grad, m, v, hp, GGML_TYPE_F32, a) || !tnn__reserve_nodes(s, 1)) {
        return 0;
    }
    return tnn__appended(s, 1, ggml_opt_step_adamw(s->ctx_c, a[0], a[1], a[2], a[3], a[4]));
}

tnn_tensor tnn_opt_step_sgd(tnn_session * s, tnn_tensor w, tnn_tensor grad, tnn_tensor hp) {
    if (!tnn__enter(s, __func__)) {
        return 0;
    }
    struct ggml_tensor * tw = parameter_operand(s, w);
    struct ggml_tensor * tg = tw != NULL ? like(s, "grad", grad, tw, GGML_TYPE_F32) : NULL;
    struct ggml_tensor * th = tg != NULL ? tnn__hyper_parameters(s, hp, 2) : NULL;
    if (th == NULL) {
        return 0;
    }
    if (!tnn__want_apart(s, "grad", tg, &tw, 1) || !tnn__want_apart(s, "hp", th, &tw, 1)) {
        return 0;
    }
    return tnn__reserve_nodes(s, 1) ? tnn__appended(s, 1, ggml_opt_step_sgd(s->ctx_c, tw, tg, th)) : 0;
}

const struct tnn_op_rule tnn__optimizer_rules[] = {
    { .op = GGML_OP_OPT_STEP_ADAMW, .optimizer_step = true, .writes = TNN_OPERAND(2) | TNN_OPERAND(3) },
    { .op = GGML_OP_OPT_STEP_SGD, .optimizer_step = true },
    { .op = GGML_OP_NONE },
};
