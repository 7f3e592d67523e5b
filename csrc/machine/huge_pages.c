/* machine/huge_pages.c - asks the system for huge pages. */
#define _GNU_SOURCE
#include "machine/machine.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((uintptr_t) 2 << 20) /* the size on x86-64, and on aarch64 with pages of 4 KiB */
#define SMALLEST  (4 * HUGE_PAGE)       /* smaller memory would gain little */

void tnn__prefer_huge_pages(void * memory, size_t size) {
#if defined(MADV_HUGEPAGE)
    if (memory != NULL && size >= SMALLEST) {
        const uintptr_t begin = ((uintptr_t) memory + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1), end = ((uintptr_t) memory + size) & ~(HUGE_PAGE - 1);
        (void) madvise((void *) begin, end - begin, MADV_HUGEPAGE); /* without huge pages, the memory is only slower */
    }
#else
    (void) memory;
    (void) size;
#endif
}
