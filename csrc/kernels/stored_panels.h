/* kernels/stored_panels.h - converts rows of a matrix to f32 and transposes them into a panel, compiled once for each vector width.
 *
 * The file that includes this defines
 *   vec, vecu, LANES        vectors of f32 and of u32, and their lanes
 *   vec_store, vec_of_bits
 *   load_transposed         loads 16 bytes of each of LANES rows; vector i gets bytes 4 i to 4 i + 3 of each row
 *   load_half, half_low     converts f16 numbers to f32
 *   bits_of                 (w & mask) | bits
 *
 * A lane is a row of the matrix. The numbers equal those of ggml's function to_float. The integers of a block are exact
 * in f32, and the product of an integer and a scale is exact too. So a fused and a separate addition give the same result.
 * An integer u of at most 7 bits is written into the upper bits of the mantissa of 128, which gives 128 + u. An integer of
 * 8 bits is written into the mantissa of 32768. The subtraction that follows is exact.
 */
#include "kernels/stored.h"

#include <stdbool.h>
#include <string.h>

#include "ggml.h"

#define BLOCK       32  /* elements of a block of q4_0, q4_1, q5_0, q5_1 and q8_0 */
#define SUPER_BLOCK 256 /* elements of a block of q4_K, q5_K and q6_K */
#define LINE        64  /* bytes of a cache line */

/* The place in a panel that is written next. Row k of the panel has element k of LANES columns. */
struct panel_rows {
    float * out;
    int64_t row; /* distance between two rows */
    const char * ahead; /* the next memory to prefetch */
};

/* Prefetches the next LANES * nbytes bytes of `ahead`: as many bytes as the caller reads, which are nbytes of each row.
 * The prefetches are spread between the computations, so that the memory is always busy. They go to L2, because L1 is too
 * small for them. */
static inline __attribute__((always_inline)) void request(struct panel_rows * to, int64_t nbytes) {
    for (int64_t at = 0; at < LANES * nbytes; at += LINE) {
        __builtin_prefetch(to->ahead + at, 0, 2);
    }
    to->ahead += LANES * nbytes;
}

static inline __attribute__((always_inline)) vec whole_number(vecu shifted, uint32_t mask, uint32_t bits, float minus) {
    return vec_of_bits(bits_of(shifted, mask, bits)) - minus;
}

/* Returns byte i of each lane of w, minus a whole number. A byte below 128 fills the upper seven bits of the
 * mantissa of a float. A byte that needs all eight bits is put one byte lower. */
static inline __attribute__((always_inline)) vec byte_of(vecu w, const int i, const bool eight_bits, float minus) {
    const int  left    = (eight_bits ? 8 : 16) - 8 * i;
    const vecu shifted = left >= 0 ? w << (left >= 0 ? left : 0) : w >> (left >= 0 ? 0 : -left);
    return eight_bits ? whole_number(shifted, 0xff00, 0x47000000, 32768.0f + minus) : whole_number(shifted, 0x7f0000, 0x43000000, 128.0f + minus);
}

/* Writes 4 rows, scale * (u - bias), from the bytes u < 128 of w. */
static inline __attribute__((always_inline)) void put_scaled(struct panel_rows * to, vecu w, float bias, vec scale) {
    for (int i = 0; i < 4; i++) {
        vec_store(to->out + i * to->row, byte_of(w, i, false, bias) * scale);
    }
    to->out += 4 * to->row;
}

/* Writes 4 rows, scale * u + add, from the bytes u < 128 of w. */
static inline __attribute__((always_inline)) void put_affine(struct panel_rows * to, vecu w, vec scale, vec add) {
    for (int i = 0; i < 4; i++) {
        vec_store(to->out + i * to->row, vec_fma(byte_of(w, i, false, 0.0f), scale, add));
    }
    to->out += 4 * to->row;
}

/* Writes 4 rows, scale * q, from the signed bytes q of w. */
static inline __attribute__((always_inline)) void put_signed(struct panel_rows * to, vecu w, vec scale) {
    w ^= 0x80808080; /* changes each byte q to q + 128 */
    for (int i = 0; i < 4; i++) {
        vec_store(to->out + i * to->row, byte_of(w, i, true, 128.0f) * scale);
    }
    to->out += 4 * to->row;
}

