/* options.c - options of the sanitizers in the fuzz target; ASAN_OPTIONS and UBSAN_OPTIONS override them. */

#define SEEN __attribute__((visibility("default"), used))

SEEN const char * __asan_default_options(void);
SEEN const char * __ubsan_default_options(void);

/* Allocations of more than 64 MiB fail. This tests how toynn handles missing memory, and keeps the time of an input short. */
const char * __asan_default_options(void) {
    return "max_allocation_size_mb=64:allocator_may_return_null=1:abort_on_error=1:detect_leaks=1"
           /* In the target, delete calls free (csrc/memory/reserve.c), even for libFuzzer's strings, which libstdc++ allocates
            * with its own new. */
           ":alloc_dealloc_mismatch=0"
           ":intercept_tls_get_addr=0"; /* without this, the leak check of gcc 12 crashes on glibc's thread-local storage */
}

const char * __ubsan_default_options(void) {
    return "halt_on_error=1:abort_on_error=1:print_stacktrace=1";
}
