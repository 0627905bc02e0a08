/* The sums of four channels' codes over a window. */
#ifndef LP_POOL4_H
#define LP_POOL4_H

#include "lp_mve.h"
#include "lp_window.h"

static inline int32x4_t lp_window_sum4(const lp_pool *p, lp_window w, const int8_t *channel, mve_pred16_t lanes)
{
    const int32_t channels = p->channels, line = p->in_w * channels;
    int32x4_t sums = vdupq_n_s32(0);
    for (int32_t y = w.top; y < w.bottom; y++) {
        const int8_t *x = channel + y * line + w.left * channels;
        for (int32_t n = w.right - w.left; n > 0; n--, x += channels) sums = vaddq_s32(sums, vldrbq_z_s32(x, lanes));
    }
    return sums;
}

#endif
