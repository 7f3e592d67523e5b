/* ops/rules.h - what the shim must know about the operators of ggml, besides how to append them.
 *
 * Each file of this folder has a table of rules beside its operators; rules.c lists the tables. An operator without a rule has no
 * derivative. */
#ifndef TNN_RULES_H
#define TNN_RULES_H

#include "graph/nodes.h"
#include "session.h"

#include "ggml-impl.h"

/* Which tensors of a graph need a gradient. */
struct tnn_grad_needs {
    const struct ggml_cgraph * graph;
    bool                     * needed; /* by slot in the graph's hash set */
};
static inline bool tnn__grad_needed(const struct tnn_grad_needs * g, const struct ggml_tensor * t) {
    return t != NULL && g->needed[ggml_hash_find(&g->graph->visited_hash_set, t)];
}

/* Fields that are not set are false, 0 or NULL. Masks are made of TNN_OPERAND(i). */
struct tnn_op_rule {
    enum ggml_op op;
    bool         differentiable; /* ggml's CPU backend has a derivative, ... */
    /* ... except if this returns why it has none for this node: the end of a sentence whose subject is the node. */
    const char * (*refuses)(const struct tnn_grad_needs * g, const struct ggml_tensor * node);
    uint32_t     skips;          /* operands that ggml's backward ignores, although they may need a gradient */
    bool         optimizer_step; /* writes a parameter and its moments, which are the operands in writes */
    uint32_t     writes;         /* operands that it writes besides its result */
    /* Checks values (ids) that ggml would abort on, before each compute. Returns TNN_OK or the code of the error. */
    int (*check)(tnn_session * s, const struct ggml_tensor * node);
};

/* The tables end with a row whose op is GGML_OP_NONE. */
extern const struct tnn_op_rule tnn__arithmetic_rules[], tnn__normalize_rules[], tnn__attention_rules[], tnn__rows_rules[],
    tnn__shape_rules[], tnn__copy_rules[], tnn__cross_entropy_rules[], tnn__optimizer_rules[];

/* The rule of a node of ggml, or NULL. */
const struct tnn_op_rule * tnn__rule_of(const struct ggml_tensor * node);
/* Is the node an optimizer step, of ggml or of a kernel? */
bool tnn__is_optimizer_step(const struct ggml_tensor * node);
/* The operands that a node of ggml or a kernel writes besides its result, as a mask. */
uint32_t tnn__operands_written(const struct ggml_tensor * node);

#endif
