/* The mean of each window of sub-byte codes on the input's own grid, ties away from zero. */
#include "lp_lanes.h"

void lp_sub_byte_average_pool_s8(const lp_sub_byte_pool *p, const int8_t *in, int8_t *out)
{
    int32_t sums[LP_LANES], at = 0;
    int8_t means[LP_LANES];
    const lp_pool *q = &p->pool;
    for (int32_t oy = 0; oy < q->out_h; oy++) {
        for (int32_t ox = 0; ox < q->out_w; ox++) {
            const lp_window w = lp_inside(q, oy, ox);
            const int32_t count = (w.bottom - w.top) * (w.right - w.left);
            for (int32_t c = 0, n; c < q->channels; c += n, at += n) {
                n = lp_lanes_from(c, q->channels);
                lp_lane_sums(q, p->in, in, w, c, n, sums);
                for (int32_t i = 0; i < n; i++)
                    means[i] = (int8_t)lp_clamp((sums[i] > 0 ? sums[i] + count / 2 : sums[i] - count / 2) / count, q->low, q->high);
                lp_pack(p->out, means, n, out, at);
            }
        }
    }
}