/* Reads the f16 number at the start of each row. */
static inline vec halves_at(const char * from, size_t stride) {
    uint16_t bits[LANES];
    for (int s = 0; s < LANES; s++) {
        memcpy(&bits[s], from + (size_t) s * stride, sizeof(bits[s]));
    }
    return load_half(bits);
}

/* Moves the bits i to i + 3 of each lane into bit 4 of the bytes 0 to 3. */
static inline vecu fifth_bits(vecu bits, int i) {
    vecu b = (i >= 4 ? bits >> (i - 4) : bits << (4 - i)) & 0xf0;
    b |= b << 7;
    b |= b << 14;
    return b & 0x10101010;
}

/* ------------------------------------------------------------------ types with blocks of 32 elements */

static void fill_q4_0(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += BLOCK, from += 18) {
        request(&to, 18);
        vecu w[4];
        const vec scale = halves_at(from, stride);
        load_transposed(from + 2, stride, w);
        for (int i = 0; i < 4; i++) {
            put_scaled(&to, w[i] & 0x0f0f0f0f, 8.0f, scale);
        }
        for (int i = 0; i < 4; i++) {
            put_scaled(&to, (w[i] >> 4) & 0x0f0f0f0f, 8.0f, scale);
        }
    }
}

static void fill_q4_1(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += BLOCK, from += 20) {
        request(&to, 20);
        vecu w[4];
        const vec scale = halves_at(from, stride), add = halves_at(from + 2, stride);
        load_transposed(from + 4, stride, w);
        for (int i = 0; i < 4; i++) {
            put_affine(&to, w[i] & 0x0f0f0f0f, scale, add);
        }
        for (int i = 0; i < 4; i++) {
            put_affine(&to, (w[i] >> 4) & 0x0f0f0f0f, scale, add);
        }
    }
}

/* Returns the 32 bits at the start of each row. */
static inline vecu words_at(const char * from, size_t stride) {
    uint32_t bits[LANES];
    vecu     w;
    for (int s = 0; s < LANES; s++) {
        memcpy(&bits[s], from + (size_t) s * stride, sizeof(bits[s]));
    }
    memcpy(&w, bits, sizeof(w));
    return w;
}

static void fill_q5_0(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += BLOCK, from += 22) {
        request(&to, 22);
        vecu w[4];
        const vec  scale = halves_at(from, stride);
        const vecu fifth = words_at(from + 2, stride);
        load_transposed(from + 6, stride, w);
        for (int i = 0; i < 4; i++) {
            put_scaled(&to, (w[i] & 0x0f0f0f0f) | fifth_bits(fifth, 4 * i), 16.0f, scale);
        }
        for (int i = 0; i < 4; i++) {
            put_scaled(&to, ((w[i] >> 4) & 0x0f0f0f0f) | fifth_bits(fifth, 16 + 4 * i), 16.0f, scale);
        }
    }
}

static void fill_q5_1(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += BLOCK, from += 24) {
        request(&to, 24);
        vecu w[4];
        const vec  scale = halves_at(from, stride), add = halves_at(from + 2, stride);
        const vecu fifth = words_at(from + 4, stride);
        load_transposed(from + 8, stride, w);
        for (int i = 0; i < 4; i++) {
            put_affine(&to, (w[i] & 0x0f0f0f0f) | fifth_bits(fifth, 4 * i), scale, add);
        }
        for (int i = 0; i < 4; i++) {
            put_affine(&to, ((w[i] >> 4) & 0x0f0f0f0f) | fifth_bits(fifth, 16 + 4 * i), scale, add);
        }
    }
}

static void fill_q8_0(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += BLOCK, from += 34) {
        request(&to, 34);
        vecu w[8];
        const vec scale = halves_at(from, stride);
        load_transposed(from + 2, stride, w);
        load_transposed(from + 18, stride, w + 4);
        for (int i = 0; i < 8; i++) {
            put_signed(&to, w[i], scale);
        }
    }
}

/* ------------------------------------------------------------------ types with blocks of 256 elements */

/* The scales and minimums of the 8 parts of a block of q4_K or q5_K. */
struct k_scales {
    vec scale[8], minimum[8];
};

