/* 1 x 1 convolution and linear layer: every pixel times a matrix. Two pixels at once (pixels_at_once = 2), with two filters; one
 * alone with four. */
#include "lp_dot.h"
#include "lp_finish.h"

static void two_pixels(const lp_conv *p, const int8_t *a, const int8_t *b, int8_t *to_a, int8_t *to_b)
{
    const int32_t depth = p->in_c, last = p->out_c - 1, next = last > 0, *bias = p->bias;
    const int8_t *w = p->weights;
    for (int32_t o = 0;;) {
        int32_t sums[4] = {bias[o], bias[o], bias[o + next], bias[o + next]};
        lp_dot_2x2(sums, a, b, w, next * depth, depth, 1, 0);
        lp_finish_2x2(p, sums, o, next, to_a, to_b);
        const int32_t left = last - next - o;
        if (!left) return;
        /* Of an odd number of filters the last but one comes twice. */
        o += left < 2 ? left : 2;
        w += left < 2 ? depth : 2 * depth;
    }
}

static void one_pixel(const lp_conv *p, const int8_t *a, int8_t *out)
{
    const int32_t depth = p->in_c, last = p->out_c - 4, *bias = p->bias;
    for (int32_t o = 0;;) {
        int32_t sums[4] = {bias[o], bias[o + 1], bias[o + 2], bias[o + 3]};
        lp_dot_1x4(sums, a, p->weights + o * depth, depth, depth);
        lp_finish_1x4(p, sums, o, out);
        if (o == last) return;
        o = o + 4 < last ? o + 4 : last;
    }
}

void lp_pointwise_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t depth = p->in_c, filters = p->out_c, stride = p->out_stride;
    int32_t pixels = (int32_t)p->out_h * p->out_w;
    for (; pixels > 1; pixels -= 2, in += 2 * depth, out += 2 * stride) {
        two_pixels(p, in, in + depth, out, out + stride);
        lp_limit(p, out, filters);
        lp_limit(p, out + stride, filters);
    }
    if (!pixels) return;
    if (filters < 4)
        two_pixels(p, in, in, out, out);
    else
        one_pixel(p, in, out);
    lp_limit(p, out, filters);
}
