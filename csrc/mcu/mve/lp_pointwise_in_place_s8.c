/* 1 x 1 convolution whose output may begin where its input does: a pixel is put together in scratch, out_c bytes. */
#include "lp_mve.h"

void lp_pointwise_in_place_s8(const lp_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    const int32_t pixels = (int32_t)p->out_h * p->out_w;
    for (int32_t i = 0; i < pixels; i++) {
        lp_dense(p, in + i * p->in_c, p->in_c, 0, p->out_c, scratch);
        lp_append(out + i * p->out_c, scratch, p->out_c, 0, 1);
    }
}
