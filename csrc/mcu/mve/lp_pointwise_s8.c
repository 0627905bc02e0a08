/* 1 x 1 convolution and linear layer: every pixel times a matrix, four filters at once and one pixel at a time
 * (pixels_at_once = 1). */
#include "lp_mve.h"

void lp_pointwise_s8(const lp_conv *p, const int8_t *in, int8_t *out)
{
    const int32_t pixels = (int32_t)p->out_h * p->out_w;
    for (int32_t i = 0; i < pixels; i++) lp_dense(p, in + i * p->in_c, p->in_c, 0, p->out_c, out + i * p->out_stride);
}
