/* sabotage.c - replaces tnn_last_error, through the linker, by one that returns no message: the target must detect it. */
#include "tinynn.h"

const char * __wrap_tnn_last_error(const tnn_session * s);

const char * __wrap_tnn_last_error(const tnn_session * s) {
    (void) s;
    return "";
}
