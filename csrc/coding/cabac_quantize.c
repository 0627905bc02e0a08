#include "cabac_bins.h"

#define BIT 32768u /* the unit of costs is 2^-15 bit */

/* log2(1 + i / 64), linear between. */
static const uint16_t logarithm[65] = {
    0u, 733u, 1455u, 2166u, 2866u, 3556u, 4236u, 4907u, 5568u, 6220u, 6863u, 7498u, 8124u, 8742u, 9352u, 9954u, 10549u, 11136u,
    11716u, 12289u, 12855u, 13415u, 13968u, 14514u, 15055u, 15589u, 16117u, 16639u, 17156u, 17667u, 18173u, 18673u, 19168u,
    19658u, 20143u, 20623u, 21098u, 21568u, 22034u, 22495u, 22952u, 23404u, 23852u, 24296u, 24736u, 25172u, 25604u, 26031u,
    26455u, 26876u, 27292u, 27705u, 28114u, 28520u, 28922u, 29321u, 29717u, 30109u, 30498u, 30884u, 31267u, 31647u, 32024u,
    32397u, 32768u,
};

/* -log2(p / 2^16), p from 1 to 2^16 - 1. */
static uint32_t bin_cost(uint32_t p) {
    const unsigned whole = lp_cabac_log2(p);
    const uint32_t fraction = (p << (15u - whole)) & 32767u, i = fraction >> 9, within = fraction & 511u;
    const uint32_t log = logarithm[i] + (((uint32_t)logarithm[i + 1u] - logarithm[i]) * within + 256u) / 512u;
    return (16u - whole) * BIT - log;
}

#define COST_BIN(context, bit) (cost += bin_cost((bit) ? lp_cabac_probability(context) : 65536u - lp_cabac_probability(context)))
#define COST_RAW(number, bits) (cost += BIT * (bits))

uint32_t lp_cabac_cost(lp_cabac_model *model, const lp_cabac_place *place, int32_t value) {
    uint32_t cost = 0u;
    LP_CABAC_BINS(model, place, value, COST_BIN, COST_RAW);
    return cost;
}

lp_status lp_cabac_begin(lp_cabac_model *model, lp_cabac_place *place, const lp_cabac_parameters *parameters) {
    if (lp_cabac_check(parameters) != LP_OK) {
        return LP_BAD_SHAPE;
    }
    lp_cabac_start(model);
    lp_cabac_enter(place, parameters);
    return LP_OK;
}

#define LEARN_BIN(context, bit) lp_cabac_learn(context, (bit) ? ~0u : 0u, place->parameters.rate)
#define LEARN_RAW(number, bits) ((void)0)

void lp_cabac_advance(lp_cabac_model *model, lp_cabac_place *place, int32_t value) {
    LP_CABAC_BINS(model, place, value, LEARN_BIN, LEARN_RAW);
    lp_cabac_pass(place, value);
}

/* The cheapest of rounding to nearest, one towards zero of that, and zero; of equals the one furthest from zero. */
static int32_t best_code(lp_cabac_model *model, const lp_cabac_place *place, double in_steps, double worth, double slope) {
    const int32_t nearest = (int32_t)(in_steps + (in_steps < 0.0 ? -0.5 : 0.5));
    const int32_t inner = nearest < 0 ? nearest + 1 : nearest - 1;
    const int32_t candidates[3] = {nearest, inner, 0};
    const unsigned count = nearest == 0 ? 1u : inner == 0 ? 2u : 3u;
    int32_t best = nearest;
    double least = 0.0;
    for (unsigned i = 0; i < count; ++i) {
        const double off = in_steps - candidates[i];
        const double total = worth * off * off + slope * lp_cabac_cost(model, place, candidates[i]);
        if (i == 0u || total < least) {
            least = total;
            best = candidates[i];
        }
    }
    return best;
}

lp_status lp_cabac_quantize(const float *weights, size_t rows, size_t columns, const lp_cabac_trade *trade,
                            const lp_cabac_parameters *parameters, lp_cabac_model *model, int32_t *codes) {
    size_t count = 0u;
    if (lp_cabac_shape(rows, columns, &count) != LP_OK) {
        return LP_BAD_SHAPE;
    }
    if (count != 0u && (weights == NULL || model == NULL || codes == NULL)) {
        return LP_NULL;
    }
    lp_cabac_place place;
    if (count == 0u || lp_cabac_begin(model, &place, parameters) != LP_OK) {
        return count == 0u ? LP_OK : LP_BAD_SHAPE;
    }
    const double step = trade->step;
    for (size_t i = 0; i < count; ++i) {
        const double in_steps = (double)weights[i] / step;
        if (!(in_steps > -2147483648.5 && in_steps < 2147483647.5)) {
            return LP_BAD_CODE; /* NaN too */
        }
        const double worth = (trade->importance == NULL ? 1.0 : (double)trade->importance[i]) * step * step;
        place.above = i >= columns ? codes[i - columns] : 0;
        codes[i] = best_code(model, &place, in_steps, worth, (double)trade->slope / BIT);
        lp_cabac_advance(model, &place, codes[i]);
    }
    return LP_OK;
}
