#include "rans.h"

#include <string.h>

#include "bit_io.h"

/* Frequencies as they are told; the last symbol has the rest. */
static lp_status read_frequencies(lp_rans_table *t, lp_bit_reader *r)
{
    uint32_t left = 1u << t->single;
    unsigned width = 4;
    for (unsigned i = 0; i + 1 < t->range; i++) {
        const uint32_t zigzag = lp_read_unary(r, 2 * 15 + 1);
        const int change = (int)(zigzag >> 1) ^ -(int)(zigzag & 1);
        if ((int)width + change < 0 || (int)width + change > 15) return LP_CORRUPT;
        width = (unsigned)((int)width + change);
        const uint32_t f = width ? 1u << (width - 1) | lp_read_bits(r, width - 1) : 0;
        if (f >= left) return LP_CORRUPT; /* the last one needs one */
        t->frequency[i] = (uint16_t)f;
        left -= f;
        if (f > t->frequency[t->most]) t->most = i;
    }
    t->frequency[t->range - 1] = (uint16_t)left;
    if (left > t->frequency[t->most]) t->most = t->range - 1;
    /* A single symbol that has all slots is told as P = 0. */
    return left == 1u << t->single || !lp_read_all(r) ? LP_CORRUPT : LP_OK;
}

lp_status lp_rans_read(const uint8_t *bytes, size_t size, lp_rans_table *table)
{
    memset(table, 0, sizeof *table);
    if (size < 2) return LP_TOO_SHORT;
    if (bytes[0] & 0x70) return LP_CORRUPT;
    table->single = bytes[0] & 15;
    table->pairs = bytes[0] >> 7;
    table->first = bytes[1];
    table->range = 1;
    if (table->single == 0) {
        table->frequency[0] = 1;
        return size == 2 && !table->pairs ? LP_OK : LP_CORRUPT;
    }
    if (table->single < 8 || table->single > 14) return LP_CORRUPT;
    if (size < 4) return LP_TOO_SHORT;
    table->range = bytes[2] + 1u;
    if (table->range < 2 || table->first + table->range > 256 || (table->pairs && table->range > 16)) return LP_CORRUPT;
    lp_bit_reader reader = {bytes + 3, size - 3, 0};
    const lp_status status = read_frequencies(table, &reader);
    if (status != LP_OK) return status;
    table->bits = !table->pairs ? table->single : table->single + 2 < 14 ? table->single + 2 : 14;
    uint16_t entries[256];
    const unsigned count = lp_rans_entries(table, entries);
    uint32_t largest = 0;
    for (unsigned i = 0; i < count; i++) largest = entries[i] > largest ? entries[i] : largest;
    return count == 0 || (count > 16 && lp_width(largest) > 12) ? LP_CORRUPT : LP_OK;
}

unsigned lp_rans_entries(const lp_rans_table *t, uint16_t frequency[256])
{
    if (!t->pairs) {
        memcpy(frequency, t->frequency, t->range * sizeof *frequency);
        return t->range;
    }
    /* Products have 2 P bits; those of pairs R. */
    const unsigned shift = 2 * t->single - t->bits, best = t->most * 16 + t->most;
    int32_t left = 1 << t->bits;
    memset(frequency, 0, 256 * sizeof *frequency);
    for (unsigned a = 0; a < t->range; a++) {
        for (unsigned b = 0; b < t->range; b++) {
            const uint32_t product = (uint32_t)t->frequency[a] * t->frequency[b];
            const uint32_t rounded = (product + (1u << (shift - 1))) >> shift, f = product && !rounded ? 1 : rounded;
            frequency[a * 16 + b] = (uint16_t)f;
            left -= (int32_t)f;
        }
    }
    left += frequency[best];
    if (left < 1) return 0;
    frequency[best] = (uint16_t)left;
    return 256;
}
