/* Softmax in fixed point: tabled exponentials of differences, gemmlowp's reciprocal of their sum. */
#include "lp.h"

static int32_t leading_zeros(uint32_t x)
{
    int32_t count = 0;
    while (!(x & 0x80000000u)) {
        x <<= 1;
        count++;
    }
    return count;
}

static int32_t shift_up(int32_t x, int bits)
{
    const int64_t wide = (int64_t)x * (1 << bits);
    return wide > INT32_MAX ? INT32_MAX : wide < INT32_MIN ? INT32_MIN : (int32_t)wide;
}

/* 1 / (1 + x 2^-31) with 31 bits, by three Newton steps. */
static int32_t reciprocal(int32_t x)
{
    const int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t y = 1515870810 + lp_high_multiply(half, -1010580540);
    for (int i = 0; i < 3; i++) y += shift_up(lp_high_multiply(y, (1 << 29) - lp_high_multiply(half, y)), 2);
    return shift_up(y, 1);
}

void lp_softmax_s8(const lp_softmax *p, const int8_t *in, int8_t *out)
{
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        int32_t most = -128, sum = 0;
        for (int32_t i = 0; i < p->depth; i++)
            if (in[i] > most) most = in[i];
        for (int32_t i = 0; i < p->depth; i++) sum += lp_divide_by_power(p->exponentials[most - in[i]], 12);
        const int32_t headroom = leading_zeros((uint32_t)sum);
        const int32_t scale = reciprocal((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
        const int right = 12 - headroom + 31 - 8;
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t code = lp_divide_by_power(lp_high_multiply(scale, p->exponentials[most - in[i]]), right) - 128;
            out[i] = (int8_t)lp_clamp(code, -128, 127);
        }
    }
}
