/* sessions.h - one input from its first byte to the end of its sessions. */
#ifndef TOYNN_FUZZ_SESSIONS_H
#define TOYNN_FUZZ_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tally {
    int64_t calls, refused;
};

/* Plays one input, adds to the tally; ends the process where a promise of tinynn.h does not hold. */
void play(const uint8_t * data, size_t size, struct tally * tally);

/* Says each call of a session on stderr, and why it was refused. */
extern bool say_calls;

#endif
