/* What the kernels for Helium, the vector unit of Armv8.1-M, have in common: sums of products and rescaling, four at a time. */
#ifndef LP_MVE_H
#define LP_MVE_H

#if !defined(__ARM_FEATURE_MVE) || !(__ARM_FEATURE_MVE & 1)
#error "these kernels need Helium (MVE): compile with -mcpu=cortex-m55 -mfloat-abi=hard, or generate for another processor"
#endif

#include <arm_mve.h>

#include "lp.h"

/* The place of a window along one axis, and those of its taps that are inside the image. */
typedef struct {
    int32_t start, first, last;
} lp_span;

static inline lp_span lp_span_of(int32_t start, int32_t taps, int32_t dilation, int32_t size)
{
    lp_span found = {start, 0, taps};
    if (start < 0) found.first = (dilation - 1 - start) / dilation;
    if (start + (taps - 1) * dilation >= size) found.last = start < size ? (size - start + dilation - 1) / dilation : 0;
    if (found.first > taps) found.first = taps;
    if (found.last < found.first) found.last = found.first;
    return found;
}

/* start[i] + sum(x w[i stride + ...]) over n > 0 bytes, for i = 0...3: five loads for four multiplications of 16 bytes. */
static inline int32x4_t lp_dot4(const int32_t *start, const int8_t *x, const int8_t *w, int32_t stride, int32_t n)
{
    const int8_t *w1 = w + stride, *w2 = w1 + stride, *w3 = w2 + stride;
    int32_t a = start[0], b = start[1], c = start[2], d = start[3];
    int32x4_t sums;
    /* The compiler has no loops with tail predication. */
    __asm__("dlstp.8 lr, %[n]\n"
            "1:\n\t"
            "vldrb.8 q0, [%[x]], #16\n\t"
            "vldrb.8 q1, [%[w]], #16\n\t"
            "vmladava.s8 %[a], q0, q1\n\t"
            "vldrb.8 q2, [%[w1]], #16\n\t"
            "vmladava.s8 %[b], q0, q2\n\t"
            "vldrb.8 q1, [%[w2]], #16\n\t"
            "vmladava.s8 %[c], q0, q1\n\t"
            "vldrb.8 q2, [%[w3]], #16\n\t"
            "vmladava.s8 %[d], q0, q2\n\t"
            "letp lr, 1b\n\t"
            "vmov %q[sums][2], %q[sums][0], %[a], %[c]\n\t"
            "vmov %q[sums][3], %q[sums][1], %[b], %[d]"
            : [a] "+&Te"(a), [b] "+&Te"(b), [c] "+&Te"(c), [d] "+&Te"(d), [x] "+&r"(x), [w] "+&r"(w), [w1] "+&r"(w1),
              [w2] "+&r"(w2), [w3] "+&r"(w3), [sums] "=w"(sums)
            : [n] "r"(n)
            : "q0", "q1", "q2", "lr", "memory");
    return sums;
}

/* start + sum(x w) over n > 0 bytes. */
static inline int32_t lp_dot(int32_t start, const int8_t *x, const int8_t *w, int32_t n)
{
    __asm__("dlstp.8 lr, %[n]\n"
            "1:\n\t"
            "vldrb.8 q0, [%[x]], #16\n\t"
            "vldrb.8 q1, [%[w]], #16\n\t"
            "vmladava.s8 %[sum], q0, q1\n\t"
            "letp lr, 1b"
            : [sum] "+&Te"(start), [x] "+&r"(x), [w] "+&r"(w)
            : [n] "r"(n)
            : "q0", "q1", "lr", "memory");
    return start;
}

/* lp_divide_by_power of four numbers, exponents negated: VRSHL has ties up, so that those below zero first lose one. */
static inline int32x4_t lp_divide_by_power4(int32x4_t x, int32x4_t negated)
{
    return vrshlq_s32(vqaddq_s32(x, vshrq_n_s32(vandq_s32(x, negated), 31)), negated);
}

