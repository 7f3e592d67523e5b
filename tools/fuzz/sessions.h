/* sessions.h - plays one input, from its first byte to the end of its sessions. */
#ifndef TOYNN_FUZZ_SESSIONS_H
#define TOYNN_FUZZ_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tally {
    int64_t calls, refused;
};

/* Plays one input and adds to the tally; ends the process if a promise of tinynn.h is broken. */
void play(const uint8_t * data, size_t size, struct tally * tally);

/* Prints each call of a session on stderr, and the reason if it was refused. */
extern bool say_calls;

#endif
