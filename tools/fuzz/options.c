/* options.c - how the sanitizers behave in the fuzz target, unless ASAN_OPTIONS and UBSAN_OPTIONS say otherwise. */

#define SEEN __attribute__((visibility("default"), used))

SEEN const char * __asan_default_options(void);
SEEN const char * __ubsan_default_options(void);

/* What asks for more than 64 MiB is refused: as memory that is not there, and so that no input takes long. */
const char * __asan_default_options(void) {
    return "max_allocation_size_mb=64:allocator_may_return_null=1:abort_on_error=1:detect_leaks=1"
           ":alloc_dealloc_mismatch=0"  /* libFuzzer deletes, by csrc/memory/reserve.c's delete, strings that libstdc++ made */
           ":intercept_tls_get_addr=0"; /* gcc 12's guess at glibc's thread-local storage makes the leak check itself crash */
}

const char * __ubsan_default_options(void) {
    return "halt_on_error=1:abort_on_error=1:print_stacktrace=1";
}
