/* a + b or a - b, both with 20 more bits on twice the larger scale; four elements at once, read before they are written. */
#include "lp_mve.h"

/* n elements; b advances by `step` with every four. */
static void run(const lp_add *params, const int8_t *a, const int8_t *b, int32_t step, int32_t n, int8_t *out)
{
    const lp_add copy = *params, *p = &copy; /* the stores could change the original */
    for (; n > 0; n -= 4, a += 4, b += step, out += 4) {
        const mve_pred16_t lanes = vctp32q((uint32_t)n);
        const int32x4_t x = vshlq_n_s32(vsubq_n_s32(vldrbq_z_s32(a, lanes), p->zero_a), 20);
        const int32x4_t y = vshlq_n_s32(vsubq_n_s32(vldrbq_z_s32(b, lanes), p->zero_b), 20);
        const int32x4_t left = lp_rescale4_n(x, p->multiplier_a, p->shift_a);
        const int32x4_t right = lp_rescale4_n(y, p->multiplier_b, p->shift_b);
        const int32x4_t sum = lp_rescale4_n(vmlaq_n_s32(left, right, p->sign), p->multiplier_out, p->shift_out);
        vstrbq_p_s32(out, lp_clamp4(sum, p->out_zero, p->low, p->high), lanes);
    }
}

void lp_add_s8(const lp_add *p, const int8_t *a, const int8_t *b, int8_t *out)
{
    if (p->period == 1) {
        const int8_t same[4] = {b[0], b[0], b[0], b[0]};
        run(p, a, same, 0, p->count, out);
        return;
    }
    for (int32_t i = 0; i < p->count; i += p->period)
        run(p, a + i, b, 4, p->count - i < p->period ? p->count - i : p->period, out + i);
}
