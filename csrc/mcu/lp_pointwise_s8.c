/* 1 x 1 convolution and linear layer: every pixel times a matrix. */
#include "lp.h"

void lp_pointwise_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t pixels = (int32_t)p->out_h * p->out_w, depth = p->in_c;
    for (int32_t i = 0; i < pixels; i++, in += depth) {
        const int8_t *w = p->weights;
        for (int32_t o = 0; o < p->out_c; o++, w += depth) {
            int32_t sum = p->bias[o];
            for (int32_t c = 0; c < depth; c++) sum += in[c] * w[c];
            *out++ = lp_finish(p, sum, o);
        }
    }
}
