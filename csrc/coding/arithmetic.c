#include "arithmetic.h"

#include <string.h>

#include "bit_io.h"
#include "range_coder.h"

lp_status lp_arithmetic_read(const uint8_t *bytes, size_t size, lp_arithmetic_table *table) {
    memset(table, 0, sizeof *table);
    if (size < 2u || bytes == NULL) {
        return LP_CORRUPT;
    }
    table->precision = bytes[0];
    table->first = table->last = bytes[1];
    if (bytes[0] == 0u) {
        return size == 2u ? LP_OK : LP_CORRUPT;
    }
    if (bytes[0] > LP_ARITHMETIC_PRECISION || size < 3u || bytes[2] == 0u || bytes[1] + bytes[2] > 255) {
        return LP_CORRUPT;
    }
    table->last = table->first + bytes[2];
    const uint32_t total = 1u << bytes[0];
    lp_bit_reader reader = {bytes + 3, size - 3u, 0u};
    uint32_t below = 0u;
    int width = 4;
    for (unsigned s = table->first; s < table->last; ++s) {
        const uint32_t zigzag = lp_read_unary(&reader, 2u * LP_ARITHMETIC_PRECISION + 1u);
        width += (int)(zigzag >> 1) ^ -(int)(zigzag & 1u);
        if (width < 0 || width > LP_ARITHMETIC_PRECISION) {
            return LP_CORRUPT;
        }
        below += width == 0 ? 0u : 1u << (width - 1) | lp_read_bits(&reader, (unsigned)width - 1u);
        if (below >= total) {
            return LP_CORRUPT; /* the last one needs some */
        }
        table->below[s + 1u] = below;
    }
    for (unsigned s = table->last + 1u; s <= 256u; ++s) {
        table->below[s] = total;
    }
    return lp_read_all(&reader) ? LP_OK : LP_CORRUPT;
}

size_t lp_arithmetic_bound(size_t count) { return count > (SIZE_MAX - 16u) / 3u ? 0u : 3u * count + 16u; }

lp_status lp_arithmetic_encode(const uint8_t *symbols, size_t count, const lp_arithmetic_table *table, uint8_t *coded, size_t *size) {
    if (count != 0u && (symbols == NULL || coded == NULL)) {
        return LP_NULL;
    }
    lp_range_encoder e = {0u, UINT64_MAX, coded, coded + *size, 0};
    for (size_t i = 0; i < count; ++i) {
        const unsigned s = symbols[i];
        const uint32_t below = table->below[s], frequency = table->below[s + 1u] - below;
        if (table->precision == 0u ? s != table->first : frequency == 0u) {
            return LP_BAD_CODE;
        }
        if (table->precision != 0u) {
            const uint64_t r = e.range >> table->precision;
            lp_range_add(&e, below * r);
            e.range = frequency * r;
            lp_range_flush(&e);
        }
    }
    if (count != 0u && table->precision != 0u) {
        lp_range_finish(&e);
    }
    *size = (size_t)(e.next - coded);
    return e.full ? LP_TOO_SHORT : LP_OK;
}

/* The symbol whose share of the total `target` lies in; a search of eight steps without branches. */
static unsigned find(const uint32_t *below, uint32_t target) {
    unsigned s = 0u;
    for (unsigned step = 128u; step != 0u; step >>= 1) {
        s += below[s + step] <= target ? step : 0u;
    }
    return s;
}

lp_status lp_arithmetic_decode(const uint8_t *coded, size_t size, const lp_arithmetic_table *table, uint8_t *symbols, size_t count) {
    if (count != 0u && symbols == NULL) {
        return LP_NULL;
    }
    if (count == 0u || table->precision == 0u) {
        if (count != 0u) {
            memset(symbols, (int)table->first, count);
        }
        return size == 0u ? LP_OK : LP_CORRUPT;
    }
    if (coded == NULL || size == 0u) {
        return LP_CORRUPT;
    }
    lp_range_decoder d;
    lp_range_open(&d, coded, size);
    const uint64_t last = (UINT64_C(1) << table->precision) - 1u;
    uint64_t beyond = 0u;
    for (size_t i = 0; i < count; ++i) {
        const uint64_t r = d.range >> table->precision, quotient = d.value / r, target = quotient < last ? quotient : last;
        beyond |= quotient ^ target;
        const unsigned s = find(table->below, (uint32_t)target);
        const uint32_t below = table->below[s];
        d.value -= below * r;
        d.range = (table->below[s + 1u] - below) * r;
        lp_range_refill(&d);
        symbols[i] = (uint8_t)s;
    }
    return beyond == 0u && lp_range_size(&d) == size ? LP_OK : LP_CORRUPT;
}
