/* Codes of 4 or 2 bits become one to a byte, four at a time. */
#include <string.h>

#include "lp.h"

/* Bytes of indices, none of them above 15, become codes; no byte carries into the next. */
static inline uint32_t code(uint32_t index, uint32_t low, uint32_t sign)
{
    return (index + low) ^ sign;
}

void lp_unpack(lp_codes codes, const int8_t *from, int32_t first, int32_t count, int8_t *to)
{
    if (codes.bits == 8) {
        memcpy(to, from + first, (size_t)count);
        return;
    }
    const int32_t bits = codes.bits, log = bits == 4 ? 3 : 4, group = 1 << log;
    const uint32_t ones = 0x01010101u, mask = ones * ((1u << bits) - 1u);
    const uint32_t low = ones * ((uint32_t)codes.base & 127u), sign = ones * ((uint32_t)codes.base & 128u);
    int32_t at = first & (group - 1);
    uint32_t word, four;
    for (from += (first >> log) * 4; count > 0; from += 4, at = 0) {
        memcpy(&word, from, 4);
        if (!at && count >= group) {
            for (int32_t shift = 0; shift < 8; shift += 2 * bits, to += 8) {
                four = code(word >> shift & mask, low, sign);
                memcpy(to, &four, 4);
                four = code(word >> (shift + bits) & mask, low, sign);
                memcpy(to + 4, &four, 4);
            }
            count -= group;
            continue;
        }
        for (int32_t n; at < group && count > 0; at += n, to += n, count -= n) {
            const int32_t byte = at & 3, left = 4 - byte;
            n = count < left ? count : left;
            four = code(word >> (at >> 2) * bits & mask, low, sign);
            memcpy(to, (const int8_t *)&four + byte, (size_t)n);
        }
    }
}
