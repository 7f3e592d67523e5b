/* memory/mapping.c - attaches files, whose pages are the data of weights. Nothing is copied, and the pages must not be
 * written.
 *
 * A file can change while it is mapped. If it becomes shorter, a guard (machine/bus_error.h) replaces the missing pages by
 * zeros. The size of the file and the time of its last change are compared before and after each use. */
#define _GNU_SOURCE
#include "memory/mapping.h"

#include "graph/handles.h"
#include "graph/nodes.h"
#include "machine/bus_error.h"
#include "memory/allocate.h"
#include "memory/release.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__APPLE__)
#define MODIFIED st_mtimespec
#else
#define MODIFIED st_mtim
#endif

/* ------------------------------------------------------------------ attaching */

static int64_t count(const tnn_session * s) {
    int64_t n = 0;
    for (const struct tnn_mapping * m = s->mappings; m != NULL; m = m->next) {
        n++;
    }
    return n;
}

/* Attaches a mapping again, so that declarations use it. Returns false if the mapping was not attached before. */
static bool attach_again(tnn_session * s, const void * address, int64_t size) {
    for (struct tnn_mapping ** at = &s->mappings; *at != NULL; at = &(*at)->next) {
        struct tnn_mapping * m = *at;
        if (m->address == address && m->size == (size_t) size) {
            *at         = m->next;
            m->next     = s->mappings;
            s->mappings = m;
            return true;
        }
    }
    return false;
}

/* Opens a second descriptor of the file, and records the state of the file. */
static bool watch(tnn_session * s, struct tnn_mapping * m, int32_t fd) {
    struct stat state;
    if (fd < 0) {
        return true;
    }
    m->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (m->fd < 0 || fstat(m->fd, &state) != 0) {
        tnn__fail(s, TNN_E_FILE, "cannot duplicate the descriptor fd = %d of %s; fd must be open, and the process must be able "
                                 "to open one more file", fd, m->name);
        return false;
    }
    if ((size_t) state.st_size < m->size) {
        tnn__fail(s, TNN_E_FILE, "%s has %lld bytes, fewer than size = %zu; use a smaller size",
                  m->name, (long long) state.st_size, m->size);
        return false;
    }
    m->file_size = state.st_size;
    m->modified  = state.MODIFIED;
    return true;
}

int tnn_session_attach_weight_mmap(tnn_session * s, const void * address, int64_t size, int32_t fd, const char * name) {
    if (!tnn__enter(s, __func__)) {
        return TNN_E_STATE;
    }
    if (s->stage != TNN_STAGE_DECLARE) {
        return tnn__fail(s, TNN_E_STATE, "a file must be attached before tnn_finalize_weights, which was already "
                                         "called");
    }
    if (address == NULL || (uintptr_t) address % (uintptr_t) sysconf(_SC_PAGESIZE) != 0) {
        return tnn__fail(s, TNN_E_VALUE, "address = %p must be the start of a page (a multiple of %ld)", address,
                         sysconf(_SC_PAGESIZE));
    }
    if (size < 1 || (uintptr_t) size > UINTPTR_MAX / 2 - (uintptr_t) address) {
        return tnn__fail(s, TNN_E_VALUE, "size = %lld must be the size of the mapping in bytes, at least 1 and within the address space",
                         (long long) size);
    }
    if (attach_again(s, address, size)) {
        return TNN_OK;
    }
    if (count(s) >= TNN_MAX_MAPPINGS) {
        return tnn__fail(s, TNN_E_STATE, "this session already has %d attached files, the limit for a session; attach the file to "
                                         "another session", TNN_MAX_MAPPINGS);
    }
    struct tnn_mapping * m = tnn__zeroed_alloc(s, sizeof(*m), "the description of an attached file");
    if (m == NULL) {
        return s->code;
    }
    /* Const is removed here, because the data of ggml's tensors is not const; nothing writes to the mapping. */
    m->address = (char *) (uintptr_t) address;
    m->size    = (size_t) size;
    m->fd      = -1;
    m->guard   = -1;
    strncpy(m->name, name != NULL && name[0] != '\0' ? name : "the attached file", sizeof(m->name) - 1);
    struct tnn_reserve reserve = { 0 };
    if (!watch(s, m, fd) || !tnn__reserve_for_ggml(s, &reserve, (struct tnn_needs) { .small = 1 })) {
        tnn__release_mapping(m);
        return s->code;
    }
    m->buffer = ggml_backend_cpu_buffer_from_ptr(m->address, m->size);
    tnn__reserve_close(&reserve);
    m->guard = tnn__guard(m->address, m->size);
    if (m->guard < 0) {
        tnn__release_mapping(m);
        return tnn__fail(s, TNN_E_STATE, "this process already has %d attached files, the limit for a process; close a session that "
                                         "has attached files", TNN_MAX_GUARDS);
    }
    m->next     = s->mappings;
    s->mappings = m;
    return TNN_OK;
}

