/* a b, element by element. */
#include "lp.h"

void lp_multiply_s8(const lp_multiply *p, const int8_t *a, const int8_t *b, int8_t *out)
{
    for (int32_t i = 0, j = 0; i < p->count; i++) {
        const int32_t product = (a[i] - p->zero_a) * (b[j] - p->zero_b);
        out[i] = (int8_t)lp_clamp(lp_rescale(product, p->multiplier, p->shift) + p->out_zero, p->low, p->high);
        if (++j == p->period) j = 0;
    }
}
