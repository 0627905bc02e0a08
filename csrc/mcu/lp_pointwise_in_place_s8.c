/* 1 x 1 convolution whose output may begin where its input does: two pixels are put together in scratch, 2 out_c bytes. */
#include <string.h>

#include "lp.h"

void lp_pointwise_in_place_s8(const lp_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    lp_conv part = *p;
    part.out_h = 1;
    for (int32_t pixels = (int32_t)p->out_h * p->out_w; pixels > 0; pixels -= 2) {
        part.out_w = pixels > 1 ? 2 : 1;
        lp_pointwise_s8(&part, in, scratch);
        memcpy(out, scratch, (size_t)(part.out_w * p->out_c));
        in += part.out_w * p->in_c;
        out += part.out_w * p->out_c;
    }
}
