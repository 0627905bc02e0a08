/* What CABAC's coder, decoder and quantizer share: contexts and how they learn. */
#ifndef LILLIPUT_CABAC_MODEL_H
#define LILLIPUT_CABAC_MODEL_H

#include "../cpu.h"
#include "cabac.h"
#include "range_coder.h"

#define LP_CABAC_ONE 0x7fffffffu
#define LP_CABAC_RATES 5u

static inline lp_status lp_cabac_check(const lp_cabac_parameters *p) {
    return p->rate < LP_CABAC_RATES && p->signs < 3u && p->neighbours < 3u && p->limit <= LP_CABAC_LIMIT && p->shift < 16u ? LP_OK : LP_CORRUPT;
}

static inline void lp_cabac_start_contexts(lp_cabac_context *contexts, size_t count) {
    const lp_cabac_context fresh = {1u << 30, 1u << 30, 0u, 1u, 1u};
    for (size_t i = 0; i < count; ++i) {
        contexts[i] = fresh;
    }
}

/* `limit` rows of `greater` are enough, and most integers never get beyond the first few prefixes, but they must be ready. */
static inline void lp_cabac_start(lp_cabac_model *model) {
    lp_cabac_start_contexts(model->significance, LP_CABAC_CLASSES);
    lp_cabac_start_contexts(model->greater[0], LP_CABAC_LIMIT * LP_CABAC_CLASSES);
    lp_cabac_start_contexts(model->prefix[0], 31 * LP_CABAC_CLASSES);
    lp_cabac_start_contexts(model->sign, 9);
    lp_cabac_start_contexts(model->suffix[0], 32 * 4);
}

/* Probability of a 1 in units of 2^-16, never 0 or 1. */
static inline uint32_t lp_cabac_probability(const lp_cabac_context *c) { return ((c->fast + c->slow) >> 16) | 1u; }

/* The shifts grow with the bit length of the uses so far: a fresh context learns fast. */
static inline void lp_cabac_ripen(lp_cabac_context *c, unsigned rate) {
    if (c->slow_shift < 7u + rate) {
        c->seen = (uint16_t)(c->seen + 1u);
        if ((c->seen + 1u) >> c->slow_shift) {
            c->slow_shift = (uint8_t)(c->slow_shift + 1u);
            c->fast_shift = c->slow_shift < 4u + rate ? c->slow_shift : (uint8_t)(4u + rate);
        }
    }
}

/* `ones` is 0 for a 0 and all ones for a 1. */
static inline void lp_cabac_learn(lp_cabac_context *c, uint32_t ones, unsigned rate) {
    const uint32_t target = ones & LP_CABAC_ONE;
    c->fast += (target >> c->fast_shift) - (c->fast >> c->fast_shift);
    c->slow += (target >> c->slow_shift) - (c->slow >> c->slow_shift);
    lp_cabac_ripen(c, rate);
}

static inline uint32_t lp_cabac_magnitude(int32_t value) { return value < 0 ? 0u - (uint32_t)value : (uint32_t)value; }

static inline unsigned lp_cabac_ternary(int32_t value) { return value == 0 ? 0u : value > 0 ? 1u : 2u; }

static inline unsigned lp_cabac_class(const lp_cabac_parameters *p, int32_t before, int32_t before_that, int32_t above) {
    const uint64_t sum = (uint64_t)lp_cabac_magnitude(before) + lp_cabac_magnitude(before_that) + (p->neighbours == 2u ? lp_cabac_magnitude(above) : 0u);
    const uint64_t scaled = sum >> p->shift;
    return scaled < LP_CABAC_CLASSES ? (unsigned)scaled : LP_CABAC_CLASSES - 1u;
}

static inline lp_status lp_cabac_shape(size_t rows, size_t columns, size_t *count) {
    if (columns != 0u && rows > SIZE_MAX / sizeof(int32_t) / columns) {
        return LP_BAD_SHAPE;
    }
    *count = rows * columns;
    return LP_OK;
}

#endif
