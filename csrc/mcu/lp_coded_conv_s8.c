/* Convolution with entropy-coded weights: a few filters are decoded, then computed as int8. */
#include "lp.h"

void lp_coded_conv_s8(const lp_coded_conv *p, const int8_t *in, int8_t *out, int8_t *scratch)
{
    const uint8_t *codes = p->codes;
    uint32_t state = 0;
    for (int32_t i = 0; i < 4; i++) state = state << 8 | *codes++;
    for (int32_t first = 0; first < p->conv.out_c; first += p->tile) {
        const int32_t left = p->conv.out_c - first, filters = left < p->tile ? left : p->tile;
        const int32_t count = filters * p->filter;
        for (int32_t i = 0; i < count; i++) {
            const uint32_t slot = state & 255u, symbol = p->slots[slot];
            state = p->frequencies[symbol] * (state >> 8) + slot - p->starts[symbol];
            while (state < 1u << 23) state = state << 8 | *codes++;
            scratch[i] = p->table[symbol];
        }
        const lp_conv part = lp_filters(&p->conv, first, filters, scratch);
        p->kernel(&part, in, out + first);
    }
}
