/* The mean of each window, brought to another grid by the same rounding. */
#include "lp_window.h"

void lp_mean_pool_s8(const lp_mean_pool *params, const int8_t *in, int8_t *out)
{
    const lp_pool *p = &params->pool;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const lp_window w = lp_inside(p, oy, ox);
            const int32_t count = (w.bottom - w.top) * (w.right - w.left);
            for (int32_t c = 0; c < p->channels; c++) {
                const int32_t sum = lp_window_sum(p, w, in + c) - count * p->in_zero;
                const int32_t mean = lp_rescale(sum, params->multipliers[count - 1], params->shifts[count - 1]) + p->out_zero;
                *out++ = (int8_t)lp_clamp(mean, p->low, p->high);
            }
        }
    }
}
