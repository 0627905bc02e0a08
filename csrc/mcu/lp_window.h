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
    const int32_t channels = p->channels, columns = w.right - w.left, jump = (p->in_w - columns) * channels;
    int32_t sum = 0;
    channel += (w.top * p->in_w + w.left) * channels;
    for (int32_t rows = w.bottom - w.top; rows; rows--, channel += jump)
        for (int32_t n = columns; n; n--, channel += channels) sum += *channel;
    return sum;
}

#endif
