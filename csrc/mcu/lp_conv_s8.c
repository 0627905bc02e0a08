/* Convolution, grouped and dilated too: for every pixel and filter one sum over the window's part inside the image. */
#include "lp.h"

static int32_t sum_of(const int8_t *w, int32_t count)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) sum += w[i];
    return sum;
}

void lp_conv_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t depth = p->in_c / p->groups, filters = p->out_c / p->groups;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
            const int8_t *w = p->weights;
            for (int32_t o = 0; o < p->out_c; o++) {
                int32_t sum = p->bias[o];
                const int32_t first = o / filters * depth;
                for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t y = top + ky * p->dilation_h;
                    for (int32_t kx = 0; kx < p->kernel_w; kx++, w += depth) {
                        const int32_t x = left + kx * p->dilation_w;
                        if (y < 0 || y >= p->in_h || x < 0 || x >= p->in_w) {
                            sum += p->in_zero * sum_of(w, depth);
                            continue;
                        }
                        const int8_t *pixel = in + (y * p->in_w + x) * p->in_c + first;
                        for (int32_t c = 0; c < depth; c++) sum += pixel[c] * w[c];
                    }
                }
                *out++ = lp_finish(p, sum, o);
            }
        }
    }
}
