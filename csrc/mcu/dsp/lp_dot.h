/* Sums of products of convolutions for the DSP extension: bytes become pairs of half-words, and SMLAD takes two products at once. */
#ifndef LP_DOT_H
#define LP_DOT_H

#ifndef __ARM_FEATURE_DSP
#error "these kernels need the DSP extension (Cortex-M4, M7, M33): compile with its -mcpu, or generate the project for another target"
#endif

#include <arm_acle.h>
#include <string.h>

#include "lp.h"

/* Four codes, at any address, as half-words: `even` holds codes 0 and 2, `odd` 1 and 3. The pointer moves on. Written out, in an order in which
 * 14 registers are enough for two pixels and two filters. */
#define LP_EXPAND(even, odd, at) \
    __asm__ volatile("ldr %1, [%2], #4\n\tsxtb16 %0, %1\n\tsxtb16 %1, %1, ror #8" : "=&r"(even), "=&r"(odd), "+r"(at) : : "memory")

/* Add the products of four weights with four codes of one pixel, or of two. */
#define LP_MULTIPLY(sum, at, even, odd) \
    __asm__ volatile("ldr %0, [%2], #4\n\tsxtb16 %1, %0\n\tsxtb16 %0, %0, ror #8\n\tsmlad %3, %4, %1, %3\n\tsmlad %3, %5, %0, %3" \
                     : "=&r"(word), "=&r"(half), "+r"(at), "+r"(sum) : "r"(even), "r"(odd) : "memory")
#define LP_MULTIPLY_TWO(sum_a, sum_b, at) \
    __asm__ volatile("ldr %0, [%2], #4\n\tsxtb16 %1, %0\n\tsxtb16 %0, %0, ror #8\n\t" \
                     "smlad %3, %5, %1, %3\n\tsmlad %4, %7, %1, %4\n\tsmlad %3, %6, %0, %3\n\tsmlad %4, %8, %0, %4" \
                     : "=&r"(word), "=&r"(half), "+r"(at), "+r"(sum_a), "+r"(sum_b) : "r"(a0), "r"(a1), "r"(b0), "r"(b1) : "memory")

/* See the portable lp_dot.h. */
static inline void lp_dot_2x2(int32_t sums[4], const int8_t *a, const int8_t *b, const int8_t *w, int32_t filter, int32_t n, int32_t rows, int32_t jump)
{
    const int8_t *v = w + filter;
    int32_t aw = sums[0], bw = sums[1], av = sums[2], bv = sums[3];
    do {
        const int8_t *end = w + (n & ~7);
        int32_t a0, a1, b0, b1, word, half;
        while (w != end) {
            LP_EXPAND(a0, a1, a);
            LP_EXPAND(b0, b1, b);
            LP_MULTIPLY_TWO(aw, bw, w);
            LP_MULTIPLY_TWO(av, bv, v);
            LP_EXPAND(a0, a1, a);
            LP_EXPAND(b0, b1, b);
            LP_MULTIPLY_TWO(aw, bw, w);
            LP_MULTIPLY_TWO(av, bv, v);
        }
        if (n & 4) {
            LP_EXPAND(a0, a1, a);
            LP_EXPAND(b0, b1, b);
            LP_MULTIPLY_TWO(aw, bw, w);
            LP_MULTIPLY_TWO(av, bv, v);
        }
        for (end = w + (n & 3); w != end;) {
            const int32_t x = *a++, y = *b++, f = *w++, g = *v++;
            aw += x * f;
            bw += y * f;
            av += x * g;
            bv += y * g;
        }
        a += jump;
        b += jump;
    } while (--rows);
    sums[0] = aw;
    sums[1] = bw;
    sums[2] = av;
    sums[3] = bv;
}

static inline void lp_dot_1x4(int32_t sums[4], const int8_t *a, const int8_t *w, int32_t filter, int32_t n)
{
    const int8_t *v = w + filter, *u = v + filter, *t = u + filter;
    int32_t aw = sums[0], av = sums[1], au = sums[2], at = sums[3];
    const int8_t *end = a + (n & ~3);
    while (a != end) {
        int32_t a0, a1, word, half;
        LP_EXPAND(a0, a1, a);
        LP_MULTIPLY(aw, w, a0, a1);
        LP_MULTIPLY(av, v, a0, a1);
        LP_MULTIPLY(au, u, a0, a1);
        LP_MULTIPLY(at, t, a0, a1);
    }
    for (end = a + (n & 3); a != end;) {
        const int32_t x = *a++;
        aw += x * *w++;
        av += x * *v++;
        au += x * *u++;
        at += x * *t++;
    }
    sums[0] = aw;
    sums[1] = av;
    sums[2] = au;
    sums[3] = at;
}


#endif
