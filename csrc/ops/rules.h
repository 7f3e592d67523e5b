/* ops/rules.h - the rules of ggml's operators: their derivatives, what they write, and which values must be checked.
 *
 * Each file of this folder has a table of rules beside its operators; rules.c lists the tables. An operator without a rule has no
 * derivative. */
#ifndef TNN_RULES_H
#define TNN_RULES_H

#include "graph/nodes.h"
#include "session.h"

#include "ggml-impl.h"

/* The tensors of a graph that need a gradient. */
struct tnn_grad_needs {
    const struct ggml_cgraph * graph;
    bool                     * needed; /* indexed by slot in the graph's hash set */
};
static inline bool tnn__grad_needed(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    return t != NULL && g->needed[ggml_hash_find(&g->graph->visited_hash_set, t)];
}

/* Fields that are not set are false, 0 or NULL. Masks are made of TNN_OPERAND(i). */
struct tnn_op_rule {
    enum ggml_op op;
    bool         differentiable; /* true if ggml's CPU backend has a derivative */
    /* If set, returns why ggml has no derivative for this node, or NULL if it has one. The text is the end of a
     * sentence whose subject is the node. */
    const char * (*refuses)(const struct tnn_grad_needs * g, const struct ggml_tensor * node);
    uint32_t     skips;          /* operands that ggml's backward pass ignores, although they may need a gradient */
    bool         optimizer_step; /* an optimizer step: the operands in the mask `writes` are a parameter and its moments */
    uint32_t     writes;         /* operands that the operator writes besides its result */
    /* Checks, before each compute, values (ids) on which ggml would abort. Returns TNN_OK or an error code. */
    int (*check)(tnn_session * s, const struct ggml_tensor * node);
};

/* The tables end with a row whose op is GGML_OP_NONE. */
extern const struct tnn_op_rule tnn__convolution_rules[], tnn__derivatives_rules[], tnn__experts_rules[], tnn__layout_rules[],
    tnn__recurrence_rules[];
extern const struct tnn_op_rule tnn__arithmetic_rules[], tnn__normalize_rules[], tnn__attention_rules[], tnn__rows_rules[],
    tnn__shape_rules[], tnn__copy_rules[], tnn__cross_entropy_rules[], tnn__optimizer_rules[];

/* Returns the rule of a node of ggml, or NULL. */
const struct tnn_op_rule * tnn__rule_of(const struct ggml_tensor * node);
/* Returns whether the node is an optimizer step, of ggml or of a kernel. */
bool tnn__is_optimizer_step(const struct ggml_tensor * node);
/* Returns a mask of the operands that a node, of ggml or a kernel, writes besides its result. */
uint32_t tnn__operands_written(const struct ggml_tensor * node);

#endif
