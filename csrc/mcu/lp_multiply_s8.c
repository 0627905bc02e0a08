/* a b, element by element. */
#include "lp.h"

void lp_multiply_s8(const lp_multiply *params, const int8_t *a, const int8_t *b, int8_t *out)
{
    const lp_multiply p = *params;
    const int8_t *first = b, *wrap = b + p.period;
    for (const int8_t *end = a + p.count; a != end;) {
        const int32_t product = (*a++ - p.zero_a) * (*b++ - p.zero_b);
        *out++ = (int8_t)lp_clamp(lp_rescale(product, p.multiplier, p.shift) + p.out_zero, p.low, p.high);
        if (b == wrap) b = first;
    }
}
