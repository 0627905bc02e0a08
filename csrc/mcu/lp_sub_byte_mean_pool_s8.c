/* The mean of each window of sub-byte codes, brought to another grid by the same rounding. */
#include "lp_lanes.h"

void lp_sub_byte_mean_pool_s8(const lp_sub_byte_mean_pool *p, const int8_t *in, int8_t *out)
{
    int32_t sums[LP_LANES], at = 0;
    int8_t means[LP_LANES];
    const lp_pool *q = &p->mean_pool.pool;
    for (int32_t oy = 0; oy < q->out_h; oy++) {
        for (int32_t ox = 0; ox < q->out_w; ox++) {
            const lp_window w = lp_inside(q, oy, ox);
            const int32_t count = (w.bottom - w.top) * (w.right - w.left);
            const int32_t multiplier = p->mean_pool.multipliers[count - 1], shift = p->mean_pool.shifts[count - 1];
            for (int32_t c = 0, n; c < q->channels; c += n, at += n) {
                n = lp_lanes_from(c, q->channels);
                lp_lane_sums(q, p->in, in, w, c, n, sums);
                for (int32_t i = 0; i < n; i++)
                    means[i] = (int8_t)lp_clamp(lp_rescale(sums[i] - count * q->in_zero, multiplier, shift) + q->out_zero, q->low, q->high);
                lp_pack(p->out, means, n, out, at);
            }
        }
    }
}
