/* The mean of each window, brought to another grid by the same rounding; four channels at once. */
#include "lp_pool4.h"

void lp_mean_pool_s8(const lp_mean_pool *params, const int8_t *in, int8_t *out)
{
    const lp_pool *p = &params->pool;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++, out += p->channels) {
            const lp_window w = lp_inside(p, oy, ox);
            const int32_t count = (w.bottom - w.top) * (w.right - w.left);
            for (int32_t c = 0; c < p->channels; c += 4) {
                const mve_pred16_t lanes = vctp32q((uint32_t)(p->channels - c));
                const int32x4_t sums = vsubq_n_s32(lp_window_sum4(p, w, in + c, lanes), count * p->in_zero);
                const int32x4_t means = lp_rescale4_n(sums, params->multipliers[count - 1], params->shifts[count - 1]);
                vstrbq_p_s32(out + c, lp_clamp4(means, p->out_zero, p->low, p->high), lanes);
            }
        }
    }
}
