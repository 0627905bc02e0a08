#include "rans.h"

#include <string.h>

#include "bit_io.h"
#include "rans_paths.h"

/* What coding an entry takes: x / f as the high half of x * reciprocal, which is exact for x < 2^32 and f < 2^16. */
typedef struct {
    uint64_t reciprocal;
    uint32_t limit; /* states from here on give up a word first */
    uint16_t rest;  /* 2^P - f */
    uint16_t start; /* where its slots begin */
} coding;

#ifdef __SIZEOF_INT128__
__extension__ typedef unsigned __int128 wide;
#endif

static inline uint32_t high_half(uint64_t a, uint32_t b)
{
#ifdef __SIZEOF_INT128__
    return (uint32_t)((wide)a * b >> 64);
#else
    /* b has 32 bits, so the parts do not overflow. */
    return (uint32_t)(((a >> 32) * b + ((a & 0xffffffffu) * b >> 32)) >> 32);
#endif
}

static lp_status fill_codings(const lp_rans_table *table, coding codings[256])
{
    uint16_t frequency[256];
    const unsigned count = lp_rans_entries(table, frequency);
    uint32_t start = 0;
    if (count == 0) return LP_CORRUPT;
    for (unsigned i = 0; i < count; i++) {
        const uint32_t f = frequency[i];
        const uint32_t rest = (1u << table->bits) - f;
        if (f) codings[i] = (coding){UINT64_MAX / f + 1, f << (32 - table->bits), (uint16_t)rest, (uint16_t)start};
        /* 2^64 does not fit; with one less the quotient is x - 1, and the rest that is missing then stands with the start. */
        if (f == 1) codings[i] = (coding){UINT64_MAX, 1u << (32 - table->bits), (uint16_t)rest, (uint16_t)(start + rest)};
        start += f;
    }
    return LP_OK;
}

size_t lp_rans_bound(size_t count)
{
    /* A word a symbol; an exception 8 bits, a gap of k + 1 and, all together, at most two a symbol in unary. */
    return count > (SIZE_MAX - 512) / 8 ? 0 : 8 * count + 512;
}

LP_ALWAYS_INLINE uint8_t *push(uint32_t *state, const coding *c, uint8_t *words)
{
    uint32_t x = *state;
    const uint32_t full = x >= c->limit;
    words[-2] = (uint8_t)x; /* kept where the state is full: a branch would be a guess */
    words[-1] = (uint8_t)(x >> 8);
    words -= 2 * full;
    x >>= 16 * full;
    *state = x + high_half(c->reciprocal, x) * c->rest + c->start;
    return words;
}

/* What stands for a symbol that has no frequency, and that it does. */
enum { EXCEPTION = 256 };

/* Entries from the last to the first; where the words begin, and in `*seen` all bits of the indices met. */
static uint8_t *push_all(const uint8_t *symbols, size_t count, const lp_rans_table *table, const uint16_t index[256], const coding *codings, uint32_t *states,
                         uint8_t *words, unsigned *seen)
{
    const size_t entries = table->pairs ? count / 2 + (count & 1) : count;
    const size_t mask = lp_rans_lanes(entries) - 1;
    size_t i = entries;
    unsigned met = 0;
    if (!table->pairs) {
        while (i--) {
            const unsigned at = index[symbols[i]];
            met |= at;
            words = push(&states[i & mask], &codings[at & 255], words);
        }
    } else if (count & 1) {
        const unsigned at = index[symbols[2 * --i]];
        met |= at;
        words = push(&states[i & mask], &codings[(at & 15) * 16 + table->most], words);
    }
    while (table->pairs && i--) {
        const unsigned a = index[symbols[2 * i]], b = index[symbols[2 * i + 1]];
        met |= a | b;
        words = push(&states[i & mask], &codings[(a & 15) * 16 + (b & 15)], words);
    }
    *seen = met;
    return words;
}

/* Symbols without a frequency, after the words. */
static uint8_t *push_exceptions(const uint8_t *symbols, size_t count, const uint16_t index[256], size_t exceptions, uint8_t *to)
{
    uint64_t left = exceptions;
    for (; left >= 128; left >>= 7) *to++ = (uint8_t)(left | 128);
    *to++ = (uint8_t)left;
    if (exceptions == 0) return to;
    unsigned k = 0;
    while (k < 24 && exceptions << (k + 1) <= count - exceptions) k++;
    *to++ = (uint8_t)k;
    lp_bit_writer writer = {to, 0, 0, 0};
    size_t next = 0;
    for (size_t i = 0; i < count; i++) {
        if (index[symbols[i]] < EXCEPTION) continue;
        lp_write_unary(&writer, (uint32_t)((i - next) >> k));
        lp_write_bits(&writer, (uint32_t)((i - next) & ((1u << k) - 1)), k);
        lp_write_bits(&writer, symbols[i], 8);
        next = i + 1;
    }
    return to + lp_write_end(&writer);
}

lp_status lp_rans_encode(const uint8_t *symbols, size_t count, const lp_rans_table *table, uint8_t *coded, size_t capacity, size_t *size)
{
    if ((!symbols && count) || !coded) return LP_NULL;
    if (lp_rans_bound(count) == 0 || capacity < lp_rans_bound(count)) return LP_TOO_SHORT;
    uint16_t index[256];
    for (unsigned s = 0; s < 256; s++) {
        const unsigned at = s - table->first;
        index[s] = (uint16_t)(at < table->range && table->frequency[at] > 0 ? at : table->most | EXCEPTION);
    }
    unsigned seen = EXCEPTION;
    uint8_t *to = coded;
    if (table->bits && count) {
        const size_t entries = table->pairs ? count / 2 + (count & 1) : count;
        const unsigned lanes = lp_rans_lanes(entries);
        coding codings[256];
        uint32_t states[LP_RANS_LANES];
        if (fill_codings(table, codings) != LP_OK) return LP_CORRUPT;
        for (unsigned i = 0; i < lanes; i++) states[i] = 1u << 16;
        uint8_t *const top = coded + 4 * (size_t)lanes + 2 * entries;
        const uint8_t *words = push_all(symbols, count, table, index, codings, states, top, &seen);
        for (unsigned i = 0; i < lanes; i++) {
            for (unsigned k = 0; k < 4; k++) *to++ = (uint8_t)(states[i] >> (8 * k));
        }
        memmove(to, words, (size_t)(top - words));
        to += top - words;
    }
    size_t exceptions = 0;
    for (size_t i = 0; i < count && (seen & EXCEPTION); i++) exceptions += index[symbols[i]] >> 8;
    *size = (size_t)(push_exceptions(symbols, count, index, exceptions, to) - coded);
    return LP_OK;
}

void lp_count_symbols(const uint8_t *symbols, size_t count, int64_t counts[256])
{
    /* Four tables, so that equal neighbours do not wait for each other. */
    while (count) {
        const size_t now = count < 1u << 30 ? count : 1u << 30;
        uint32_t found[4][256] = {{0}};
        size_t i = 0;
        for (; i + 4 <= now; i += 4) {
            for (unsigned k = 0; k < 4; k++) found[k][symbols[i + k]]++;
        }
        for (; i < now; i++) found[0][symbols[i]]++;
        for (unsigned s = 0; s < 256; s++) counts[s] += (int64_t)found[0][s] + found[1][s] + found[2][s] + found[3][s];
        symbols += now;
        count -= now;
    }
}
