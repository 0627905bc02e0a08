/* The largest code of each window. */
#include "lp_window.h"

void lp_max_pool_s8(const lp_pool *p, const int8_t *in, int8_t *out)
{
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const lp_window w = lp_inside(p, oy, ox);
            for (int32_t c = 0; c < p->channels; c++) {
                int32_t most = -128;
                for (int32_t y = w.top; y < w.bottom; y++) {
                    for (int32_t x = w.left; x < w.right; x++) {
                        const int32_t code = in[(y * p->in_w + x) * p->channels + c];
                        if (code > most) most = code;
                    }
                }
                *out++ = (int8_t)lp_clamp(most, p->low, p->high);
            }
        }
    }
}
