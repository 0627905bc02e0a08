#include "cabac_model.h"

typedef struct {
    int32_t *values;
    size_t count, columns;
} matrix;

typedef struct {
    lp_range_decoder bins; /* its bytes are all behind the first two, the raw ones at their end */
    uint64_t raw;          /* raw bits read and not yet taken */
    uint64_t raw_at;       /* bytes of them read, counted from the end */
    unsigned raw_left, rate;
} decoder;

/* lp_cabac_learn, with the shifts of a ripe context at hand. */
LP_ALWAYS_INLINE void learn(const decoder *d, lp_cabac_context *c, uint32_t ones) {
    if (LP_OFTEN(c->slow_shift == d->rate + 7u)) {
        const unsigned fast = d->rate + 4u, slow = d->rate + 7u;
        c->fast += ((ones & LP_CABAC_ONE) >> fast) - (c->fast >> fast);
        c->slow += ((ones & LP_CABAC_ONE) >> slow) - (c->slow >> slow);
    } else {
        lp_cabac_learn(c, ones, d->rate);
    }
}

/* A bin that the flow follows: a branch, so that the next one's context and interval need not wait for the comparison. */
LP_ALWAYS_INLINE int decode_flag(decoder *d, lp_cabac_context *c) {
    const uint64_t split = (d->bins.range >> 16) * lp_cabac_probability(c);
    if (d->bins.value < split) {
        d->bins.range = split;
        learn(d, c, ~0u);
        lp_range_refill(&d->bins);
        return 1;
    }
    d->bins.value -= split;
    d->bins.range -= split;
    learn(d, c, 0u);
    lp_range_refill(&d->bins);
    return 0;
}

/* A bin that is only a number: no branch, since nothing could predict it. */
LP_ALWAYS_INLINE uint32_t decode_digit(decoder *d, lp_cabac_context *c) {
    const uint64_t split = (d->bins.range >> 16) * lp_cabac_probability(c), rest = d->bins.range - split, less = d->bins.value - split;
    const uint64_t zero = 0u - (uint64_t)(d->bins.value >= split);
    d->bins.range = split ^ ((split ^ rest) & zero);
    d->bins.value = d->bins.value ^ ((d->bins.value ^ less) & zero);
    learn(d, c, (uint32_t)~zero);
    lp_range_refill(&d->bins);
    return (uint32_t)(zero + 1u);
}

/* The next raw bits, at most 29. */
LP_ALWAYS_INLINE uint32_t take_raw(decoder *d, unsigned bits) {
    if (d->raw_left < bits) {
        for (unsigned i = 0; i < 4u; ++i) {
            d->raw_at += 1u;
            d->raw |= (uint64_t)(d->raw_at <= d->bins.size ? d->bins.bytes[d->bins.size - d->raw_at] : 0u) << d->raw_left;
            d->raw_left += 8u;
        }
    }
    const uint32_t taken = (uint32_t)d->raw & ((1u << bits) - 1u);
    d->raw >>= bits;
    d->raw_left -= bits;
    return taken;
}

/* |v| - limit - 1, by Exp-Golomb's code. */
LP_ALWAYS_INLINE uint32_t decode_remainder(decoder *d, lp_cabac_model *model, unsigned c) {
    unsigned ones = 0u;
    while (ones < 31u && decode_flag(d, &model->prefix[ones][c])) {
        ones += 1u;
    }
    uint32_t number = 1u;
    if (ones >= 1u) {
        number = 2u | decode_digit(d, &model->suffix[ones][1]);
    }
    if (ones >= 2u) {
        number = number << 1 | decode_digit(d, &model->suffix[ones][number]);
    }
    if (ones >= 3u) {
        number = number << (ones - 2u) | take_raw(d, ones - 2u);
    }
    return number - 1u;
}

