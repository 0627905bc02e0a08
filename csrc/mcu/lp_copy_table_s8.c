/* A copy with strides along five axes, each code looked up. */
#include "lp.h"

void lp_copy_table_s8(const lp_copy *p, const int8_t *in, int8_t *out)
{
    for (int32_t a = 0; a < p->size[0]; a++) {
        for (int32_t b = 0; b < p->size[1]; b++) {
            for (int32_t c = 0; c < p->size[2]; c++) {
                for (int32_t d = 0; d < p->size[3]; d++) {
                    const int8_t *from = in + p->offset_in + a * p->stride_in[0] + b * p->stride_in[1] + c * p->stride_in[2] +
                                         d * p->stride_in[3];
                    int8_t *to = out + p->offset_out + a * p->stride_out[0] + b * p->stride_out[1] + c * p->stride_out[2] +
                                 d * p->stride_out[3];
                    for (int32_t e = 0; e < p->size[4]; e++) to[e * p->stride_out[4]] = p->table[from[e * p->stride_in[4]] + 128];
                }
            }
        }
    }
}
