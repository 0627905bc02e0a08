/* The largest code of each window, sixteen channels at once. */
#include "lp_mve.h"
#include "lp_window.h"

void lp_max_pool_s8(const lp_pool *p, const int8_t *in, int8_t *out)
{
    const int32_t channels = p->channels, line = p->in_w * channels;
    const int8x16_t low = vdupq_n_s8((int8_t)p->low), high = vdupq_n_s8((int8_t)p->high);
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++, out += channels) {
            const lp_window w = lp_inside(p, oy, ox);
            for (int32_t c = 0; c < channels; c += 16) {
                const mve_pred16_t lanes = vctp8q((uint32_t)(channels - c));
                int8x16_t most = low;
                for (int32_t y = w.top; y < w.bottom; y++) {
                    const int8_t *x = in + y * line + w.left * channels + c;
                    for (int32_t n = w.right - w.left; n > 0; n--, x += channels) most = vmaxq_s8(most, vldrbq_z_s8(x, lanes));
                }
                vstrbq_p_s8(out + c, vminq_s8(most, high), lanes);
            }
        }
    }
}
