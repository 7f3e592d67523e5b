/* memory/free_list.h - the free places of a buffer whose size is not fixed yet. */
#ifndef TNN_FREE_LIST_H
#define TNN_FREE_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The array holes is sorted by offset, and must be freed with free(). A list starts as all zeros. */
struct tnn_hole {
    size_t offset, size;
};

struct tnn_free_list {
    struct tnn_hole * holes;
    int64_t        n, size;
    size_t         end; /* everything after this offset is free */
};

/* Takes a place of size bytes and returns its offset. The place is the smallest hole that is large enough. If no
 * hole is large enough, the place begins at the last hole if this hole touches the end, otherwise at the end. */
size_t tnn__free_list_take(struct tnn_free_list * f, size_t size);
/* Makes a place free again. Returns false if memory runs out. */
bool tnn__free_list_insert(struct tnn_free_list * f, size_t offset, size_t size);

#endif
