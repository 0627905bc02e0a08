/* Context-adaptive binary arithmetic coding of integers, as DeepCABAC and ISO/IEC 15938-17 code the integers of neural networks
 * (Wiedemann 2019): the binarisation is theirs, the estimators, the contexts and the bytes are not.
 *
 * A matrix of 32-bit integers is scanned row by row. Each integer v becomes binary decisions ("bins"):
 *
 *     significance     v != 0
 *     sign             v < 0                     only if significant
 *     greater than k   |v| > k, k = 1 .. limit   until the first 0
 *     remainder        r = |v| - limit - 1       if all of those were 1: Exp-Golomb code of order 0: with e = floor(log2(r + 1)), e ones
 *                                                and, where e < 31, a zero (the prefix); then the e bits of r + 1 below its highest,
 *                                                from the most significant one down (the suffix)
 *
 * Format. An empty matrix takes no byte. Otherwise:
 *
 *     byte 0    bits 0-2: rate, 0 .. 4; bits 3-4: signs (0 raw bits, 1 by the integer before, 2 by the two before);
 *               bits 5-6: neighbours (0 none, 1 the two integers before, 2 these and the one above); bit 7: zero
 *     byte 1    bits 0-3: limit; bits 4-7: shift
 *     A bytes   the arithmetic code, a binary fraction from its most significant byte on
 *     B bytes   the raw bits, from the last byte of the stream backwards, the least significant bit of each byte first
 *
 * Raw bits are signs where byte 0 says so, and those of a suffix but its two highest (as a number: its least significant bit first);
 * the unused bits of the last byte of them (the one that stands first) are zero. Every other bin has a context:
 *
 *     class c           0 without neighbours, else min(3, (|v before| + |v before that| + [|v above|]) >> shift); what lies outside of
 *                       the matrix is 0, and "before" goes on over the ends of rows
 *     significance[c], greater[k - 1][c], prefix[number of ones so far][c]
 *     sign[t] or sign[3 t' + t], t for the integer before, t' for the one before that: 0 for 0, 1 above 0, 2 below
 *     suffix[e][1] for its highest bit b, suffix[e][2 + b] for the next
 *
 * A context holds two estimates of the probability of a 1 in units of 2^-31, a (fast) and b (slow), both 2^30 at first, and n, how often it
 * was used. A bin x is coded with p = (((a + b) >> 16) | 1) / 2^16; then, with s = min(4 + rate, r) for a and min(7 + rate, r) for b, r =
 * the bit length of n + 1, each becomes a - (a >> s) + (x ? (2^31 - 1) >> s : 0), and n grows by one.
 *
 * The coder's interval and how its bytes come about are those of range_coder.h, with split = (range >> 16) * 2^16 p: a 1 makes the interval
 * [low, low + split), a 0 takes [low + split, low + range). So the length is known from what was decoded, and any other is an error.
 *
 * No function allocates, or reads or writes beyond what it is given. */
#ifndef LILLIPUT_CABAC_H
#define LILLIPUT_CABAC_H

#include <stddef.h>
#include <stdint.h>

#include "../status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LP_CABAC_CLASSES 4
#define LP_CABAC_LIMIT 15

typedef struct {
    uint32_t fast, slow; /* probability of a 1, in units of 2^-31 */
    uint16_t seen;       /* how often it was used, as long as a shift still grows */
    uint8_t fast_shift, slow_shift;
} lp_cabac_context;

/* What coder and decoder have learnt: working memory, handed over by the caller, set up by each call. */
typedef struct {
    lp_cabac_context significance[LP_CABAC_CLASSES];
    lp_cabac_context greater[LP_CABAC_LIMIT][LP_CABAC_CLASSES];
    lp_cabac_context prefix[31][LP_CABAC_CLASSES];
    lp_cabac_context sign[9];
    lp_cabac_context suffix[32][4];
} lp_cabac_model;

/* The first two bytes. */
typedef struct {
    unsigned rate, signs, neighbours, limit, shift;
} lp_cabac_parameters;

/* Decode `rows` x `columns` integers. LP_CORRUPT when the stream is not what the coder writes for what was decoded. */
lp_status lp_cabac_decode(const uint8_t *coded, size_t size, lp_cabac_model *model, int32_t *values, size_t rows, size_t columns);

/* Code them; `*size` is the room at `coded` first, then what was written; LP_TOO_SHORT when there is not enough of it. */
lp_status lp_cabac_encode(const int32_t *values, size_t rows, size_t columns, const lp_cabac_parameters *parameters,
                          lp_cabac_model *model, uint8_t *coded, size_t *size);

/* The bytes that lp_cabac_encode would write, without writing. */
lp_status lp_cabac_size(const int32_t *values, size_t rows, size_t columns, const lp_cabac_parameters *parameters,
                        lp_cabac_model *model, uint64_t *size);

/* Choose parameters by trying: one axis after the other, on the first 2^20 values at most. */
lp_status lp_cabac_choose(const int32_t *values, size_t rows, size_t columns, lp_cabac_model *model, lp_cabac_parameters *chosen);

/* Where a coder stands in its matrix: for quantizers that ask what the next integer would cost. The caller sets `above` (0 in the first row). */
typedef struct {
    lp_cabac_parameters parameters;
    int32_t before, before_that, above;
} lp_cabac_place;

/* Before the first integer. LP_BAD_SHAPE for parameters that do not exist. */
lp_status lp_cabac_begin(lp_cabac_model *model, lp_cabac_place *place, const lp_cabac_parameters *parameters);

/* Bits that `value` would take at a place, in units of 2^-15 bit: the sum of -log2 p of its bins, within 2^-12 bit each. Nothing is learnt. */
uint32_t lp_cabac_cost(lp_cabac_model *model, const lp_cabac_place *place, int32_t value);

/* Learn `value` as the coder does, and go on to the next place. */
void lp_cabac_advance(lp_cabac_model *model, lp_cabac_place *place, int32_t value);

/* What the rate-aware rounding minimises: importance * (w - step * q)^2 + slope * bits(q). */
typedef struct {
    float step, slope;
    const float *importance; /* one for each weight, or NULL for 1 */
} lp_cabac_trade;

/* Codes of `rows` x `columns` weights, each the best among rounding to nearest, one towards zero of that, and zero, at the cost of the
 * moment; what was chosen is then learnt, as the coder will. LP_BAD_CODE when a weight over the step is no 32-bit integer. */
lp_status lp_cabac_quantize(const float *weights, size_t rows, size_t columns, const lp_cabac_trade *trade,
                            const lp_cabac_parameters *parameters, lp_cabac_model *model, int32_t *codes);

#ifdef __cplusplus
}
#endif

#endif
