/* machine/bus_error.h - lets the process survive if a mapped file becomes shorter.
 *
 * The kernel sends SIGBUS to a thread that reads a page beyond the end of a mapped file. While at least one range is guarded, a handler
 * of that signal is installed. If the address of the fault lies in a guarded range, the handler puts pages of zeros in place of the rest
 * of the range, marks the range as lost and returns. The thread then reads zeros, and the shim reports an error. Any other SIGBUS
 * goes on to the handler that was installed before. */
#ifndef TNN_BUS_ERROR_H
#define TNN_BUS_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#define TNN_MAX_GUARDS 256

/* Guards size bytes at an address at which a page begins. Returns the number of the guard, or -1 if TNN_MAX_GUARDS are in use or the
 * handler cannot be installed. */
int tnn__guard(const void * address, size_t size);
/* Ends a guard. */
void tnn__unguard(int guard);
/* Returns whether a part of the range was replaced by zeros. */
bool tnn__guard_lost(int guard);
/* Installs the handler again if another handler was installed after it. Call this before each use of guarded memory. */
void tnn__guards_arm(void);
/* Lock and unlock the guards. These calls surround a fork, so that the child process does not inherit a lock that
 * another thread holds. */
void tnn__guards_lock(void);
void tnn__guards_unlock(void);

#endif
