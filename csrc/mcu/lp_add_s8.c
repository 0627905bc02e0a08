/* a + b or a - b, both with 20 more bits on twice the larger scale. */
#include "lp.h"

void lp_add_s8(const lp_add *params, const int8_t *a, const int8_t *b, int8_t *out)
{
    /* A copy, which stores of codes cannot change. */
    const lp_add p = *params;
    const int8_t *first = b, *wrap = b + p.period;
    for (const int8_t *end = a + p.count; a != end;) {
        const int32_t left = lp_rescale((*a++ - p.zero_a) * (1 << 20), p.multiplier_a, p.shift_a);
        const int32_t right = lp_rescale((*b++ - p.zero_b) * (1 << 20), p.multiplier_b, p.shift_b);
        const int32_t sum = lp_rescale(left + p.sign * right, p.multiplier_out, p.shift_out) + p.out_zero;
        *out++ = (int8_t)lp_clamp(sum, p.low, p.high);
        if (b == wrap) b = first;
    }
}
