/* machine/files.c - reads the small text files in which the system reports its state. */
#define _GNU_SOURCE
#include "machine/machine.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
