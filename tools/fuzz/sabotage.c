/* sabotage.c - a tnn_last_error that returns no message. The linker uses it instead of the original, and the fuzz target must
 * detect this. */
#include "tinynn.h"

const char * __wrap_tnn_last_error(const tnn_session * s);

const char * __wrap_tnn_last_error(const tnn_session * s) {
    (void) s;
    return "";
}
