/* The mean of each window on the input's own grid, ties away from zero; four channels at once. */
#include "lp_pool4.h"

void lp_average_pool_s8(const lp_pool *p, const int8_t *in, int8_t *out)
{
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++, out += p->channels) {
            const lp_window w = lp_inside(p, oy, ox);
            const int32_t count = (w.bottom - w.top) * (w.right - w.left);
            for (int32_t c = 0; c < p->channels; c += 4) {
                const int32_t n = p->channels - c < 4 ? p->channels - c : 4;
                int32_t sums[4];
                vst1q_s32(sums, lp_window_sum4(p, w, in + c, vctp32q((uint32_t)n)));
                for (int32_t i = 0; i < n; i++) {
                    const int32_t mean = (sums[i] > 0 ? sums[i] + count / 2 : sums[i] - count / 2) / count;
                    out[c + i] = (int8_t)lp_clamp(mean, p->low, p->high);
                }
            }
        }
    }
}
