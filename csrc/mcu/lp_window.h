/* The part of a pool's window that lies inside the image. */
#ifndef LP_WINDOW_H
#define LP_WINDOW_H

#include "lp.h"

typedef struct {
    int32_t top, bottom, left, right;
} lp_window;

static inline lp_window lp_inside(const lp_pool *p, int32_t oy, int32_t ox)
{
    lp_window w;
    w.top = oy * p->stride_h - p->pad_top;
    w.left = ox * p->stride_w - p->pad_left;
    w.bottom = w.top + p->kernel_h < p->in_h ? w.top + p->kernel_h : p->in_h;
    w.right = w.left + p->kernel_w < p->in_w ? w.left + p->kernel_w : p->in_w;
    if (w.top < 0) w.top = 0;
    if (w.left < 0) w.left = 0;
    return w;
}

/* The sum of one channel's codes over the window. */
static inline int32_t lp_window_sum(const lp_pool *p, lp_window w, const int8_t *channel)
{
    int32_t sum = 0;
    for (int32_t y = w.top; y < w.bottom; y++)
        for (int32_t x = w.left; x < w.right; x++) sum += channel[(y * p->in_w + x) * p->channels];
    return sum;
}

#endif
