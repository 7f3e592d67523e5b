/* machine/cpu.c - finds the instruction set and the number of cores, and sets the mode of arithmetic. */
#define _GNU_SOURCE
#include "machine/machine.h"

#include <sched.h>
#include <stdio.h>
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
/* This is a macro, because the builtin accepts only a literal. */
#define NEED(feature) { feature, __builtin_cpu_supports(feature) }
    const struct {
        const char * name;
        int          supported;
    } needs[] = { NEED("sse4.2"), NEED("avx"), NEED("avx2"), NEED("fma"), NEED("bmi2"), NEED("f16c") };
#undef NEED
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
        if (!needs[i].supported) {
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
    /* Nothing is missing: on aarch64 the profile is the baseline, and a native build runs on the machine that built
     * it. */
    return "";
}
#endif

#if defined(__x86_64__)
/* Returns whether the CPU has the instructions for which kernels/gemm_avx512.c is compiled. The compiler's runtime
 * reads CPUID, and checks with XGETBV that the system saves the registers. */
bool tnn__cpu_has_avx512(void) {
    __builtin_cpu_init();
    const bool f = __builtin_cpu_supports("avx512f"), vl = __builtin_cpu_supports("avx512vl");
    const bool bw = __builtin_cpu_supports("avx512bw"), dq = __builtin_cpu_supports("avx512dq");
    return f & vl & bw & dq;
}

bool tnn__cpu_has_avx512_bf16(void) {
    return tnn__cpu_has_avx512() && __builtin_cpu_supports("avx512bf16");
}

bool tnn__cpu_is_amd(void) {
    __builtin_cpu_init();
    return __builtin_cpu_is("amd");
}
#endif

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
