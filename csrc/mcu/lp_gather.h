/* Windows of a convolution: where they lie, and copies of those that are not whole inside the image. */
#ifndef LP_GATHER_H
#define LP_GATHER_H

#include <string.h>

#include "lp.h"

enum { LP_GATHERED = 576 }; /* bytes of stack for copies */

/* The place of a window's first tap in the image. */
typedef struct {
    int32_t y, x;
} lp_corner;

static inline lp_corner lp_following(const lp_conv *p, lp_corner at)
{
    at.x += p->stride_w;
    if (at.x == p->out_w * p->stride_w - p->pad_left) {
        at.x = -p->pad_left;
        at.y += p->stride_h;
    }
    return at;
}

/* Whether a window of `width` columns is inside the image. */
static inline int lp_whole(const lp_conv *p, lp_corner at, int32_t width)
{
    return at.y >= 0 && at.x >= 0 && at.y + (p->kernel_h - 1) * p->dilation_h < p->in_h && at.x + (width - 1) * p->dilation_w < p->in_w;
}

/* A tap, or none outside the image. */
static inline const int8_t *lp_tap(const lp_conv *p, const int8_t *in, lp_corner at, int32_t ky, int32_t kx)
{
    const int32_t y = at.y + ky * p->dilation_h, x = at.x + kx * p->dilation_w;
    return y < 0 || y >= p->in_h || x < 0 || x >= p->in_w ? 0 : in + (y * p->in_w + x) * p->in_c;
}

/* `depth` channels of every tap of `width` columns, one tap after the other, the zero point for those outside. */
static inline void lp_gather(const lp_conv *p, const int8_t *in, lp_corner at, int32_t width, int32_t depth, int8_t *to)
{
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        for (int32_t kx = 0; kx < width; kx++, to += depth) {
            const int8_t *from = lp_tap(p, in, at, ky, kx);
            if (from)
                memcpy(to, from, (size_t)depth);
            else
                memset(to, (uint8_t)p->in_zero, (size_t)depth);
        }
    }
}

#endif
