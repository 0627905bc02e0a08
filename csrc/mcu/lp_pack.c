/* Codes of one to a byte become 4 or 2 bits, four at a time. */
#include <string.h>

#include "lp.h"

void lp_pack(lp_codes codes, const int8_t *from, int32_t count, int8_t *to, int32_t first)
{
    if (codes.bits == 8) {
        memcpy(to + first, from, (size_t)count);
        return;
    }
    const int32_t bits = codes.bits, log = bits == 4 ? 3 : 4, group = 1 << log;
    const uint32_t ones = 0x01010101u, most = (1u << bits) - 1u, mask = ones * most, less = ones * ((0u - (uint32_t)codes.base) & most);
    int32_t at = first & (group - 1);
    uint32_t word, four;
    for (to += (first >> log) * 4; count > 0; to += 4, at = 0) {
        if (!at && count >= group) {
            word = 0;
            for (int32_t shift = 0; shift < 8; shift += 2 * bits, from += 8) {
                memcpy(&four, from, 4);
                word |= (((four & mask) + less) & mask) << shift;
                memcpy(&four, from + 4, 4);
                word |= (((four & mask) + less) & mask) << (shift + bits);
            }
            memcpy(to, &word, 4);
            count -= group;
            continue;
        }
        memcpy(&word, to, 4);
        for (int32_t n; at < group && count > 0; at += n, from += n, count -= n) {
            const int32_t byte = at & 3, left = 4 - byte, shift = (at >> 2) * bits;
            uint32_t written = 0;
            n = count < left ? count : left;
            four = 0;
            memcpy((int8_t *)&four + byte, from, (size_t)n);
            memset((int8_t *)&written + byte, (int)most, (size_t)n);
            word = (word & ~(written << shift)) | (((four & mask) + less) & written) << shift;
        }
        memcpy(to, &word, 4);
    }
}
