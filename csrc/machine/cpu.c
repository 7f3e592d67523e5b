/* machine/cpu.c - what this machine can run. Compiled for the baseline instruction set: it runs before anything else. */
#define _GNU_SOURCE
#include "kernels/gemm.h"
#include "session.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ instruction set */

#if defined(__x86_64__) && !defined(TNN_NATIVE)
const char * tnn_cpu_features(void) {
    return "sse4.2 avx avx2 fma f16c bmi2";
}

const char * tnn_cpu_missing(void) {
    static char missing[64];
    int used = 0;
    __builtin_cpu_init();
#define NEED(feature) { feature, __builtin_cpu_supports(feature) } /* which takes a literal only */
    const struct {
        const char * name;
        int          there;
    } needs[] = { NEED("sse4.2"), NEED("avx"), NEED("avx2"), NEED("fma"), NEED("bmi2"), NEED("f16c") };
#undef NEED
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        if (!needs[i].there) {
            used += snprintf(missing + used, sizeof(missing) - (size_t) used, used > 0 ? " %s" : "%s", needs[i].name);
        }
    }
    return missing;
}
#else
const char * tnn_cpu_features(void) {
    return "";
}

const char * tnn_cpu_missing(void) {
    return ""; /* aarch64: the baseline; native: the machine that built it */
}
#endif

#if defined(__x86_64__)
/* What csrc/kernels/gemm_avx512.c is compiled for. The compiler's runtime asks CPUID, and XGETBV whether the system keeps the
 * registers. */
bool tnn__cpu_has_avx512(void) {
    __builtin_cpu_init();
    const bool f = __builtin_cpu_supports("avx512f"), vl = __builtin_cpu_supports("avx512vl");
    const bool bw = __builtin_cpu_supports("avx512bw"), dq = __builtin_cpu_supports("avx512dq");
    return f & vl & bw & dq;
}
#endif

/* ------------------------------------------------------------------ what the system says */

bool tnn__read_start(const char * path, char * text, size_t size) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    size_t  used = 0;
    ssize_t got  = 1;
    while (got > 0 && used < size - 1) {
        got   = read(file, text + used, size - 1 - used);
        used += got > 0 ? (size_t) got : 0;
    }
    close(file);
    text[used] = '\0';
    return got >= 0;
}

uint64_t tnn__number_behind(const char * text, const char * prefix) {
    const char * at = strstr(text, prefix);
    uint64_t     value;
    return at != NULL && sscanf(at + strlen(prefix), "%" SCNu64, &value) == 1 ? value : UINT64_MAX;
}

/* ------------------------------------------------------------------ cores */

int32_t tnn_available_cores(void) {
    int cores = 0;
#if defined(__linux__)
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        cores = CPU_COUNT(&set);
    }
#endif
    if (cores < 1) {
        const long n = sysconf(_SC_NPROCESSORS_ONLN);
        cores = n > 0 ? (int) n : 1;
    }
    const int64_t granted = tnn__cgroup_cores();
    cores = granted < cores ? (int) granted : cores;
    return cores < 512 ? cores : 512;
}

/* ------------------------------------------------------------------ arithmetic */

void tnn__arithmetic_begin(fenv_t * callers) {
    fegetenv(callers);
    fesetenv(FE_DFL_ENV);
}

void tnn__arithmetic_end(const fenv_t * callers) {
    fesetenv(callers);
}
