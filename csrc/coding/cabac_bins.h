/* The bins of one integer, for whoever codes, measures or only learns them: BIN(context, bit) and RAW(number, bits). */
#ifndef LILLIPUT_CABAC_BINS_H
#define LILLIPUT_CABAC_BINS_H

#include "cabac_model.h"

static inline unsigned lp_cabac_log2(uint32_t value) {
#ifdef __GNUC__
    return 31u - (unsigned)__builtin_clz(value);
#else
    unsigned log = 0u;
    while (value >>= 1) {
        log += 1u;
    }
    return log;
#endif
}

static inline lp_cabac_context *lp_cabac_sign(lp_cabac_model *model, const lp_cabac_place *place) {
    const unsigned t = lp_cabac_ternary(place->before);
    return &model->sign[place->parameters.signs == 2u ? 3u * lp_cabac_ternary(place->before_that) + t : t];
}

#define LP_CABAC_BINS(model, place, v, BIN, RAW)                                                                                  \
    do {                                                                                                                          \
        const lp_cabac_parameters *bins_p = &(place)->parameters;                                                                 \
        const uint32_t bins_magnitude = lp_cabac_magnitude(v), bins_limit = bins_p->limit;                                        \
        const unsigned bins_c =                                                                                                   \
            bins_p->neighbours == 0u ? 0u : lp_cabac_class(bins_p, (place)->before, (place)->before_that, (place)->above);        \
        BIN(&(model)->significance[bins_c], bins_magnitude != 0u);                                                                \
        if (bins_magnitude == 0u) {                                                                                               \
            break;                                                                                                                \
        }                                                                                                                         \
        if (bins_p->signs == 0u) {                                                                                                \
            RAW((uint32_t)((v) < 0), 1u);                                                                                         \
        } else {                                                                                                                  \
            BIN(lp_cabac_sign(model, place), (v) < 0);                                                                            \
        }                                                                                                                         \
        for (uint32_t bins_k = 1u; bins_k <= bins_limit && bins_k <= bins_magnitude; ++bins_k) {                                  \
            BIN(&(model)->greater[bins_k - 1u][bins_c], bins_magnitude > bins_k);                                                 \
        }                                                                                                                         \
        if (bins_magnitude <= bins_limit) {                                                                                       \
            break;                                                                                                                \
        }                                                                                                                         \
        const uint32_t bins_number = bins_magnitude - bins_limit;                                                                 \
        const unsigned bins_e = lp_cabac_log2(bins_number);                                                                       \
        for (unsigned bins_k = 0u; bins_k < 31u && bins_k <= bins_e; ++bins_k) {                                                  \
            BIN(&(model)->prefix[bins_k][bins_c], bins_k < bins_e);                                                               \
        }                                                                                                                         \
        if (bins_e >= 1u) {                                                                                                       \
            BIN(&(model)->suffix[bins_e][1], bins_number >> (bins_e - 1u) & 1u);                                                  \
        }                                                                                                                         \
        if (bins_e >= 2u) {                                                                                                       \
            BIN(&(model)->suffix[bins_e][bins_number >> (bins_e - 1u)], bins_number >> (bins_e - 2u) & 1u);                       \
        }                                                                                                                         \
        if (bins_e >= 3u) {                                                                                                       \
            RAW(bins_number & ((1u << (bins_e - 2u)) - 1u), bins_e - 2u);                                                         \
        }                                                                                                                         \
    } while (0)

static inline void lp_cabac_enter(lp_cabac_place *place, const lp_cabac_parameters *parameters) {
    const lp_cabac_place start = {*parameters, 0, 0, 0};
    *place = start;
}

static inline void lp_cabac_pass(lp_cabac_place *place, int32_t value) {
    place->before_that = place->before;
    place->before = value;
}

#endif
