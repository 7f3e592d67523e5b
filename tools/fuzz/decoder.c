/* decoder.c - makes arguments from the input's bytes. Most arguments are valid, and some are wrong, so that the call must be
 * refused. */
#include "decoder.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array)   ((int) (sizeof(array) / sizeof((array)[0])))
#define MOST_NUMBERS   (INT64_C(1) << 20) /* largest length of an array */

uint8_t byte_of(struct decoder * d) {
    return d->at < d->end ? *d->at++ : 0;
}

uint64_t word_of(struct decoder * d) {
    uint64_t word = 0;
    for (int i = 0; i < 8; i++) {
        word = word << 8 | byte_of(d);
    }
    return word;
}

/* Decodes an integer from one byte. 0..191: the byte itself. 192..247: a number at a limit of an integer type. Other values: the
 * eight bytes after it. */
int64_t int64_of(struct decoder * d) {
    static const int64_t LIMITS[] = {
        -1, -2, INT64_MIN, INT64_MAX, INT32_MIN, INT32_MAX, INT64_C(1) << 31, INT64_C(1) << 32, INT64_C(1) << 62, -(INT64_C(1) << 31),
        192, 255, 256, 257, 512, 1000, 1024, 4096, 4097, 16384, 65535, 65536, 1 << 20, 1 << 21, (1 << 21) + 1, 1 << 24, 1 << 28, 1 << 30,
        46341, 92681, INT64_C(3037000500), INT64_C(2147483646),
    };
    const uint8_t k = byte_of(d);
    return k < 192 ? k : k < 248 ? LIMITS[(k - 192) % COUNT(LIMITS)] : (int64_t) word_of(d);
}

int32_t int32_of(struct decoder * d) {
    return (int32_t) int64_of(d);
}

static const double NUMBERS[] = {
    0.0, 1.0, -1.0, 0.5, 1e-5, 10000.0, 2.0, 1e-8, 0.9, 0.1, -0.0, 32.0, 8.0, 1e-45, 3e38, 1e30, -3e38, FLT_MAX, -1e-45, 1e-38,
};

/* Decodes a number from one byte. 0..127: a useful number. 128..191: an infinity or NaN. Other values: the four bytes after it
 * are the bits of the number. */
