/* Pools over sub-byte codes: some channels of a pixel at a time. */
#ifndef LP_LANES_H
#define LP_LANES_H

#include "lp_window.h"

enum { LP_LANES = 16 };

/* Sums of n channels, from c on, over the window. */
static inline void lp_lane_sums(const lp_pool *p, lp_codes codes, const int8_t *in, lp_window w, int32_t c, int32_t n, int32_t sums[LP_LANES])
{
    int8_t lanes[LP_LANES];
    for (int32_t i = 0; i < n; i++) sums[i] = 0;
    for (int32_t y = w.top; y < w.bottom; y++) {
        for (int32_t x = w.left; x < w.right; x++) {
            lp_unpack(codes, in, (y * p->in_w + x) * p->channels + c, n, lanes);
            for (int32_t i = 0; i < n; i++) sums[i] += lanes[i];
        }
    }
}

static inline int32_t lp_lanes_from(int32_t c, int32_t channels)
{
    return channels - c < LP_LANES ? channels - c : LP_LANES;
}

#endif