/* Whether neighbours or signs have contexts are constants where it is called. */
LP_ALWAYS_INLINE int decode_values(decoder *from, lp_cabac_model *model, const lp_cabac_parameters *p, const matrix *m, unsigned neighbours,
                                   unsigned signs) {
    decoder d = *from; /* a copy that stays in registers */
    int32_t *values = m->values, before = 0, before_that = 0;
    unsigned t = 0u, t_before = 0u;
    const unsigned limit = p->limit;
    uint32_t wrong = 0u;
    for (size_t i = 0; i < m->count; ++i) {
        unsigned c = 0u;
        if (neighbours != 0u) {
            c = lp_cabac_class(p, before, before_that, i >= m->columns ? values[i - m->columns] : 0);
        }
        int32_t value = 0;
        unsigned t_now = 0u;
        if (decode_flag(&d, &model->significance[c])) {
            const uint32_t minus = signs == 0u ? take_raw(&d, 1u) : decode_digit(&d, &model->sign[signs == 2u ? 3u * t_before + t : t]);
            uint32_t magnitude = 1u;
            while (magnitude <= limit && decode_flag(&d, &model->greater[magnitude - 1u][c])) {
                magnitude += 1u;
            }
            if (magnitude > limit) {
                const uint32_t rest = decode_remainder(&d, model, c);
                wrong |= rest > LP_CABAC_ONE + minus - magnitude;
                magnitude += rest;
            }
            value = (int32_t)((magnitude ^ (0u - minus)) + minus);
            t_now = 1u + minus;
        }
        values[i] = value;
        before_that = before;
        before = value;
        t_before = t;
        t = t_now;
    }
    *from = d;
    return wrong != 0u;
}

#if LP_X86
LP_ALWAYS_INLINE int decode_any(decoder *d, lp_cabac_model *model, const lp_cabac_parameters *p, const matrix *m) {
    if (p->neighbours != 0u) {
        return decode_values(d, model, p, m, p->neighbours, p->signs);
    }
    return p->signs == 0u ? decode_values(d, model, p, m, 0u, 0u) : decode_values(d, model, p, m, 0u, p->signs);
}

/* Shifts by a register in one instruction. */
__attribute__((target("bmi2"))) static int decode_bmi2(decoder *d, lp_cabac_model *model, const lp_cabac_parameters *p, const matrix *m) {
    return decode_any(d, model, p, m);
}

static int decode_plain(decoder *d, lp_cabac_model *model, const lp_cabac_parameters *p, const matrix *m) {
    return decode_any(d, model, p, m);
}

static int decode(decoder *d, lp_cabac_model *model, const lp_cabac_parameters *p, const matrix *m) {
    return __builtin_cpu_supports("bmi2") ? decode_bmi2(d, model, p, m) : decode_plain(d, model, p, m);
}
#else
static int decode(decoder *d, lp_cabac_model *model, const lp_cabac_parameters *p, const matrix *m) {
    return decode_values(d, model, p, m, p->neighbours, p->signs);
}
#endif

lp_status lp_cabac_decode(const uint8_t *coded, size_t size, lp_cabac_model *model, int32_t *values, size_t rows, size_t columns) {
    matrix m = {values, 0u, columns};
    if (lp_cabac_shape(rows, columns, &m.count) != LP_OK) {
        return LP_BAD_SHAPE;
    }
    if (m.count == 0u) {
        return size == 0u ? LP_OK : LP_CORRUPT;
    }
    if (model == NULL || values == NULL || coded == NULL) {
        return LP_NULL;
    }
    if (size < 3u) {
        return LP_CORRUPT;
    }
    const lp_cabac_parameters p = {coded[0] & 7u, coded[0] >> 3 & 3u, (unsigned)coded[0] >> 5, coded[1] & 15u, (unsigned)coded[1] >> 4};
    if (lp_cabac_check(&p) != LP_OK) {
        return LP_CORRUPT;
    }
    lp_cabac_start(model);
    decoder d = {{0u, 0u, NULL, 0u, 0u}, 0u, 0u, 0u, p.rate};
    lp_range_open(&d.bins, coded + 2, size - 2u);
    const int wrong = decode(&d, model, &p, &m);
    const uint64_t raw_bits = 8u * d.raw_at - d.raw_left, unused = d.raw & ((UINT64_C(1) << ((0u - raw_bits) & 7u)) - 1u);
    return wrong || 2u + lp_range_size(&d.bins) + (raw_bits + 7u) / 8u != size || unused != 0u ? LP_CORRUPT : LP_OK;
}