double double_of(struct decoder * d) {
    const uint8_t k = byte_of(d);
    if (k < 128) {
        return NUMBERS[k % COUNT(NUMBERS)];
    }
    if (k < 192) {
        return k % 3 == 0 ? NAN : k % 3 == 1 ? INFINITY : -INFINITY;
    }
    const uint64_t bits = word_of(d);
    double         x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

float float_of(struct decoder * d) {
    if (d->at < d->end && *d->at >= 192) {
        d->at++;
        const uint32_t bits = (uint32_t) (word_of(d) >> 32);
        float          x;
        memcpy(&x, &bits, sizeof(x));
        return x;
    }
    return (float) double_of(d);
}

static void * copy_of(const void * data, size_t size) {
    void * copy = malloc(size > 0 ? size : 1);
    if (copy == NULL) {
        abort();
    }
    memcpy(copy, data, size);
    return copy;
}

/* Decodes a string from one byte. 0..127: a string of that many letters. 128..191: a name with a meaning. 192..199: NULL. Other
 * values: the next byte is the length, and the bytes after it are the string. */
char * text_of(struct decoder * d) {
    static const char * const NAMES[] = { "v8", "avx512", "", "token_embd.weight", "%s%n%d", "blk.0.attn_q.weight" };
    char          text[256];
    const uint8_t k = byte_of(d);
    if (k >= 128 && k < 192) {
        const char * name = NAMES[(k - 128) % COUNT(NAMES)];
        return copy_of(name, strlen(name) + 1);
    }
    if (k >= 192 && k < 200) {
        return NULL;
    }
    const int n = k < 128 ? k : byte_of(d);
    for (int i = 0; i < n; i++) {
        const uint8_t letter = k < 128 ? 'x' : byte_of(d);
        text[i] = (char) (letter != 0 ? letter : 1);
    }
    text[n] = '\0';
    return copy_of(text, (size_t) n + 1);
}

static tnn_tensor live(const struct slot * slot, int i) {
    return slot->n_live > 0 ? slot->live[i % slot->n_live] : 0;
}

/* Returns a live tensor of this dtype that fits the last operand: it has the same number of elements (if alike) or the same ne0
 * (if not). Returns any live tensor if there is none. */
static tnn_tensor matching(const struct decoder * d, int nth, bool alike, int64_t dtype) {
    const struct slot * slot = d->here;
    tnn_tensor          found[MAX_LIVE];
    int                 n = 0;
    for (int i = 0; i < slot->n_live; i++) {
        const tnn_tensor t = slot->live[i];
        const bool same = alike ? tnn_tensor_nelements(slot->s, t) == d->nelements : tnn_tensor_ne0(slot->s, t) == d->ne0;
        if (same && tnn_tensor_dtype(slot->s, t) == dtype) {
            found[n++] = t;
        }
    }
    return n > 0 ? found[nth % n] : live(slot, nth);
}

static tnn_tensor integers(const struct decoder * d, int nth) {
    const struct slot * slot = d->here;
    for (int i = 0; i < slot->n_live; i++) {
        const tnn_tensor t = live(slot, i + nth);
        if (tnn_tensor_dtype(slot->s, t) == TNN_I32) {
            return t;
        }
    }
    return live(slot, nth);
}

static tnn_tensor hostile(struct decoder * d, int k) {
    const struct slot * here = d->here;
    switch (k & 3) {
        case 0:
            return 0;
        case 1:
            return here->n_stale > 0 ? here->stale[k % here->n_stale] : 0;
        case 2:
            return live(&d->slots[(here - d->slots + 1) % MAX_SESSIONS], k);
        default:
            return (tnn_tensor) word_of(d);
    }
}

/* Decodes a tensor from one byte. 0..95: the live tensor with this number. 96..159: a tensor counted back from the newest.
 * 160..223: a tensor that fits the last operand. Other values: an invalid handle. */
tnn_tensor tensor_of(struct decoder * d) {
    const struct slot * here = d->here;
    const uint8_t       k    = byte_of(d);
    tnn_tensor          t;
    if (k < 96) {
        t = live(here, k);
    } else if (k < 160) {
        t = here->n_live > 0 ? here->live[here->n_live - 1 - (k - 96) % here->n_live] : 0;
    } else if (k < 192) {
        t = matching(d, k, k % 2 == 0, TNN_F32);
    } else if (k < 224) {
        t = integers(d, k);
    } else {
        t = hostile(d, k);
    }
    if (here->s != NULL && tnn_tensor_ne0(here->s, t) > 0) {
        d->ne0       = tnn_tensor_ne0(here->s, t);
        d->nelements = tnn_tensor_nelements(here->s, t);
    }
    return t;
}

tnn_tensor * tensors_of(struct decoder * d, int32_t n) {
    tnn_tensor * tensors = malloc(n > 0 ? (size_t) n * sizeof(*tensors) : 1);
    for (int32_t i = 0; i < n && tensors != NULL; i++) {
        tensors[i] = tensor_of(d);
    }
    return tensors;
}

/* Returns the next number of an array's random stream. The stream starts from the style of the array, which is one byte of the
 * input. */
static uint32_t next(uint32_t * state) {
    *state = *state * UINT32_C(1664525) + UINT32_C(1013904223);
    return *state >> 8;
}

static void * array_of(int64_t n, size_t size) {
    return n >= 0 && n <= MOST_NUMBERS ? malloc(n > 0 ? (size_t) n * size : 1) : NULL;
}

/* Styles of floats. 0..191: random in (-1, 1). 192..223: hyper-parameters. 224..239: hyper-parameters, but one number is arbitrary.
 * Other values: each number is decoded from the input. */
float * floats_of(struct decoder * d, int64_t n) {
    static const float STEP[] = { 0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.9f, 0.95f };
    float       * data  = array_of(n, sizeof(float));
    const uint8_t style = byte_of(d);
    uint32_t      state = style;
    for (int64_t i = 0; i < n && data != NULL; i++) {
        data[i] = style >= 240 && d->at < d->end ? float_of(d)
                : style >= 192 && style < 224    ? STEP[i % COUNT(STEP)]
                                                 : (float) next(&state) / 8388608.0f - 1.0f;
    }
    if (style >= 224 && style < 240 && n > 0 && data != NULL) {
        data[next(&state) % n] = float_of(d);
    }
    return data;
}

/* Styles of integers. 0..127: random below style % 16 + 1. 128..191: 0, 1, 2, ... 192..223: 0, 1, 2, ... but one number is
 * arbitrary. Other values: each number is decoded from the input. */
int32_t * ints_of(struct decoder * d, int64_t n) {
    int32_t     * data  = array_of(n, sizeof(int32_t));
    const uint8_t style = byte_of(d);
    uint32_t      state = style;
    for (int64_t i = 0; i < n && data != NULL; i++) {
        data[i] = style >= 224 && d->at < d->end ? int32_of(d) : style >= 128 ? (int32_t) i : (int32_t) (next(&state) % (style % 16u + 1));
    }
    if (style >= 192 && style < 224 && n > 0 && data != NULL) {
        data[next(&state) % n] = int32_of(d);
    }
    return data;
}
