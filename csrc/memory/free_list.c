/* memory/free_list.c - keeps the free places of a buffer whose size is not fixed yet. */
#include "memory/free_list.h"

#include <stdlib.h>
#include <string.h>

bool tnn__free_list_insert(struct tnn_free_list * f, size_t offset, size_t size) {
    int64_t lo = 0, hi = f->n;
    while (lo < hi) {
        const int64_t mid = (lo + hi) / 2;
        if (f->holes[mid].offset < offset) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    const bool joins_left  = lo > 0 && f->holes[lo - 1].offset + f->holes[lo - 1].size == offset;
    const bool joins_right = lo < f->n && offset + size == f->holes[lo].offset;
    if (joins_left && joins_right) {
        f->holes[lo - 1].size += size + f->holes[lo].size;
        memmove(&f->holes[lo], &f->holes[lo + 1], (size_t) (f->n - lo - 1) * sizeof(struct tnn_hole));
        f->n--;
        return true;
    }
    if (joins_left) {
        f->holes[lo - 1].size += size;
        return true;
    }
    if (joins_right) {
        f->holes[lo].offset = offset;
        f->holes[lo].size += size;
        return true;
    }
    if (f->n == f->size) {
        const int64_t  grown  = f->size > 0 ? 2 * f->size : 64;
        struct tnn_hole * holes = realloc(f->holes, (size_t) grown * sizeof(*holes));
        if (holes == NULL) {
            return false;
        }
        f->holes = holes;
        f->size   = grown;
    }
    memmove(&f->holes[lo + 1], &f->holes[lo], (size_t) (f->n - lo) * sizeof(struct tnn_hole));
    f->holes[lo] = (struct tnn_hole) { offset, size };
    f->n++;
    return true;
}

size_t tnn__free_list_take(struct tnn_free_list * f, size_t size) {
    int64_t best = -1;
    for (int64_t i = 0; i < f->n; i++) {
        if (f->holes[i].size >= size && (best < 0 || f->holes[i].size < f->holes[best].size)) {
            best = i;
        }
    }
    if (best >= 0) {
        const size_t offset = f->holes[best].offset;
        f->holes[best].offset += size;
        f->holes[best].size   -= size;
        if (f->holes[best].size == 0) {
            memmove(&f->holes[best], &f->holes[best + 1], (size_t) (f->n - best - 1) * sizeof(struct tnn_hole));
            f->n--;
        }
        return offset;
    }
    if (f->n > 0 && f->holes[f->n - 1].offset + f->holes[f->n - 1].size == f->end) {
        const size_t offset = f->holes[--f->n].offset;
        f->end = offset + size;
        return offset;
    }
    const size_t offset = f->end;
    f->end += size;
    return offset;
}
