/* machine/available_memory.c - finds how much memory this process can still allocate. */
#define _GNU_SOURCE
#include "machine/machine.h"

#include <unistd.h>

/* Returns the memory that the operating system reports as available, or UINT64_MAX. stdio is not used, because it
 * allocates memory. */
static uint64_t kib_available(void) {
    char text[4096];
    return tnn__read_start("/proc/meminfo", text, sizeof(text)) ? tnn__number_behind(text, "MemAvailable:") : UINT64_MAX;
}

uint64_t tnn__memory_available(void) {
    const uint64_t kib       = kib_available();
    uint64_t       available = kib < UINT64_MAX / 1024 ? kib * 1024 : UINT64_MAX;
    if (available == UINT64_MAX) {
        const long pages = sysconf(_SC_PHYS_PAGES);
        const long size  = sysconf(_SC_PAGESIZE);
        available = pages > 0 && size > 0 ? (uint64_t) pages * (uint64_t) size : UINT64_MAX;
    }
    const uint64_t rest = tnn__cgroup_memory();
    return rest < available ? rest : available;
}

int64_t tnn_available_memory(void) {
    const uint64_t available = tnn__memory_available();
    return available < INT64_MAX ? (int64_t) available : INT64_MAX;
}
