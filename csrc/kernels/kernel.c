/* kernels/kernel.c - makes, finds and runs kernel nodes. */
#include "kernels/kernel.h"

#include "memory/allocate.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"

static size_t padded(size_t size) {
    return GGML_PAD(size, 64);
}

static void run_kernel(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    const struct tnn_kernel * k       = userdata;
    void                    * scratch = k->s->scratch; /* NULL if no kernel of the graph needs scratch memory */
    if (scratch != NULL) {
        scratch = (char *) scratch + (size_t) ith * padded(k->s->scratch_per_thread);
    }
    if (!k->s->in_groups || k->n_members == 0) {
        k->type->run(k, dst, ith, nth, scratch);
        return;
    }
    for (int i = 0; i < k->n_members; i++) {
        const struct tnn_kernel * member = tnn__kernel_of(k->members[i]);
        member->type->run(member, k->members[i], ith, nth, scratch);
    }
}

struct ggml_tensor * tnn__kernel_node(tnn_session * s, const struct tnn_kernel_type * type, const void * params, int64_t ne0, int64_t ne1,
                                      struct ggml_tensor ** args, int n_args) {
    const int64_t ne[GGML_MAX_DIMS] = { ne0, ne1, 1, 1 };
    return tnn__kernel_node_of(s, type, params, GGML_TYPE_F32, ne, args, n_args);
}

struct ggml_tensor * tnn__kernel_node_of(tnn_session * s, const struct tnn_kernel_type * type, const void * params, enum ggml_type dtype,
                                         const int64_t ne[GGML_MAX_DIMS], struct ggml_tensor ** args, int n_args) {
    const size_t params_at = GGML_PAD(sizeof(struct tnn_kernel), 16), state_at = params_at + GGML_PAD(type->params_size, 16);
    char       * memory    = tnn__graph_alloc(s, state_at + type->state_size, "a node");
    if (memory == NULL) {
        return NULL;
    }
    struct tnn_kernel * k = (struct tnn_kernel *) memory;
    *k = (struct tnn_kernel) { .type = type, .s = s, .params = memory + params_at, .state = memory + state_at };
    if (type->params_size > 0) {
        memcpy(memory + params_at, params, type->params_size);
    }
    const size_t scratch = type->scratch != NULL ? type->scratch(params) : 0;
    s->scratch_per_thread = scratch > s->scratch_per_thread ? scratch : s->scratch_per_thread;
    s->n_tensors_c++;
    return ne[0] == 0 ? ggml_custom_inplace(s->ctx_c, args[0], args + 1, n_args - 1, run_kernel, GGML_N_TASKS_MAX, k)
                      : ggml_custom_4d(s->ctx_c, dtype, ne[0], ne[1], ne[2], ne[3], args, n_args, run_kernel, GGML_N_TASKS_MAX, k);
}

struct tnn_kernel * tnn__kernel_of(const struct ggml_tensor * node) {
    struct ggml_custom_op_params params;
    if (node->op != GGML_OP_CUSTOM) {
        return NULL;
    }
    memcpy(&params, node->op_params, sizeof(params));
    return params.fun == run_kernel ? params.userdata : NULL;
}

int tnn__kernels_reserve_scratch(tnn_session * s) {
    const size_t size = padded(s->scratch_per_thread) * (size_t) s->n_threads;
    if (size > s->scratch_size) {
        void * scratch = tnn__aligned_alloc(s, size, "the threads' scratch memory");
        if (scratch == NULL) {
            return s->code;
        }
        free(s->scratch);
        s->scratch      = scratch;
        s->scratch_size = size;
    }
    return TNN_OK;
}