/* ------------------------------------------------------------------ weights */

/* Returns an alignment in bytes that is enough for the type: a block consists of fields of 1, 2 or 4 bytes, and its size
   is a multiple of the size of its largest field. */
static int64_t alignment(enum ggml_type type) {
    const size_t size = ggml_type_size(type);
    return size % 4 == 0 ? 4 : size % 2 == 0 ? 2 : 1;
}

char * tnn__mapped_bytes(tnn_session * s, enum ggml_type type, int64_t offset, size_t nbytes) {
    const struct tnn_mapping * m = s->mappings;
    if (m == NULL) {
        tnn__fail(s, TNN_E_STATE, "no file is attached; call tnn_session_attach_weight_mmap first");
        return NULL;
    }
    if (offset < 0 || offset % alignment(type) != 0) {
        tnn__fail(s, TNN_E_VALUE, "offset = %lld must be a multiple of %lld and at least 0",
                  (long long) offset, (long long) alignment(type));
        return NULL;
    }
    if (nbytes > m->size || (size_t) offset > m->size - nbytes) {
        tnn__fail(s, TNN_E_VALUE, "the tensor ends beyond %s: it has offset = %lld and %zu bytes, but the file has only %zu bytes",
                  m->name, (long long) offset,
                  nbytes, m->size);
        return NULL;
    }
    return m->address + offset;
}

ggml_backend_buffer_t tnn__mapped_buffer(const tnn_session * s) {
    return s->mappings->buffer;
}

bool tnn__is_mapped(tnn_session * s, const struct ggml_tensor * t) {
    const struct tnn_entry * e = s->mappings != NULL ? tnn__entry_of(s, tnn__root(t)) : NULL;
    return e != NULL && e->is_mapped;
}

/* ------------------------------------------------------------------ files that change */

static const char * change_of(const struct tnn_mapping * m) {
    struct stat state;
    if (tnn__guard_lost(m->guard)) {
        return "became shorter, or could not be read,";
    }
    if (m->fd < 0) {
        return NULL;
    }
    if (fstat(m->fd, &state) != 0) {
        return "could not be examined";
    }
    if (state.st_size < m->file_size) {
        return "became shorter";
    }
    const bool same = state.st_size == m->file_size && state.MODIFIED.tv_sec == m->modified.tv_sec
                   && state.MODIFIED.tv_nsec == m->modified.tv_nsec;
    return same ? NULL : "was changed";
}

static int check(tnn_session * s) {
    for (const struct tnn_mapping * m = s->mappings; m != NULL; m = m->next) {
        const char * change = change_of(m);
        if (change != NULL) {
            return tnn__fail(s, TNN_E_FILE, "%s %s while its tensors were in use; restore the file and make a new "
                                            "session", m->name, change);
        }
    }
    return !s->tainted ? TNN_OK
                       : tnn__fail(s, TNN_E_FILE, "an attached file was changed while the session computed, so its "
                                                  "values may be wrong; "
                                                  "make a new session");
}

int tnn__mappings_begin(tnn_session * s) {
    if (s->mappings == NULL) {
        return TNN_OK;
    }
    tnn__guards_arm();
    return check(s);
}

int tnn__mappings_end(tnn_session * s) {
    return check(s);
}
