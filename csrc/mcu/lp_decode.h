/* Weights that are stored in few bits or entropy-coded, filter after filter. */
#ifndef LP_DECODE_H
#define LP_DECODE_H

#include "lp.h"

/* So many filters from `codes` on; where the next ones begin. */
static inline const uint8_t *lp_look_up(const lp_packed_conv *p, const uint8_t *codes, int32_t filters, int8_t *to)
{
    const int32_t bits = p->bits, mask = (1 << bits) - 1;
    for (int32_t o = 0; o < filters; o++) {
        for (int32_t i = 0; i < p->filter;) {
            uint32_t byte = *codes++;
            for (int32_t k = 0; k < 8 && i < p->filter; k += bits, i++, byte >>= bits) *to++ = p->table[byte & (uint32_t)mask];
        }
    }
    return codes;
}

/* A range decoder between two symbols. */
typedef struct {
    const uint8_t *codes;
    uint32_t state;
} lp_stream;

static inline lp_stream lp_open(const lp_coded_conv *p)
{
    lp_stream s = {p->codes, 0};
    for (int32_t i = 0; i < 4; i++) s.state = s.state << 8 | *s.codes++;
    return s;
}

static inline lp_stream lp_decode(const lp_coded_conv *p, lp_stream s, int32_t filters, int8_t *to)
{
    const int32_t count = filters * p->filter;
    for (int32_t i = 0; i < count; i++) {
        const uint32_t slot = s.state & 255u, symbol = p->slots[slot];
        s.state = p->frequencies[symbol] * (s.state >> 8) + slot - p->starts[symbol];
        while (s.state < 1u << 23) s.state = s.state << 8 | *s.codes++;
        to[i] = p->table[symbol];
    }
    return s;
}

/* Bytes of a tile of decoded weights, to a multiple of four. */
static inline int32_t lp_tile(int32_t tile, int32_t filter)
{
    return (tile * filter + 3) & ~3;
}

#endif
