/* libfuzzer.c - the functions that libFuzzer calls. */
#include "sessions.h"

__attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    struct tally tally = { 0, 0 };
    play(data, size, &tally);
    return 0;
}
