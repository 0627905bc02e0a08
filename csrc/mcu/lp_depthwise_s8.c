/* Depthwise convolution: a filter for every channel. */
#include "lp.h"

void lp_depthwise_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t channels = p->in_c;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
            for (int32_t c = 0; c < channels; c++) {
                int32_t sum = p->bias[c];
                const int8_t *w = p->weights + c;
                for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t y = top + ky * p->dilation_h;
                    for (int32_t kx = 0; kx < p->kernel_w; kx++, w += channels) {
                        const int32_t x = left + kx * p->dilation_w;
                        const int inside = y >= 0 && y < p->in_h && x >= 0 && x < p->in_w;
                        sum += (inside ? in[(y * p->in_w + x) * channels + c] : p->in_zero) * *w;
                    }
                }
                *out++ = lp_finish(p, sum, c);
            }
        }
    }
}
