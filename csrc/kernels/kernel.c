/* kernels/kernel.c - kernel nodes: how they are made, found, run and freed. */
#include "kernels/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "ggml-impl.h"

static const struct {
    const char   * name;
    tnn_kernel_fun run;
} KERNELS[TNN_K_COUNT] = {
    [TNN_K_LINEAR]              = { "LINEAR", tnn__linear },
    [TNN_K_LINEAR_BACK_X]       = { "LINEAR_BACK_X", tnn__linear_back_x },
    [TNN_K_LINEAR_BACK_W]       = { "LINEAR_BACK_W", tnn__linear_back_w },
    [TNN_K_LINEAR_BACK_BIAS]    = { "LINEAR_BACK_BIAS", tnn__linear_back_bias },
    [TNN_K_RMS_NORM]            = { "RMS_NORM_GAMMA", tnn__rms_norm },
    [TNN_K_RMS_NORM_BACK_X]     = { "RMS_NORM_BACK_X", tnn__rms_norm_back_x },
    [TNN_K_RMS_NORM_BACK_GAMMA] = { "RMS_NORM_BACK_GAMMA", tnn__rms_norm_back_gamma },
    [TNN_K_ROPE_TABLE]          = { "ROPE_TABLE", tnn__rope_table },
    [TNN_K_ATTENTION]           = { "ATTENTION", tnn__attention },
    [TNN_K_ATTENTION_BACK]      = { "ATTENTION_BACK", tnn__attention_back },
    [TNN_K_ATTENTION_CACHED]    = { "ATTENTION_CACHED", tnn__attention_cached },
    [TNN_K_SWIGLU]              = { "SWIGLU", tnn__swiglu },
    [TNN_K_SWIGLU_BACK]         = { "SWIGLU_BACK", tnn__swiglu_back },
    [TNN_K_CROSS_ENTROPY_ROWS]  = { "CROSS_ENTROPY_ROWS", tnn__cross_entropy_rows },
    [TNN_K_CROSS_ENTROPY]       = { "CROSS_ENTROPY", tnn__cross_entropy },
    [TNN_K_CROSS_ENTROPY_BACK]  = { "CROSS_ENTROPY_BACK", tnn__cross_entropy_back },
    [TNN_K_EMBEDDING_BACK]      = { "EMBEDDING_BACK", tnn__embedding_back },
    [TNN_K_GRAD_SQUARES]        = { "GRAD_SQUARES", tnn__grad_squares },
    [TNN_K_GRAD_NORM]           = { "GRAD_NORM", tnn__grad_norm },
    [TNN_K_ADAMW]               = { "ADAMW", tnn__adamw },
};

static size_t padded(size_t size) {
    return GGML_PAD(size, 64);
}

static void run_kernel(struct ggml_tensor * dst, int ith, int nth, void * userdata) {
    const struct tnn_kernel * k       = userdata;
    void                    * scratch = k->s->scratch; /* NULL where no kernel of the graph needs any */
    if (scratch != NULL) {
        scratch = (char *) scratch + (size_t) ith * padded(k->s->scratch_per_thread);
    }
    if (!k->s->in_groups || k->n_members == 0) {
        KERNELS[k->kind].run(k, dst, ith, nth, scratch);
        return;
    }
    for (int i = 0; i < k->n_members; i++) {
        const struct tnn_kernel * member = tnn__kernel_of(k->s, k->members[i]);
        KERNELS[member->kind].run(member, k->members[i], ith, nth, scratch);
    }
}

struct ggml_tensor * tnn__kernel_node(tnn_session * s, const struct tnn_kernel * like, int64_t ne0, int64_t ne1,
                                      struct ggml_tensor ** args, int n_args) {
    struct tnn_kernel * k = calloc(1, sizeof(*k));
    if (k == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "no memory for a node");
        return NULL;
    }
    *k      = *like;
    k->s    = s;
    k->next = s->kernels;
    s->kernels = k;
    s->n_tensors_c++;
    return ne0 == 0 ? ggml_custom_inplace(s->ctx_c, args[0], args + 1, n_args - 1, run_kernel, GGML_N_TASKS_MAX, k)
                    : ggml_custom_4d(s->ctx_c, GGML_TYPE_F32, ne0, ne1, 1, 1, args, n_args, run_kernel, GGML_N_TASKS_MAX, k);
}

struct tnn_kernel * tnn__kernel_of(const tnn_session * s, const struct ggml_tensor * node) {
    struct ggml_custom_op_params params;
    (void) s;
    if (node->op != GGML_OP_CUSTOM) {
        return NULL;
    }
    memcpy(&params, node->op_params, sizeof(params));
    return params.fun == run_kernel ? params.userdata : NULL;
}

const char * tnn__kernel_name(const struct tnn_kernel * k) {
    return KERNELS[k->kind].name;
}

void tnn__kernels_free(tnn_session * s) {
    for (struct tnn_kernel * k = s->kernels, * next; k != NULL; k = next) {
        next = k->next;
        free(k);
    }
    s->kernels = NULL;
    tnn__groups_free(s);
}

int tnn__kernels_reserve_scratch(tnn_session * s) {
    size_t per_thread = 0;
    for (const struct tnn_kernel * k = s->kernels; k != NULL; k = k->next) {
        per_thread = k->scratch > per_thread ? k->scratch : per_thread;
    }
    const size_t size = padded(per_thread) * (size_t) s->n_threads;
    if (size > s->scratch_size) {
        void * scratch = tnn__aligned_alloc(s, size, "the threads' scratch space");
        if (scratch == NULL) {
            return s->code;
        }
        free(s->scratch);
        s->scratch      = scratch;
        s->scratch_size = size;
    }
    s->scratch_per_thread = per_thread;
    return TNN_OK;
}
