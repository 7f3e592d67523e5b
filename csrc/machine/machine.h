/* machine/machine.h - the CPU, the memory and the limits of this process. The files of this folder are compiled for the
 * baseline instruction set, because tnn_cpu_missing must run on any CPU. */
#ifndef TNN_MACHINE_H
#define TNN_MACHINE_H

#include "tinynn.h"

#include <fenv.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- files of the system (files.c) ---- */
/* Reads the first size - 1 bytes of a file as a string, without allocating memory. */
bool tnn__read_start(const char * path, char * text, size_t size);
/* Returns the first number after the first prefix in a text, or UINT64_MAX. */
uint64_t tnn__number_behind(const char * text, const char * prefix);

/* ---- limits of this process's control groups (cgroup.c) ---- */
uint64_t tnn__cgroup_memory(void); /* bytes, or UINT64_MAX */
int64_t  tnn__cgroup_cores(void);  /* at least 1, or INT64_MAX */

/* ---- memory (available_memory.c) ---- */
/* Returns the bytes that can still be allocated: the machine's available memory, within the limits of the control
 * groups. */
uint64_t tnn__memory_available(void);

/* ---- huge pages (huge_pages.c) ---- */
/* Lets the system use huge pages for new memory, if it is large. The CPU keeps the addresses of a limited number of pages.
 * If a kernel reads rows from more pages, the CPU must look up addresses again, which is slow in a virtual machine. */
void tnn__prefer_huge_pages(void * memory, size_t size);

/* ---- CPU (cpu.c) ---- */
/* Between these two calls the thread rounds to nearest and keeps denormals, even if another mode was set before, for
 * example by loading a library that was built with fast-math. Threads that start between the calls inherit this mode. */
void tnn__arithmetic_begin(fenv_t * callers);
void tnn__arithmetic_end(const fenv_t * callers);
#if defined(__x86_64__)
/* Returns whether this CPU and its system support vectors of sixteen floats (AVX-512). */
bool tnn__cpu_has_avx512(void);
/* Returns whether the CPU also has vdpbf16ps. */
bool tnn__cpu_has_avx512_bf16(void);
bool tnn__cpu_is_amd(void);
#endif

#endif
