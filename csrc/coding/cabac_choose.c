#include "cabac_model.h"

#define SAMPLE (UINT64_C(1) << 20)

typedef struct {
    const int32_t *values;
    size_t rows, columns;
    lp_cabac_model *model;
    lp_cabac_parameters best;
    uint64_t size;
} search;

/* Keep a candidate that saves more than one part in `worth` (0: anything). */
static void attempt(search *s, lp_cabac_parameters candidate, uint64_t worth) {
    uint64_t size = 0u;
    if (lp_cabac_size(s->values, s->rows, s->columns, &candidate, s->model, &size) != LP_OK) {
        return;
    }
    if (size + (worth == 0u ? 0u : s->size / worth) < s->size) {
        s->best = candidate;
        s->size = size;
    }
}

/* Contexts by neighbours and signs by context make decoding slower: they must save something worth it. */
static void attempt_all(search *s) {
    static const uint8_t limits[] = {2u, 4u, 10u};
    for (size_t i = 0; i < sizeof limits; ++i) {
        lp_cabac_parameters p = s->best;
        p.limit = limits[i];
        attempt(s, p, 2000u);
    }
    const unsigned rates[] = {2u, 1u, 0u, 4u};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; ++i) {
        lp_cabac_parameters p = s->best;
        p.rate = rates[i];
        attempt(s, p, 0u);
    }
    for (unsigned signs = 1u; signs <= 2u; ++signs) {
        lp_cabac_parameters p = s->best;
        p.signs = signs;
        attempt(s, p, 300u);
    }
    for (unsigned neighbours = 1u; neighbours <= 2u; ++neighbours) {
        for (unsigned shift = 0u; shift < 8u; ++shift) {
            lp_cabac_parameters p = s->best;
            p.neighbours = neighbours;
            p.shift = shift;
            attempt(s, p, 500u);
        }
    }
}

lp_status lp_cabac_choose(const int32_t *values, size_t rows, size_t columns, lp_cabac_model *model, lp_cabac_parameters *chosen) {
    size_t count = 0u;
    if (lp_cabac_shape(rows, columns, &count) != LP_OK) {
        return LP_BAD_SHAPE;
    }
    const lp_cabac_parameters first = {3u, 0u, 0u, 1u, 0u};
    search s = {values, rows, columns, model, first, UINT64_MAX};
    if (count > SAMPLE) {
        s.rows = columns > SAMPLE ? 1u : (size_t)(SAMPLE / columns);
        s.columns = columns > SAMPLE ? (size_t)SAMPLE : columns;
    }
    const lp_status status = lp_cabac_size(s.values, s.rows, s.columns, &first, model, &s.size);
    if (status == LP_OK && count != 0u) {
        attempt_all(&s);
    }
    *chosen = s.best;
    return status;
}
