/* memory/allocate.c - allocates memory from the system. If the system refuses, the error of the session names what the
 * memory was for. */
#include "memory/allocate.h"

#include "machine/machine.h"
#include "memory/release.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LARGE ((size_t) 16 << 20)

/* Linux can grant more memory than exists, and kills a process that then uses the memory. So large sizes are first
 * compared with the available memory. */
static bool is_available(size_t size) {
    return size < LARGE || (size < SIZE_MAX / 2 && size <= tnn__memory_available());
}

static void * allocated(tnn_session * s, void * memory, size_t size, const char * what) {
    if (memory == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "cannot allocate %s (%zu bytes): out of memory", what, size);
    }
    return memory;
}

void * tnn__aligned_alloc(tnn_session * s, size_t size, const char * what) {
    void * memory = is_available(size) ? aligned_alloc(64, GGML_PAD(size, 64)) : NULL;
    tnn__prefer_huge_pages(memory, size);
    return allocated(s, memory, size, what);
}

void * tnn__zeroed_alloc(tnn_session * s, size_t size, const char * what) {
    return allocated(s, is_available(size) ? calloc(1, size) : NULL, size, what);
}

void * tnn__graph_alloc(tnn_session * s, size_t size, const char * what) {
    struct tnn_block * block = tnn__aligned_alloc(s, 64 + size, what); /* one cache line for the header */
    if (block == NULL) {
        return NULL;
    }
    memset(block, 0, 64 + size);
    block->next = s->blocks_c;
    s->blocks_c = block;
    return (char *) block + 64;
}

bool tnn__reserve_for_ggml(tnn_session * s, struct tnn_reserve * r, struct tnn_needs needs) {
    if (!tnn__reserve_open(r, needs)) {
        tnn__fail(s, TNN_E_MEMORY, "cannot allocate the memory that ggml needs for itself: out of memory");
        return false;
    }
    return true;
}

ggml_backend_buffer_t tnn__buffer_alloc(tnn_session * s, size_t size, const char * what) {
    const double   gib       = (double) size / (1024.0 * 1024.0 * 1024.0);
    const uint64_t available = tnn__memory_available();
    if (size > available) {
        tnn__fail(s, TNN_E_MEMORY, "%s need %zu bytes (%.1f GiB), but %" PRIu64 " are available", what, size, gib, available);
        return NULL;
    }
    struct tnn_reserve reserve = { 0 }; /* memory for the buffer's header, and for the buffer itself if it is small */
    if (!tnn__reserve_for_ggml(s, &reserve, (struct tnn_needs) { .small = 2 })) {
        return NULL;
    }
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    tnn__reserve_close(&reserve);
    if (buffer == NULL) {
        tnn__fail(s, TNN_E_MEMORY, "%s need %zu bytes (%.1f GiB), which the system refused", what, size, gib);
        return NULL;
    }
    tnn__prefer_huge_pages(ggml_backend_buffer_get_base(buffer), size);
    return buffer;
}
