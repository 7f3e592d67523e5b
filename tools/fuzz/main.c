/* main.c - the fuzz target without libFuzzer, for compilers that lack libFuzzer. It plays inputs (makes the calls that
 * they encode): the given files, and inputs made from these files by random changes.
 *
 *   fuzz_replay [--inputs N] [--seconds N] [--seed S] [--only I] [--say] FILE...
 *
 * Plays every FILE and prints what it called; then plays inputs 0 to N - 1 of the seed, or as many as the seconds allow. An
 * input depends only on the files, the seed and its number. --only plays only input I; --say prints each call. If an
 * input ends the process or takes minutes, the program prints the command that plays this input again.
 */
#define _POSIX_C_SOURCE 200809L
#include "sessions.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LARGEST   (1 << 14) /* maximum size of an input in bytes */
#define MOST      1024      /* files */
#define PATIENCE  300       /* after this number of seconds, an input counts as hung */

struct file {
    const char * name;
    uint8_t    * data;
    size_t       size;
};

static struct file  files[MOST];
static int          n_files;
static const char * program;
static uint64_t     seed, playing;
static const char * file_playing;

static void on_end(int signal_number) { /* these calls are not safe in a signal handler, but the process ends anyway */
    if (signal_number == SIGALRM) {
        fprintf(stderr, "fuzz: an input takes longer than %d seconds\n", PATIENCE);
    }
    if (file_playing != NULL) {
        fprintf(stderr, "fuzz: to play it again: %s %s\n", program, file_playing);
    } else {
        fprintf(stderr, "fuzz: to play it again: %s --seed %" PRIu64 " --only %" PRIu64 " FILE... (the same files)\n", program, seed, playing);
    }
    signal_number = signal_number == SIGALRM ? SIGABRT : signal_number;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* If a sanitizer is active, its own handler is kept, because it prints more and aborts. */
static void say_where_it_ends(int signal_number) {
    struct sigaction there;
    if (sigaction(signal_number, NULL, &there) == 0 && there.sa_handler == SIG_DFL) {
        signal(signal_number, on_end);
    }
}

static int unreadable(const char * name) {
    fprintf(stderr, "fuzz: %s cannot be read, or is larger than %d bytes\n", name, LARGEST);
    return 2;
}

static int read_file(const char * name) {
    FILE * in = n_files < MOST ? fopen(name, "rb") : NULL;
    if (in == NULL) {
        return unreadable(name);
    }
    struct file * file = &files[n_files++];
    file->name = name;
    file->data = malloc(LARGEST + 1);
    file->size = file->data != NULL ? fread(file->data, 1, LARGEST + 1, in) : 0;
    const int failed = file->data == NULL || ferror(in) || file->size > LARGEST;
    fclose(in);
    return failed ? unreadable(name) : 0;
}

/* Returns the next number of a random stream (SplitMix64). Each input has its own stream. */
static uint64_t next(uint64_t * state) {
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static size_t below(uint64_t * state, size_t n) {
    return n > 0 ? (size_t) (next(state) % n) : 0;
}

/* Inserts n bytes at a place; bytes beyond the limit are dropped. */
static size_t insert(uint8_t * input, size_t size, size_t at, const uint8_t * bytes, size_t n) {
    n = at + n <= LARGEST ? n : LARGEST - at;
    const size_t rest = at + n + (size - at) <= LARGEST ? size - at : LARGEST - at - n;
    memmove(input + at + n, input + at, rest);
    memcpy(input + at, bytes, n);
    return at + n + rest;
}

static size_t change(uint8_t * input, size_t size, uint64_t * state) {
    const size_t at = below(state, size + 1);
    uint8_t      fresh[16];
    switch (below(state, 5)) {
        case 0: /* another byte */
            if (at < size) {
                input[at] = (uint8_t) next(state);
            }
            return size;
        case 1: /* inserts some new bytes */
            for (size_t i = 0; i < sizeof(fresh); i++) {
                fresh[i] = (uint8_t) next(state);
            }
            return insert(input, size, at, fresh, 1 + below(state, sizeof(fresh)));
        case 2: { /* removes some bytes */
            const size_t n = below(state, size - at < 16 ? size - at + 1 : 17);
            memmove(input + at, input + at + n, size - at - n);
            return size - n;
        }
        case 3: { /* inserts some bytes of a file */
            const struct file * from = &files[below(state, (size_t) n_files)];
            const size_t        begin = n_files > 0 ? below(state, from->size + 1) : 0;
            return n_files > 0 ? insert(input, size, at, from->data + begin, below(state, from->size - begin + 1)) : size;
        }
        default: /* adds a small number to a byte */
            if (at < size) {
                input[at] = (uint8_t) (input[at] + (below(state, 2) == 0 ? 1 : 255));
            }
            return size;
    }
}

static void play_random(uint64_t number, struct tally * tally) {
    static uint8_t input[LARGEST];
    uint64_t       state = seed * UINT64_C(1000003) + number;
    size_t         size  = 0;
    if (n_files > 0) {
        const struct file * from = &files[below(&state, (size_t) n_files)];
        memcpy(input, from->data, from->size);
        size = from->size;
    }
    for (size_t i = 0, n = 1 + below(&state, 12); i < n; i++) {
        size = change(input, size, &state);
    }
    /* the block has exactly the size of the input, so that a read beyond its end is detected */
    uint8_t * exact = malloc(size > 0 ? size : 1);
    if (exact == NULL) {
        abort();
    }
    memcpy(exact, input, size);
    alarm(PATIENCE);
    play(exact, size, tally);
    free(exact);
}

static uint64_t number_of(const char * word, const char * text) {
    char         * end;
    const uint64_t n = text != NULL ? strtoull(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0') {
        fprintf(stderr, "fuzz: %s needs a whole number\n", word);
        exit(2);
    }
    return n;
}

int main(int argc, char ** argv) {
    uint64_t inputs = 0, seconds = 0, only = UINT64_MAX, n = 0;
    program = argv[0];
    for (int i = 1; i < argc; i++) {
        uint64_t * option = strcmp(argv[i], "--inputs") == 0  ? &inputs
                          : strcmp(argv[i], "--seconds") == 0 ? &seconds
                          : strcmp(argv[i], "--seed") == 0    ? &seed
                          : strcmp(argv[i], "--only") == 0    ? &only
                                                              : NULL;
        if (strcmp(argv[i], "--say") == 0) {
            say_calls = true;
        } else if (option != NULL) {
            *option = number_of(argv[i], argv[i + 1]);
            i++;
        } else if (read_file(argv[i]) != 0) {
            return 2;
        }
    }
    const int ends[] = { SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        say_where_it_ends(ends[i]);
    }
    for (int i = 0; i < n_files && only == UINT64_MAX; i++) {
        struct tally tally = { 0, 0 };
        file_playing = files[i].name;
        alarm(PATIENCE);
        play(files[i].data, files[i].size, &tally);
        printf("%s: %" PRId64 " calls, %" PRId64 " refused\n", files[i].name, tally.calls, tally.refused);
    }
    file_playing = NULL;
    struct tally tally = { 0, 0 };
    const time_t end   = time(NULL) + (time_t) seconds;
    if (only != UINT64_MAX) {
        playing = only;
        play_random(only, &tally);
        n = 1;
    }
    for (; only == UINT64_MAX && (n < inputs || (seconds > 0 && time(NULL) < end)); n++) {
        playing = n;
        play_random(n, &tally);
    }
    printf("%" PRIu64 " inputs of seed %" PRIu64 ": %" PRId64 " calls, %" PRId64 " refused\n", n, seed, tally.calls, tally.refused);
    for (int i = 0; i < n_files; i++) {
        free(files[i].data);
    }
    return 0;
}
