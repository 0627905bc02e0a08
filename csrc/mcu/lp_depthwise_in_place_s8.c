/* Depthwise convolution of stride 1 and equal size over its own input, four channels at a time. Scratch holds the rows that a window
 * covers, with their padding, of these channels: ((kernel_h - 1) dilation_h + 1) rows of in_w + (kernel_w - 1) dilation_w pixels, four
 * bytes each. */
#include <string.h>

#include "lp.h"

enum { LANES = 4 };

/* A row of n channels from x on to where its pixels are in scratch; the zero point where there is no such row. */
static void load(const lp_conv *p, const int8_t *image, int32_t y, int32_t n, int8_t *row)
{
    const int8_t *from = image + y * p->in_w * p->in_c;
    int8_t *to = row + p->pad_left * LANES;
    if (y < 0 || y >= p->in_h) {
        memset(to, (uint8_t)p->in_zero, (size_t)p->in_w * LANES);
        return;
    }
    for (int32_t x = 0; x < p->in_w; x++, from += p->in_c, to += LANES)
        for (int32_t lane = 0; lane < n; lane++) to[lane] = from[lane];
}

static void four(const lp_conv *p, const int8_t *x, int32_t pitch, int32_t c, int8_t *out)
{
    const int32_t channels = p->in_c, right = p->dilation_w * LANES, down = p->dilation_h * pitch - p->kernel_w * right;
    const int8_t *w = p->weights + c;
    int32_t a = p->bias[c], b = p->bias[c + 1], d = p->bias[c + 2], e = p->bias[c + 3];
    for (int32_t ky = p->kernel_h; ky; ky--, x += down) {
        for (int32_t kx = p->kernel_w; kx; kx--, x += right, w += channels) {
            a += x[0] * w[0];
            b += x[1] * w[1];
            d += x[2] * w[2];
            e += x[3] * w[3];
        }
    }
    out[0] = lp_finish(p, a, c);
    out[1] = lp_finish(p, b, c + 1);
    out[2] = lp_finish(p, d, c + 2);
    out[3] = lp_finish(p, e, c + 3);
}

static int8_t one(const lp_conv *p, const int8_t *x, int32_t pitch, int32_t c)
{
    const int8_t *w = p->weights + c;
    int32_t sum = p->bias[c];
    for (int32_t ky = 0; ky < p->kernel_h; ky++)
        for (int32_t kx = 0; kx < p->kernel_w; kx++, w += p->in_c) sum += x[ky * p->dilation_h * pitch + kx * p->dilation_w * LANES] * *w;
    return lp_finish(p, sum, c);
}

void lp_depthwise_in_place_s8(const lp_conv *p, int8_t *buffer, int8_t *scratch)
{
    const int32_t channels = p->in_c, rows = (p->kernel_h - 1) * p->dilation_h + 1;
    const int32_t pitch = (p->in_w + (p->kernel_w - 1) * p->dilation_w) * LANES;
    int8_t *last = scratch + (rows - 1) * pitch;
    for (int32_t c = 0; c < channels; c += LANES) {
        const int32_t n = channels - c < LANES ? channels - c : LANES;
        int8_t *image = buffer + c, *out = image;
        memset(scratch, (uint8_t)p->in_zero, (size_t)(rows * pitch));
        for (int32_t y = 0; y < rows; y++) load(p, image, y - p->pad_top, n, scratch + y * pitch);
        for (int32_t oy = 0; oy < p->out_h; oy++) {
            const int8_t *x = scratch;
            for (int32_t ox = 0; ox < p->out_w; ox++, x += LANES, out += channels) {
                if (n == LANES)
                    four(p, x, pitch, c, out);
                else
                    for (int32_t lane = 0; lane < n; lane++) out[lane] = one(p, x + lane, pitch, c + lane);
            }
            memmove(scratch, scratch + pitch, (size_t)((rows - 1) * pitch));
            load(p, image, oy + rows - p->pad_top, n, last);
        }
    }
}