/* Decodes the first 16 bytes of a block: two f16 factors, then 8 scales and 8 minimums of 6 bits. */
static inline void read_k_scales(const char * from, size_t stride, struct k_scales * k) {
    vecu w[4];
    load_transposed(from, stride, w);
    const vec  d = half_low(w[0] & 0xffff), dmin = half_low(w[0] >> 16);
    const vecu scales[2]   = { w[1] & 0x3f3f3f3f, (w[3] & 0x0f0f0f0f) | ((w[1] >> 2) & 0x30303030) };
    const vecu minimums[2] = { w[2] & 0x3f3f3f3f, ((w[3] >> 4) & 0x0f0f0f0f) | ((w[2] >> 2) & 0x30303030) };
    for (int i = 0; i < 8; i++) {
        k->scale[i]   = d * byte_of(scales[i / 4], i % 4, false, 0.0f);
        k->minimum[i] = dmin * byte_of(minimums[i / 4], i % 4, false, 0.0f);
    }
}

static void fill_q4_k(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += SUPER_BLOCK, from += 144) {
        request(&to, 144);
        struct k_scales k;
        read_k_scales(from, stride, &k);
        for (int part = 0; part < 8; part += 2) {
            vecu w[8];
            load_transposed(from + 16 + 16 * part, stride, w);
            load_transposed(from + 32 + 16 * part, stride, w + 4);
            for (int i = 0; i < 8; i++) {
                put_affine(&to, w[i] & 0x0f0f0f0f, k.scale[part], -k.minimum[part]);
            }
            for (int i = 0; i < 8; i++) {
                put_affine(&to, (w[i] >> 4) & 0x0f0f0f0f, k.scale[part + 1], -k.minimum[part + 1]);
            }
        }
    }
}

static void fill_q5_k(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += SUPER_BLOCK, from += 176) {
        request(&to, 176);
        struct k_scales k;
        vecu fifth[8];
        read_k_scales(from, stride, &k);
        load_transposed(from + 16, stride, fifth);
        load_transposed(from + 32, stride, fifth + 4);
        for (int part = 0; part < 8; part += 2) {
            vecu w[8];
            load_transposed(from + 48 + 16 * part, stride, w);
            load_transposed(from + 64 + 16 * part, stride, w + 4);
            for (int i = 0; i < 8; i++) {
                put_affine(&to, (w[i] & 0x0f0f0f0f) | ((fifth[i] >> part << 4) & 0x10101010), k.scale[part], -k.minimum[part]);
            }
            for (int i = 0; i < 8; i++) {
                put_affine(&to, ((w[i] >> 4) & 0x0f0f0f0f) | ((fifth[i] >> part << 3) & 0x10101010), k.scale[part + 1],
                           -k.minimum[part + 1]);
            }
        }
    }
}

static void fill_q6_k(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    for (int64_t p = 0; p < n; p += SUPER_BLOCK, from += 210) {
        request(&to, 210);
        vecu w[4];
        vec  scale[16];
        const vec d = halves_at(from + 208, stride);
        load_transposed(from + 192, stride, w);
        for (int i = 0; i < 16; i++) {
            scale[i] = d * byte_of(w[i / 4] ^ 0x80808080, i % 4, true, 128.0f);
        }
        for (int half = 0; half < 2; half++) {
            vecu low[16], high[8];
            for (int i = 0; i < 4; i++) {
                load_transposed(from + 64 * half + 16 * i, stride, low + 4 * i);
            }
            load_transposed(from + 128 + 32 * half, stride, high);
            load_transposed(from + 144 + 32 * half, stride, high + 4);
            for (int part = 0; part < 4; part++) { /* 32 elements: the low or high four bits of 32 bytes, and two more bits */
                for (int i = 0; i < 8; i++) {
                    const vecu four = (low[8 * (part % 2) + i] >> (4 * (part / 2))) & 0x0f0f0f0f;
                    const vecu two  = (high[i] >> (2 * part) << 4) & 0x30303030;
                    put_scaled(&to, four | two, 32.0f, scale[8 * half + 2 * part + i / 4]);
                }
            }
        }
    }
}

/* ------------------------------------------------------------------ floating-point types */

