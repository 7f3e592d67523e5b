/* machine/cgroup.c - finds how much memory and how many cores the control groups of this process allow.
 *
 * The limit of a group also holds for the groups inside it, so each group is read, from the process's own group up to
 * the top. Version 2 of control groups has one tree, and version 1 has one tree for each kind of limit. A container
 * sees its own group at the top of the tree, even if /proc/self/cgroup names another path. */
#include "machine/machine.h"

#include <stdio.h>
#include <string.h>

struct group {
    char   folder[1024];
    size_t top; /* length of the path of the tree's top folder */
};

/* Returns whether the name is in the comma-separated list. An empty list contains the empty name. */
static bool among(const char * names, const char * name) {
    for (;;) {
        const size_t n = strcspn(names, ",");
        if (n == strlen(name) && strncmp(names, name, n) == 0) {
            return true;
        }
        if (names[n] == '\0') {
            return false;
        }
        names += n + 1;
    }
}

/* Returns the process's group in the tree of a controller of version 1, or in the tree of version 2 if controller is
 * "". If the system does not report the group, returns the top of the tree. */
static struct group own_group(const char * controller) {
    struct group g = { .folder = "/sys/fs/cgroup" };
    char         text[4096];
    if (controller[0] != '\0') {
        strcat(strcat(g.folder, "/"), controller);
    }
    g.top = strlen(g.folder);
    if (!tnn__read_start("/proc/self/cgroup", text, sizeof(text))) {
        return g;
    }
    for (char * line = text, * next; line != NULL; line = next) { /* number:controllers:path */
        next = strchr(line, '\n');
        if (next != NULL) {
            *next++ = '\0';
        }
        char * names = strchr(line, ':');
        char * path  = names != NULL ? strchr(names + 1, ':') : NULL;
        if (path != NULL && path[1] == '/' && g.top + strlen(path + 1) < sizeof(g.folder)) {
            *path = '\0';
            if (among(names + 1, controller)) {
                strcpy(g.folder + g.top, path + 1);
                break;
            }
        }
    }
    return g;
}

/* Goes to the parent group. Returns false at the top. */
static bool go_up(struct group * g) {
    if (g->folder[g->top] == '\0') {
        return false;
    }
    *strrchr(g->folder, '/') = '\0';
    return true;
}

static bool read_file(const struct group * g, const char * name, char * text, size_t size) {
    char path[sizeof(g->folder) + 32];
    snprintf(path, sizeof(path), "%s/%s", g->folder, name);
    return tnn__read_start(path, text, size);
}

/* Returns the number after prefix in a file of the group, or UINT64_MAX. */
static uint64_t number(const struct group * g, const char * name, const char * prefix) {
    char text[2048];
    return read_file(g, name, text, sizeof(text)) ? tnn__number_behind(text, prefix) : UINT64_MAX;
}

uint64_t tnn__cgroup_memory(void) {
    static const struct {
        const char * controller, * limit, * used, * cache;
    } versions[] = {
        { "", "memory.max", "memory.current", "\ninactive_file " },
        { "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "\ntotal_inactive_file " },
    };
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 2; i++) {
        struct group g = own_group(versions[i].controller);
        do {
            const uint64_t limit = number(&g, versions[i].limit, ""), used = number(&g, versions[i].used, "");
            /* A limit of "max" is not a number, so it is read as UINT64_MAX. */
            if (limit != UINT64_MAX && used != UINT64_MAX) {
                /* Pages of files count as free, because the system reclaims them first. */
                const uint64_t cache = number(&g, "memory.stat", versions[i].cache);
                const uint64_t held  = cache == UINT64_MAX ? used : used - (cache < used ? cache : used);
                const uint64_t rest  = limit > held ? limit - held : 0;
                least = rest < least ? rest : least;
            }
        } while (go_up(&g));
    }
    return least;
}

/* Returns the quota as a number of cores (its time divided by the period, rounded up), or 0 if there is no limit. */
static int64_t cores_of(long long quota, long long period) {
    return quota > 0 && period > 0 ? (quota - 1) / period + 1 : 0;
}

int64_t tnn__cgroup_cores(void) {
    int64_t   least = INT64_MAX;
    char      text[64];
    long long quota, period;
    struct group g = own_group("");
    do {
        const bool    read = read_file(&g, "cpu.max", text, sizeof(text)) && sscanf(text, "%lld %lld", &quota, &period) == 2;
        const int64_t n    = read ? cores_of(quota, period) : 0;
        least = n > 0 && n < least ? n : least;
    } while (go_up(&g));
    g = own_group("cpu");
    do {
        const bool    read = read_file(&g, "cpu.cfs_quota_us", text, sizeof(text)) && sscanf(text, "%lld", &quota) == 1
                       && read_file(&g, "cpu.cfs_period_us", text, sizeof(text)) && sscanf(text, "%lld", &period) == 1;
        const int64_t n    = read ? cores_of(quota, period) : 0;
        least = n > 0 && n < least ? n : least;
    } while (go_up(&g));
    return least;
}
