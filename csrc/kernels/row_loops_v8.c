/* kernels/row_loops_v8.c - the loops over rows in vectors of eight. They need only the instructions of the build's profile, so
 * every CPU can run them. */
#include "kernels/row_loops_code.h"

const struct tnn_row_loops tnn__row_loops_v8 = {
    .row_max = row_max, .add_exp = add_exp, .normalise = normalise, .subtract_mean = subtract_mean,
    .swiglu = swiglu, .swiglu_back = swiglu_back,
};
