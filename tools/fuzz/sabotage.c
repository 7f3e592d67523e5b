/* sabotage.c - a shim that refuses without a word (the linker puts it in tnn_last_error's place): the target must notice. */
#include "tinynn.h"

const char * __wrap_tnn_last_error(const tnn_session * s);

const char * __wrap_tnn_last_error(const tnn_session * s) {
    (void) s;
    return "";
}
