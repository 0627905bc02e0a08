/* A copy with strides along five axes. */
#include <string.h>

#include "lp.h"

void lp_copy_s8(const lp_copy *p, const int8_t *in, int8_t *out)
{
    const int32_t run = p->size[4], step_in = p->stride_in[4], step_out = p->stride_out[4];
    for (int32_t a = 0; a < p->size[0]; a++) {
        for (int32_t b = 0; b < p->size[1]; b++) {
            for (int32_t c = 0; c < p->size[2]; c++) {
                for (int32_t d = 0; d < p->size[3]; d++) {
                    const int8_t *from = in + p->offset_in + a * p->stride_in[0] + b * p->stride_in[1] + c * p->stride_in[2] +
                                         d * p->stride_in[3];
                    int8_t *to = out + p->offset_out + a * p->stride_out[0] + b * p->stride_out[1] + c * p->stride_out[2] +
                                 d * p->stride_out[3];
                    if (step_in == 1 && step_out == 1)
                        memcpy(to, from, (size_t)run);
                    else
                        for (int32_t e = 0; e < run; e++) to[e * step_out] = from[e * step_in];
                }
            }
        }
    }
}
