/* 1 x 1 convolution whose output may begin where its input does: a pixel is put together in scratch, out_c bytes. */
#include <string.h>

#include "lp.h"

void lp_pointwise_in_place_s8(const lp_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    const int32_t pixels = (int32_t)p->out_h * p->out_w, depth = p->in_c;
    for (int32_t i = 0; i < pixels; i++, in += depth, out += p->out_c) {
        const int8_t *w = p->weights;
        for (int32_t o = 0; o < p->out_c; o++, w += depth) {
            int32_t sum = p->bias[o];
            for (int32_t c = 0; c < depth; c++) sum += in[c] * w[c];
            scratch[o] = lp_finish(p, sum, o);
        }
        memcpy(out, scratch, (size_t)p->out_c);
    }
}
