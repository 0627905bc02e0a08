#include "huffman.h"

/* Codes by symbol: the low 16 bits the code, above them its length, 0 where there is none. */
static void codes_of(const lp_huffman_code *code, const uint8_t lengths[256], uint32_t codes[256]) {
    memset(codes, 0, 256u * sizeof codes[0]);
    for (unsigned i = 0; i < code->count; ++i) {
        const unsigned symbol = code->symbols[i], length = lengths[symbol];
        codes[symbol] = (uint32_t)length << 16 | ((code->first[length] + i) & 0xFFFFu);
    }
}

/* An alphabet of at most one symbol. */
static lp_status only(const lp_huffman_code *code, const uint8_t *symbols, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        if (code->count == 0u || symbols[i] != code->symbols[0]) {
            return LP_BAD_CODE;
        }
    }
    return LP_OK;
}

/* Code a stream; it takes 12 bits a symbol and 8 bytes more of room. Returns its end, NULL for a symbol without code. */
static uint8_t *stream(const uint32_t codes[256], const uint8_t *symbols, size_t count, uint8_t *to) {
    uint64_t bits = 0u; /* the last `used` are still to be written; what is above them was */
    unsigned used = 0u;
    uint32_t missing = 0u;
    size_t i = 0;
    for (; count - i >= 4u; i += 4u) {
        const uint32_t a = codes[symbols[i]], b = codes[symbols[i + 1u]], c = codes[symbols[i + 2u]], d = codes[symbols[i + 3u]];
        const uint32_t ab = (a & 0xFFFFu) << (b >> 16) | (b & 0xFFFFu), cd = (c & 0xFFFFu) << (d >> 16) | (d & 0xFFFFu);
        const unsigned last = (unsigned)(c >> 16) + (unsigned)(d >> 16), length = (unsigned)(a >> 16) + (unsigned)(b >> 16) + last;
        missing |= (a - 0x10000u) | (b - 0x10000u) | (c - 0x10000u) | (d - 0x10000u);
        bits = bits << length | ((uint64_t)ab << last | cd);
        used += length;
        lp_store_be64(to, bits << ((64u - used) & 63u));
        to += used >> 3;
        used &= 7u;
    }
    for (; i < count; ++i) {
        const uint32_t a = codes[symbols[i]];
        missing |= a - 0x10000u;
        bits = bits << (a >> 16) | (a & 0xFFFFu);
        used += (unsigned)(a >> 16);
        lp_store_be64(to, bits << ((64u - used) & 63u));
        to += used >> 3;
        used &= 7u;
    }
    return missing >> 31 ? NULL : to + (used != 0u);
}

size_t lp_huffman_bound(size_t count) {
    const lp_streams layout = lp_streams_of(count);
    return count > SIZE_MAX / 2u - 64u ? SIZE_MAX : layout.header + count + count / 2u + layout.streams + 16u;
}

lp_status lp_huffman_encode(const uint8_t *table, size_t table_size, const uint8_t *symbols, size_t count, uint8_t *coded, size_t *size) {
    lp_huffman_code code;
    uint8_t lengths[256];
    uint32_t codes[256];
    const lp_streams layout = lp_streams_of(count);
    const lp_status status = lp_huffman_parse(table, table_size, &code, lengths, NULL);
    *size = 0u;
    if (status != LP_OK || count == 0u) {
        return status;
    }
    if (symbols == NULL || coded == NULL) {
        return LP_NULL;
    }
    if (code.count < 2u) {
        return only(&code, symbols, count);
    }
    codes_of(&code, lengths, codes);
    uint8_t *to = coded + layout.header;
    for (size_t i = 0; i < layout.streams; ++i) {
        uint8_t *end = stream(codes, symbols + i * layout.each, lp_streams_count(&layout, count, i), to);
        if (end == NULL) {
            return LP_BAD_CODE;
        }
        if (i + 1u < layout.streams) {
            lp_streams_put(&layout, coded, i, (size_t)(end - to));
        }
        to = end;
    }
    *size = (size_t)(to - coded);
    return LP_OK;
}
