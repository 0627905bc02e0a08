#include "bit_io.h"
#include "huffman.h"

enum { FULL = 1 << LP_HUFFMAN_LONGEST }; /* a complete code: sum of 2^(12 - length) */

/* ---- Reading ---- */

typedef struct {
    unsigned last, symbol; /* the length seen last; the next symbol */
    uint32_t sum;          /* of 2^(12 - length) */
    unsigned most;         /* symbols that have codes */
    uint8_t *lengths, *present;
} alphabet;

static lp_status give(alphabet *a, unsigned length, uint32_t times) {
    if (length > LP_HUFFMAN_LONGEST || (length == 0u && (a->sum != 0u || times != 1u)) || times > 256u - a->symbol) {
        return LP_CORRUPT;
    }
    if (times > ((uint32_t)FULL - a->sum) >> (LP_HUFFMAN_LONGEST - length)) {
        return LP_CORRUPT;
    }
    for (uint32_t i = 0; i < times; ++i) {
        a->lengths[a->symbol] = (uint8_t)length;
        a->present[a->symbol++] = 1u;
    }
    a->sum += times << (LP_HUFFMAN_LONGEST - length);
    a->last = length;
    a->most += times;
    return LP_OK;
}

static lp_status skip(alphabet *a, uint32_t times) {
    if (times > 256u - a->symbol) {
        return LP_CORRUPT;
    }
    a->symbol += times;
    return LP_OK;
}

static lp_status read_token(lp_bit_reader *r, alphabet *a) {
    if (!lp_read_bits(r, 1)) {
        return give(a, a->last, 1u);
    }
    if (!lp_read_bits(r, 1)) {
        return give(a, lp_read_bits(r, 1) ? a->last - 1u : a->last + 1u, 1u);
    }
    if (lp_read_bits(r, 1)) {
        return skip(a, 1u);
    }
    const unsigned value = lp_read_bits(r, 4);
    switch (value) {
    case 13u:
        return skip(a, 2u + lp_read_bits(r, 3));
    case 14u:
        return skip(a, 10u + lp_read_bits(r, 8));
    case 15u:
        return give(a, a->last, 16u + lp_read_bits(r, 8));
    default:
        return give(a, value, 1u);
    }
}

static void number(const alphabet *a, lp_huffman_code *code) {
    uint16_t counts[LP_HUFFMAN_LONGEST + 1u] = {0}, next[LP_HUFFMAN_LONGEST + 1u];
    uint32_t limit = 0u, before = 0u;
    for (unsigned s = 0; s < 256u; ++s) {
        counts[a->lengths[s]] = (uint16_t)(counts[a->lengths[s]] + a->present[s]);
    }
    for (unsigned l = 0; l <= LP_HUFFMAN_LONGEST; ++l) {
        const unsigned shift = LP_HUFFMAN_LONGEST - l;
        next[l] = (uint16_t)before;
        code->first[l] = (uint16_t)((limit >> shift) - before);
        before += counts[l];
        limit += (uint32_t)counts[l] << shift;
        code->limit[l] = (uint16_t)limit;
    }
    code->count = (uint16_t)a->most;
    for (unsigned s = 0; s < 256u; ++s) {
        if (a->present[s]) {
            code->symbols[next[a->lengths[s]]++] = (uint8_t)s;
        }
    }
}

lp_status lp_huffman_parse(const uint8_t *table, size_t size, lp_huffman_code *code, uint8_t lengths[256], uint8_t present[256]) {
    uint8_t own_lengths[256], own_present[256];
    alphabet a = {4u, 0u, 0u, 0u, lengths ? lengths : own_lengths, present ? present : own_present};
    lp_bit_reader r = {table, size, 0u};
    memset(a.lengths, 0, 256u);
    memset(a.present, 0, 256u);
    memset(code, 0, sizeof *code);
    if (size == 0u) {
        return LP_OK;
    }
    if (table == NULL) {
        return LP_NULL;
    }
    if (size > LP_HUFFMAN_TABLE_MOST) {
        return LP_CORRUPT;
    }
    while (a.sum != (uint32_t)FULL) {
        if (a.symbol == 256u || r.at >= 8u * size) {
            return LP_CORRUPT;
        }
        const lp_status status = read_token(&r, &a);
        if (status != LP_OK) {
            return status;
        }
    }
    if (!lp_read_all(&r)) {
        return LP_CORRUPT;
    }
    number(&a, code);
    return LP_OK;
}

/* ---- Writing ---- */

static unsigned run(const uint8_t lengths[256], const uint8_t present[256], unsigned from) {
    unsigned end = from + 1u;
    while (end < 256u && present[end] == present[from] && (!present[from] || lengths[end] == lengths[from])) {
        ++end;
    }
    return end - from;
}

/* One token of two or more bits for the beginning of `times` symbols of the same kind; how many it tells of. */
static unsigned write_absent(lp_bit_writer *w, unsigned times) {
    if (times == 1u) {
        lp_write_bits(w, 7u, 3);
        return 1u;
    }
    if (times < 10u) {
        lp_write_bits(w, 3u | 13u << 3 | (times - 2u) << 7, 10);
        return times;
    }
    lp_write_bits(w, 3u | 14u << 3 | (times - 10u) << 7, 15);
    return times;
}

static unsigned write_present(lp_bit_writer *w, unsigned length, unsigned last, unsigned times) {
    if (length == last && times >= 16u) {
        lp_write_bits(w, 3u | 15u << 3 | (times - 16u) << 7, 15);
        return times;
    }
    if (length == last) {
        lp_write_bits(w, 0u, 1);
    } else if (length == last + 1u) {
        lp_write_bits(w, 1u, 3);
    } else if (length + 1u == last && length != 0u) {
        lp_write_bits(w, 5u, 3);
    } else {
        lp_write_bits(w, 3u | length << 3, 7);
    }
    return 1u;
}

lp_status lp_huffman_write(const uint8_t lengths[256], const uint8_t present[256], uint8_t *table, size_t *size) {
    lp_bit_writer w = {table, 0u, 0u, 0u};
    unsigned last = 4u, s = 0u;
    uint32_t sum = 0u;
    for (unsigned i = 0; i < 256u; ++i) {
        if (present[i]) {
            sum += lengths[i] <= LP_HUFFMAN_LONGEST ? (uint32_t)FULL >> lengths[i] : 2u * FULL;
        }
    }
    *size = 0u;
    if (sum != (uint32_t)FULL) {
        return sum == 0u ? LP_OK : LP_BAD_CODE;
    }
    while (sum != 0u) {
        const unsigned times = run(lengths, present, s);
        if (!present[s]) {
            s += write_absent(&w, times);
            continue;
        }
        const unsigned told = write_present(&w, lengths[s], last, times);
        last = lengths[s];
        sum -= told * ((uint32_t)FULL >> last);
        s += told;
    }
    *size = lp_write_end(&w);
    return LP_OK;
}
