/* From sums to codes, within int8; what an activation takes away is left to lp_limit. */
#ifndef LP_FINISH_H
#define LP_FINISH_H

#include "lp.h"

static inline int32_t lp_code(int32_t sum, int32_t multiplier, int shift, int32_t zero)
{
#ifndef LP_SINGLE_ROUNDING
    if (shift < 0) return lp_clamp(lp_twice(sum, multiplier, -shift, zero) >> 1, -128, 127);
#endif
    return lp_clamp(lp_rescale(sum, multiplier, shift) + zero, -128, 127);
}

/* The codes of two pixels, at a and b, of the filter `channel` and of the one `next` behind it. Numbers are read before codes are written. */
static inline void lp_finish_2x2(const lp_conv *p, const int32_t sums[4], int32_t channel, int32_t next, int8_t *a, int8_t *b)
{
    const int32_t *multipliers = p->multipliers + channel, m = multipliers[0], n = multipliers[next], zero = p->out_zero;
    const int8_t *shifts = p->shifts + channel;
    const int s = shifts[0], t = shifts[next];
    const int32_t am = lp_code(sums[0], m, s, zero), bm = lp_code(sums[1], m, s, zero);
    const int32_t an = lp_code(sums[2], n, t, zero), bn = lp_code(sums[3], n, t, zero);
    a[channel] = (int8_t)am;
    b[channel] = (int8_t)bm;
    a[channel + next] = (int8_t)an;
    b[channel + next] = (int8_t)bn;
}

/* The codes of four filters that follow each other. */
static inline void lp_finish_1x4(const lp_conv *p, const int32_t sums[4], int32_t channel, int8_t *out)
{
    const int32_t *m = p->multipliers + channel, zero = p->out_zero;
    const int8_t *s = p->shifts + channel;
    const int32_t x = lp_code(sums[0], m[0], s[0], zero), y = lp_code(sums[1], m[1], s[1], zero);
    const int32_t z = lp_code(sums[2], m[2], s[2], zero), w = lp_code(sums[3], m[3], s[3], zero);
    out[channel] = (int8_t)x;
    out[channel + 1] = (int8_t)y;
    out[channel + 2] = (int8_t)z;
    out[channel + 3] = (int8_t)w;
}

/* What an activation does to codes that are there. */
static inline void lp_limit(const lp_conv *p, int8_t *out, int32_t count)
{
    const int32_t low = p->low, high = p->high;
    if (low == -128 && high == 127) return;
    for (int32_t i = 0; i < count; i++) out[i] = (int8_t)lp_clamp(out[i], low, high);
}

#endif
