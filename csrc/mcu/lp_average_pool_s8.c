/* The mean of each window on the input's own grid, ties away from zero. */
#include "lp_window.h"

void lp_average_pool_s8(const lp_pool *p, const int8_t *in, int8_t *out)
{
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const lp_window w = lp_inside(p, oy, ox);
            const int32_t count = (w.bottom - w.top) * (w.right - w.left);
            for (int32_t c = 0; c < p->channels; c++) {
                const int32_t sum = lp_window_sum(p, w, in + c);
                const int32_t mean = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
                *out++ = (int8_t)lp_clamp(mean, p->low, p->high);
            }
        }
    }
}
