/* a b, element by element, of sub-byte codes. */
#include "lp_run.h"

void lp_sub_byte_multiply_s8(const lp_sub_byte_multiply *p, const int8_t *a, const int8_t *b, int8_t *out)
{
    int8_t x[LP_RUN], y[LP_RUN];
    lp_multiply part = p->multiply;
    const int32_t count = part.count, period = part.period;
    for (int32_t at = 0, second = 0; at < count; at += part.count) {
        part.count = lp_run(count - at, period, second);
        part.period = part.count < period ? part.count : period;
        lp_unpack(p->a, a, at, part.count, x);
        lp_unpack(p->b, b, second, part.period, y);
        lp_multiply_s8(&part, x, y, x);
        lp_pack(p->out, x, part.count, out, at);
        second += part.count;
        if (second >= period) second = 0;
    }
}
