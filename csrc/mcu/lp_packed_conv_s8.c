/* Convolution with weights of 1, 2 or 4 bits: a few filters are looked up in the table, then computed as int8. */
#include "lp_decode.h"

void lp_packed_conv_s8(const lp_packed_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    const uint8_t *codes = p->codes;
    for (int32_t first = 0; first < p->conv.out_c; first += p->tile) {
        const int32_t left = p->conv.out_c - first, filters = left < p->tile ? left : p->tile;
        codes = lp_look_up(p, codes, filters, scratch);
        const lp_conv part = lp_filters(&p->conv, first, filters, scratch);
        p->kernel(&part, in, out + first);
    }
}