static void fill_f32(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    int64_t p = 0;
    for (; p + 4 <= n; p += 4, from += 16, to.out += 4 * to.row) {
        request(&to, 16);
        vecu w[4];
        load_transposed(from, stride, w);
        for (int i = 0; i < 4; i++) {
            vec_store(to.out + i * to.row, vec_of_bits(w[i]));
        }
    }
    for (; p < n; p++, from += 4, to.out += to.row) {
        vec_store(to.out, vec_of_bits(words_at(from, stride)));
    }
}

static void fill_bf16(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    int64_t p = 0;
    for (; p + 8 <= n; p += 8, from += 16, to.out += 8 * to.row) {
        request(&to, 16);
        vecu w[4];
        load_transposed(from, stride, w);
        for (int i = 0; i < 4; i++) {
            vec_store(to.out + 2 * i * to.row, vec_of_bits(w[i] << 16));
            vec_store(to.out + (2 * i + 1) * to.row, vec_of_bits(w[i] & 0xffff0000));
        }
    }
    for (; p < n; p++, from += 2, to.out += to.row) {
        uint16_t bits[LANES];
        uint32_t wide[LANES];
        vecu     w;
        for (int s = 0; s < LANES; s++) {
            memcpy(&bits[s], from + (size_t) s * stride, sizeof(bits[s]));
            wide[s] = (uint32_t) bits[s] << 16;
        }
        memcpy(&w, wide, sizeof(w));
        vec_store(to.out, vec_of_bits(w));
    }
}

static void fill_f16(const char * from, size_t stride, int64_t n, struct panel_rows to) {
    int64_t p = 0;
    for (; p + 8 <= n; p += 8, from += 16, to.out += 8 * to.row) {
        request(&to, 16);
        vecu w[4];
        load_transposed(from, stride, w);
        for (int i = 0; i < 4; i++) {
            vec_store(to.out + 2 * i * to.row, half_low(w[i] & 0xffff));
            vec_store(to.out + (2 * i + 1) * to.row, half_low(w[i] >> 16));
        }
    }
    for (; p < n; p++, from += 2, to.out += to.row) {
        vec_store(to.out, halves_at(from, stride));
    }
}

/* ------------------------------------------------------------------ a panel of any type */

typedef void fill_function(const char * from, size_t stride, int64_t n, struct panel_rows to);

/* Returns the function for a type of ggml, or NULL. */
static fill_function * fill_of(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32:  return fill_f32;
        case GGML_TYPE_F16:  return fill_f16;
        case GGML_TYPE_BF16: return fill_bf16;
        case GGML_TYPE_Q4_0: return fill_q4_0;
        case GGML_TYPE_Q4_1: return fill_q4_1;
        case GGML_TYPE_Q5_0: return fill_q5_0;
        case GGML_TYPE_Q5_1: return fill_q5_1;
        case GGML_TYPE_Q8_0: return fill_q8_0;
        case GGML_TYPE_Q4_K: return fill_q4_k;
        case GGML_TYPE_Q5_K: return fill_q5_k;
        case GGML_TYPE_Q6_K: return fill_q6_k;
        default:             return NULL;
    }
}

/* Writes n elements along k, from element p on, of `width` rows of the matrix, from `row` on, to a panel of LANES columns.
 * Columns beyond the width are 0. p is a multiple of a block. stage: memory for LANES rows,
 * each of n elements and one block more. */
static void fill_stored(const struct tnn_stored * w, int64_t row, int64_t width, int64_t p, int64_t n, float * stage, struct panel_rows to) {
    fill_function * const fill = fill_of(w->type);
    size_t stride;
    if (width == LANES && fill != NULL && n % w->block == 0 && tnn__stored_stride(w, row, LANES, &stride)) {
        fill(tnn__stored_block(w, row, p / w->block), stride, n, to);
        return;
    }
    const int64_t stage_row = n + w->block;
    for (int64_t s = 0; s < width; s++) {
        const float * from = tnn__stored_row(w, row + s, p, n, stage + s * stage_row);
        for (int64_t i = 0; i < n; i++) {
            to.out[i * to.row + s] = from[i];
        }
    }
    for (int64_t i = 0; i < n && width < LANES; i++) {
        memset(to.out + i * to.row + width, 0, (size_t) (LANES - width) * sizeof(float));
    }
}
