/* Transposed convolution: every output pixel gathers the input pixels whose window covers it. */
#include "lp.h"

/* The input coordinate that tap k of output coordinate o reads, or -1. */
static int32_t source(int32_t o, int32_t k, int32_t stride, int32_t size)
{
    const int32_t at = o - k;
    return at >= 0 && at % stride == 0 && at / stride < size ? at / stride : -1;
}

void lp_transposed_conv_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t depth = p->in_c;
    for (int32_t oy = 0; oy < p->out_h; oy++) {
        for (int32_t ox = 0; ox < p->out_w; ox++) {
            const int8_t *w = p->weights;
            for (int32_t o = 0; o < p->out_c; o++) {
                int32_t sum = p->bias[o];
                for (int32_t ky = 0; ky < p->kernel_h; ky++) {
                    const int32_t y = source(oy + p->pad_top, ky * p->dilation_h, p->stride_h, p->in_h);
                    for (int32_t kx = 0; kx < p->kernel_w; kx++, w += depth) {
                        const int32_t x = source(ox + p->pad_left, kx * p->dilation_w, p->stride_w, p->in_w);
                        if (y < 0 || x < 0) continue;
                        const int8_t *pixel = in + (y * p->in_w + x) * depth;
                        for (int32_t c = 0; c < depth; c++) sum += (pixel[c] - p->in_zero) * w[c];
                    }
                }
                *out++ = lp_finish(p, sum, o);
            }
        }
    }
}
