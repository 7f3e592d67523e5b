/* ops/rules.c - finds the rule of an operator. */
#include "ops/rules.h"

#include "kernels/kernel.h"

#include <pthread.h>

static const struct tnn_op_rule * const TABLES[] = {
    tnn__arithmetic_rules, tnn__normalize_rules, tnn__attention_rules,     tnn__rows_rules,
    tnn__shape_rules,      tnn__copy_rules,      tnn__cross_entropy_rules, tnn__optimizer_rules,
    tnn__layout_rules,     tnn__experts_rules,   tnn__convolution_rules,   tnn__recurrence_rules, tnn__derivatives_rules,
};

static const struct tnn_op_rule * g_by_op[GGML_OP_COUNT];

static void index_tables(void) {
    for (size_t i = 0; i < sizeof(TABLES) / sizeof(TABLES[0]); i++) {
        for (const struct tnn_op_rule * rule = TABLES[i]; rule->op != GGML_OP_NONE; rule++) {
            g_by_op[rule->op] = rule;
        }
    }
}

const struct tnn_op_rule * tnn__rule_of(const struct ggml_tensor * node) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, index_tables);
    return g_by_op[node->op];
}

bool tnn__is_optimizer_step(const struct ggml_tensor * node) {
    const struct tnn_kernel  * k    = tnn__kernel_of(node);
    const struct tnn_op_rule * rule = tnn__rule_of(node);
    return k != NULL ? k->type->optimizer_step : rule != NULL && rule->optimizer_step;
}

uint32_t tnn__operands_written(const struct ggml_tensor * node) {
    const struct tnn_kernel  * k    = tnn__kernel_of(node);
    const struct tnn_op_rule * rule = tnn__rule_of(node);
    return k != NULL ? k->type->writes : rule != NULL ? rule->writes : 0;
}
