/* From sums to codes for the DSP extension, within int8; what an activation takes away is left to lp_limit. */
#ifndef LP_FINISH_H
#define LP_FINISH_H

#ifndef __ARM_FEATURE_DSP
#error "these kernels need the DSP extension (Cortex-M4, M7, M33): compile with its -mcpu, or generate the project for another target"
#endif

#include <arm_acle.h>
#include <string.h>

#include "lp.h"

static inline int32_t lp_code(int32_t sum, int32_t multiplier, int shift, int32_t zero)
{
    return lp_clamp(lp_rescale(sum, multiplier, shift) + zero, -128, 127);
}

static inline int32_t lp_double(int32_t multiplier)
{
    return (int32_t)((uint32_t)multiplier << 1);
}

/* Where it is rare. */
static __attribute__((noinline, unused)) int32_t lp_code_any(int32_t sum, int32_t multiplier, int shift, int32_t zero)
{
    return lp_code(sum, multiplier, shift, zero);
}

/* The same for a shift below 0, whose complement is the lowest byte of `exponent`. With 2 m - 2^32 for m the high half of a product is short by x,
 * which SMMLAR adds. */
static inline int32_t lp_code_below(int32_t sum, int32_t twice_multiplier, uint32_t exponent, int32_t twice_zero_and_one)
{
    int32_t x;
    __asm__("smmlar %0, %1, %2, %1\n\tadd %0, %0, %0, asr #31\n\tasr %0, %0, %3\n\tadd %0, %0, %4\n\tssat %0, #8, %0, asr #1"
            : "=&r"(x) : "r"(sum), "r"(twice_multiplier), "r"(exponent), "r"(twice_zero_and_one));
    return x;
}

/* The codes of two pixels of the filter `channel` and of the one `next` behind it. */
static inline void lp_finish_2x2(const lp_conv *p, const int32_t sums[4], int32_t channel, int32_t next, int8_t *a, int8_t *b)
{
    const int32_t *multipliers = p->multipliers + channel, m = multipliers[0], n = multipliers[next], zero = p->out_zero;
    const int8_t *shifts = p->shifts + channel;
    const int s = shifts[0], t = shifts[next];
    int32_t am, bm, an, bn;
    a += channel;
    b += channel;
#ifndef LP_SINGLE_ROUNDING
    if ((s & t) < 0) {
        const int32_t offset = 2 * zero + 1;
        const uint32_t u = (uint32_t)~s, v = (uint32_t)~t;
        am = lp_code_below(sums[0], lp_double(m), u, offset);
        bm = lp_code_below(sums[1], lp_double(m), u, offset);
        an = lp_code_below(sums[2], lp_double(n), v, offset);
        bn = lp_code_below(sums[3], lp_double(n), v, offset);
    } else
#endif
    {
        am = lp_code_any(sums[0], m, s, zero);
        bm = lp_code_any(sums[1], m, s, zero);
        an = lp_code_any(sums[2], n, t, zero);
        bn = lp_code_any(sums[3], n, t, zero);
    }
    a[0] = (int8_t)am;
    b[0] = (int8_t)bm;
    a[next] = (int8_t)an;
    b[next] = (int8_t)bn;
}

/* The codes of two pixels, at a and b, of four filters that follow each other; x and y are their sums. Written out, so that none of them has to lie in
 * memory. */
static inline void lp_finish_2x4(const lp_conv *p, const int32_t x[4], const int32_t y[4], int32_t channel, int8_t *a, int8_t *b)
{
    const int32_t *m = p->multipliers + channel, zero = p->out_zero;
    const int8_t *s = p->shifts + channel;
    int32_t c[4], d[4];
    a += channel;
    b += channel;
#define LP_CODES(k, CODE, multiplier, shift, offset) c[k] = CODE(x[k], multiplier, shift, offset), d[k] = CODE(y[k], multiplier, shift, offset)
#define LP_ANY(k) LP_CODES(k, lp_code_any, m[k], s[k], zero)
#define LP_BELOW(k) LP_CODES(k, lp_code_below, lp_double(m[k]), exponents >> 8 * k, offset)
#ifndef LP_SINGLE_ROUNDING
    const int32_t offset = 2 * zero + 1;
    uint32_t exponents;
    memcpy(&exponents, s, 4);
    exponents = ~exponents;
    if (!(exponents & 0x80808080u)) {
        LP_BELOW(0);
        LP_BELOW(1);
        LP_BELOW(2);
        LP_BELOW(3);
    } else
#endif
    {
        LP_ANY(0);
        LP_ANY(1);
        LP_ANY(2);
        LP_ANY(3);
    }
    a[0] = (int8_t)c[0];
    a[1] = (int8_t)c[1];
    a[2] = (int8_t)c[2];
    a[3] = (int8_t)c[3];
    b[0] = (int8_t)d[0];
    b[1] = (int8_t)d[1];
    b[2] = (int8_t)d[2];
    b[3] = (int8_t)d[3];
#undef LP_CODES
#undef LP_ANY
#undef LP_BELOW
}

/* The codes of four filters that follow each other. */
static inline void lp_finish_1x4(const lp_conv *p, const int32_t sums[4], int32_t channel, int8_t *out)
{
    const int32_t *m = p->multipliers + channel, zero = p->out_zero;
    const int8_t *s = p->shifts + channel;
    const int32_t x = lp_code_any(sums[0], m[0], s[0], zero), y = lp_code_any(sums[1], m[1], s[1], zero);
    const int32_t z = lp_code_any(sums[2], m[2], s[2], zero), w = lp_code_any(sums[3], m[3], s[3], zero);
    out += channel;
    out[0] = (int8_t)x;
    out[1] = (int8_t)y;
    out[2] = (int8_t)z;
    out[3] = (int8_t)w;
}

static inline uint32_t lp_four_times(int32_t code)
{
    return (uint8_t)code * 0x01010101u;
}

/* What an activation does to codes that are there. */
static __attribute__((noinline)) void lp_limit(const lp_conv *p, int8_t *out, int32_t count)
{
    const int32_t low = p->low, high = p->high;
    if (low == -128 && high == 127) return;
    const int8x4_t least = (int8x4_t)lp_four_times(low), most = (int8x4_t)lp_four_times(high);
    for (; count >= 4; count -= 4, out += 4) {
        int8x4_t codes;
        memcpy(&codes, out, 4);
        (void)__ssub8(codes, least);
        codes = (int8x4_t)__sel((uint8x4_t)codes, (uint8x4_t)least);
        (void)__ssub8(most, codes);
        codes = (int8x4_t)__sel((uint8x4_t)codes, (uint8x4_t)most);
        memcpy(out, &codes, 4);
    }
    for (; count > 0; count--, out++) *out = (int8_t)lp_clamp(*out, low, high);
}

#endif
