/* Convolution with entropy-coded weights: a few filters are decoded, then computed as int8. */
#include "lp_decode.h"

void lp_coded_conv_s8(const lp_coded_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    lp_stream stream = lp_open(p);
    for (int32_t first = 0; first < p->conv.out_c; first += p->tile) {
        const int32_t left = p->conv.out_c - first, filters = left < p->tile ? left : p->tile;
        stream = lp_decode(p, stream, filters, scratch);
        const lp_conv part = lp_filters(&p->conv, first, filters, scratch);
        p->kernel(&part, in, out + first);
    }
}
