#include "cabac_bins.h"

#include <string.h>

/* The raw bits grow downwards from the end of the room, which is where the arithmetic code must stop. */
typedef struct {
    lp_range_encoder bins;
    uint64_t raw;
    unsigned raw_left, rate;
} encoder;

LP_ALWAYS_INLINE void encode_bin(encoder *e, lp_cabac_context *c, int bit) {
    const uint64_t split = (e->bins.range >> 16) * lp_cabac_probability(c);
    if (bit) {
        e->bins.range = split;
    } else {
        lp_range_add(&e->bins, split);
        e->bins.range -= split;
    }
    lp_cabac_learn(c, bit ? ~0u : 0u, e->rate);
    lp_range_flush(&e->bins);
}

static void put_raw_byte(encoder *e) {
    if (e->bins.end == e->bins.next) {
        e->bins.full = 1;
    } else {
        *--e->bins.end = (uint8_t)e->raw;
    }
    e->raw >>= 8;
}

LP_ALWAYS_INLINE void encode_raw(encoder *e, uint32_t number, unsigned bits) {
    e->raw |= (uint64_t)number << e->raw_left;
    e->raw_left += bits;
    while (e->raw_left >= 8u) {
        put_raw_byte(e);
        e->raw_left -= 8u;
    }
}

#define ENCODE_BIN(context, bit) encode_bin(&e, context, bit)
#define ENCODE_RAW(number, bits) encode_raw(&e, number, bits)

lp_status lp_cabac_encode(const int32_t *values, size_t rows, size_t columns, const lp_cabac_parameters *parameters,
                          lp_cabac_model *model, uint8_t *coded, size_t *size) {
    size_t count = 0u;
    if (lp_cabac_shape(rows, columns, &count) != LP_OK || lp_cabac_check(parameters) != LP_OK) {
        return LP_BAD_SHAPE;
    }
    if (count == 0u) {
        *size = 0u;
        return LP_OK;
    }
    if (values == NULL || model == NULL || coded == NULL) {
        return LP_NULL;
    }
    if (*size < 3u) {
        return LP_TOO_SHORT;
    }
    coded[0] = (uint8_t)(parameters->rate | parameters->signs << 3 | parameters->neighbours << 5);
    coded[1] = (uint8_t)(parameters->limit | parameters->shift << 4);
    lp_cabac_start(model);
    encoder e = {{0u, UINT64_MAX, coded + 2, coded + *size, 0}, 0u, 0u, parameters->rate};
    lp_cabac_place place;
    lp_cabac_enter(&place, parameters);
    for (size_t i = 0; i < count && !e.bins.full; ++i) {
        place.above = i >= columns ? values[i - columns] : 0;
        LP_CABAC_BINS(model, &place, values[i], ENCODE_BIN, ENCODE_RAW);
        lp_cabac_pass(&place, values[i]);
    }
    lp_range_finish(&e.bins);
    if (e.raw_left != 0u) {
        put_raw_byte(&e);
    }
    if (e.bins.full) {
        return LP_TOO_SHORT;
    }
    const size_t raw = (size_t)(coded + *size - e.bins.end);
    memmove(e.bins.next, e.bins.end, raw);
    *size = (size_t)(e.bins.next - coded) + raw;
    return LP_OK;
}

/* The interval's length alone says how many bytes there will be. */
typedef struct {
    uint64_t range, words, raw_bits;
    unsigned rate;
} measure;

LP_ALWAYS_INLINE void measure_bin(measure *m, lp_cabac_context *c, int bit) {
    const uint64_t split = (m->range >> 16) * lp_cabac_probability(c);
    m->range = bit ? split : m->range - split;
    lp_cabac_learn(c, bit ? ~0u : 0u, m->rate);
    if (m->range < LP_RANGE_LEAST) {
        m->range <<= 32;
        m->words += 1u;
    }
}

#define MEASURE_BIN(context, bit) measure_bin(&m, context, bit)
#define MEASURE_RAW(number, bits) (m.raw_bits += (bits))

lp_status lp_cabac_size(const int32_t *values, size_t rows, size_t columns, const lp_cabac_parameters *parameters,
                        lp_cabac_model *model, uint64_t *size) {
    size_t count = 0u;
    if (lp_cabac_shape(rows, columns, &count) != LP_OK || lp_cabac_check(parameters) != LP_OK) {
        return LP_BAD_SHAPE;
    }
    *size = 0u;
    if (count == 0u) {
        return LP_OK;
    }
    if (values == NULL || model == NULL) {
        return LP_NULL;
    }
    lp_cabac_start(model);
    measure m = {UINT64_MAX, 0u, 0u, parameters->rate};
    lp_cabac_place place;
    lp_cabac_enter(&place, parameters);
    for (size_t i = 0; i < count; ++i) {
        place.above = i >= columns ? values[i - columns] : 0;
        LP_CABAC_BINS(model, &place, values[i], MEASURE_BIN, MEASURE_RAW);
        lp_cabac_pass(&place, values[i]);
    }
    *size = 2u + 4u * m.words + lp_range_tail(m.range) + (m.raw_bits + 7u) / 8u;
    return LP_OK;
}
