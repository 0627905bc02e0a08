/* Layer and root-mean-square normalisation over rows, in whole numbers. */
#include "lp.h"

static int bit_length(uint64_t x)
{
    int count = 0;
    for (; x; x >>= 1) count++;
    return count;
}

/* The largest r with r r <= x. */
static uint32_t square_root(uint64_t x)
{
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 62; bit; bit >>= 2) {
        if (x >= root + bit) {
            x -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return (uint32_t)root;
}

void lp_normalise_s8(const lp_normalise *p, const int8_t *in, int8_t *out)
{
    for (int32_t row = 0; row < p->rows; row++, in += p->depth, out += p->depth) {
        int64_t total = 0, squares = 0;
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t x = in[i] - p->zero;
            total += x;
            squares += x * x;
        }
        if (!p->centred) total = 0;
        const uint64_t v = (uint64_t)(p->depth * squares - total * total + p->epsilon);
        const int bits = bit_length(v), extra = bits < 38 ? (39 - bits) / 2 : 0;
        const int64_t root = square_root(v << (2 * extra));
        for (int32_t i = 0; i < p->depth; i++) {
            const int64_t d = ((int64_t)p->depth * (in[i] - p->zero) - total) * ((int64_t)1 << (16 + extra));
            const int32_t t = (int32_t)((d > 0 ? d + root / 2 : d - root / 2) / root);
            out[i] = (int8_t)lp_clamp(lp_rescale(t, p->multipliers[i], p->shifts[i]) + p->beta[i], -128, 127);
        }
    }
}
