/* Convolution with weights of 1, 2 or 4 bits: a few filters are looked up in the table, then computed as int8. */
#include "lp.h"

void lp_packed_conv_s8(const lp_packed_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    const int32_t bits = p->bits, mask = (1 << bits) - 1;
    const uint8_t *codes = p->codes;
    for (int32_t first = 0; first < p->conv.out_c; first += p->tile) {
        const int32_t left = p->conv.out_c - first, filters = left < p->tile ? left : p->tile;
        int8_t *to = scratch;
        for (int32_t o = 0; o < filters; o++) {
            for (int32_t i = 0; i < p->filter;) {
                uint32_t byte = *codes++;
                for (int32_t k = 0; k < 8 && i < p->filter; k += bits, i++, byte >>= bits) *to++ = p->table[byte & (uint32_t)mask];
            }
        }
        const lp_conv part = lp_filters(&p->conv, first, filters, scratch);
        p->kernel(&part, in, out + first);
    }
}
