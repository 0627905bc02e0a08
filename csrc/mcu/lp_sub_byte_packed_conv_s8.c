/* Convolution with weights of 1, 2 or 4 bits over sub-byte codes. */
#include "lp_decode.h"

void lp_sub_byte_packed_conv_s8(const lp_sub_byte_packed_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    const lp_packed_conv *q = &p->packed_conv;
    const uint8_t *codes = q->codes;
    for (int32_t first = 0; first < q->conv.out_c; first += q->tile) {
        const int32_t left = q->conv.out_c - first, filters = left < q->tile ? left : q->tile;
        codes = lp_look_up(q, codes, filters, scratch);
        const lp_conv part = lp_filters(&q->conv, first, filters, scratch);
        lp_conv_blocks(&p->blocks, &part, q->kernel, first, in, out, scratch + lp_tile(q->tile, q->filter));
    }
}
