/* machine/build.c - returns how this extension was built. */
#include "tinynn.h"

const char * tnn_ggml_version(void) {
    return TNN_GGML_VERSION;
}

const char * tnn_ggml_commit(void) {
    return TNN_GGML_COMMIT;
}

const char * tnn_profile(void) {
    return TNN_PROFILE;
}

const char * tnn_compiler(void) {
    return TNN_COMPILER;
}

const char * tnn_build_type(void) {
    return TNN_BUILD_TYPE;
}

const char * tnn_build_options(void) {
    return TNN_BUILD_OPTIONS;
}
