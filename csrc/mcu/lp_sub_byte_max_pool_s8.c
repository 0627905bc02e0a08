/* The largest code of each window, of sub-byte codes. */
#include <string.h>

#include "lp_lanes.h"

void lp_sub_byte_max_pool_s8(const lp_sub_byte_pool *p, const int8_t *in, int8_t *out)
{
    int8_t most[LP_LANES], lanes[LP_LANES];
    const lp_pool *q = &p->pool;
    int32_t at = 0;
    for (int32_t oy = 0; oy < q->out_h; oy++) {
        for (int32_t ox = 0; ox < q->out_w; ox++) {
            const lp_window w = lp_inside(q, oy, ox);
            for (int32_t c = 0, n; c < q->channels; c += n, at += n) {
                n = lp_lanes_from(c, q->channels);
                memset(most, -128, sizeof most);
                for (int32_t y = w.top; y < w.bottom; y++) {
                    for (int32_t x = w.left; x < w.right; x++) {
                        lp_unpack(p->in, in, (y * q->in_w + x) * q->channels + c, n, lanes);
                        for (int32_t i = 0; i < n; i++)
                            if (lanes[i] > most[i]) most[i] = lanes[i];
                    }
                }
                for (int32_t i = 0; i < n; i++) most[i] = (int8_t)lp_clamp(most[i], q->low, q->high);
                lp_pack(p->out, most, n, out, at);
            }
        }
    }
}