/* lp_rescale of four numbers. */
static inline int32x4_t lp_rescale4(int32x4_t x, int32x4_t multipliers, int32x4_t shifts)
{
#ifdef LP_SINGLE_ROUNDING
    int32_t numbers[4], m[4], s[4];
    vst1q_s32(numbers, x);
    vst1q_s32(m, multipliers);
    vst1q_s32(s, shifts);
    for (int i = 0; i < 4; i++) numbers[i] = lp_rescale(numbers[i], m[i], s[i]);
    return vld1q_s32(numbers);
#else
    const int32x4_t zero = vdupq_n_s32(0);
    const int32x4_t high = vqrdmulhq_s32(vshlq_s32(x, vmaxq_s32(shifts, zero)), multipliers);
    return lp_divide_by_power4(high, vminq_s32(shifts, zero));
#endif
}

/* Copy runs of n bytes that lie `step` bytes apart, one behind the other. */
static inline int8_t *lp_append(int8_t *to, const int8_t *from, int32_t n, int32_t step, int32_t count)
{
    int8_t *const end = to + n * count;
    const int32_t over = (n + 15) & ~15; /* what the loop over a run adds to both addresses */
    if (count > 0)
        __asm__ volatile("1:\n\t"
                         "dlstp.8 lr, %[n]\n"
                         "2:\n\t"
                         "vldrb.8 q0, [%[from]], #16\n\t"
                         "vstrb.8 q0, [%[to]], #16\n\t"
                         "letp lr, 2b\n\t"
                         "add %[from], %[from], %[skip]\n\t"
                         "add %[to], %[to], %[back]\n\t"
                         "subs %[count], %[count], #1\n\t"
                         "bne 1b"
                         : [from] "+&r"(from), [to] "+&r"(to), [count] "+&r"(count)
                         : [n] "r"(n), [skip] "r"(step - over), [back] "r"(n - over)
                         : "q0", "lr", "cc", "memory");
    return end;
}

/* lp_rescale of four numbers that share a multiplier. */
static inline int32x4_t lp_rescale4_n(int32x4_t x, int32_t multiplier, int32_t shift)
{
#ifdef LP_SINGLE_ROUNDING
    return lp_rescale4(x, vdupq_n_s32(multiplier), vdupq_n_s32(shift));
#else
    const int32_t left = shift > 0 ? shift : 0, right = shift < 0 ? shift : 0, lower = right < 0;
    const int32x4_t high = vqrdmulhq_n_s32(vshlq_r_s32(x, left), multiplier);
    return vrshlq_n_s32(vmlaq_n_s32(high, vshrq_n_s32(high, 31), lower), right);
#endif
}

/* Four codes on a grid with this zero point, within limits. */
static inline int32x4_t lp_clamp4(int32x4_t x, int32_t zero, int32_t low, int32_t high)
{
    return vminq_s32(vmaxq_s32(vaddq_n_s32(x, zero), vdupq_n_s32(low)), vdupq_n_s32(high));
}

/* lp_finish of four sums, with pointers to the first one's multiplier and shift and its place in the output. */
static inline void lp_finish4(const lp_conv *p, int32x4_t sums, const int32_t *multipliers, const int8_t *shifts, int8_t *out)
{
    const int32x4_t scaled = lp_rescale4(sums, vld1q_s32(multipliers), vldrbq_s32(shifts));
    vstrbq_s32(out, lp_clamp4(scaled, p->out_zero, p->low, p->high));
}

/* The codes of `count` filters from `first` on for a window of so many bytes at x. */
static inline void lp_dense(const lp_conv *params, const int8_t *x, int32_t size, int32_t first, int32_t count, int8_t *out)
{
    const lp_conv copy = *params, *p = &copy; /* the stores could change the original */
    const int8_t *w = p->weights + first * size, *shifts = p->shifts + first;
    const int32_t *bias = p->bias + first, *multipliers = p->multipliers + first;
    if (count < 4) {
        for (int32_t k = 0; k < count; k++) out[k] = lp_finish(p, lp_dot(bias[k], x, w + k * size, size), first + k);
        return;
    }
    for (int32_t n;; bias += n, multipliers += n, shifts += n, w += n * size, out += n) {
        lp_finish4(p, lp_dot4(bias, x, w, size, size), multipliers, shifts, out);
        count -= 4;
        if (!count) return;
        n = count < 4 ? count : 4; /* the last four may overlap those before */
        count += 4 - n;
    }
}

#endif
