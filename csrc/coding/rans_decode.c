#include "rans.h"

#include <string.h>

#include "bit_io.h"
#include "rans_paths.h"

unsigned lp_rans_lanes(size_t entries)
{
    return entries >= 65536 ? LP_RANS_LANES : entries >= 2048 ? 4 : 1;
}

/* One entry for each slot, and where its fields are. */
static lp_status fill_slots(const lp_rans_table *table, uint32_t *slots, lp_rans_layout *layout)
{
    uint16_t frequency[256];
    const unsigned count = lp_rans_entries(table, frequency);
    uint32_t largest = 0, at = 0;
    for (unsigned i = 0; i < count; i++) largest = frequency[i] > largest ? frequency[i] : largest;
    layout->bits = table->bits;
    layout->symbol = count > 16 ? 8 : 4;
    for (layout->field = 0; largest >> layout->field; layout->field++) {}
    if (count == 0 || layout->symbol + 2 * layout->field > 32) return LP_CORRUPT;
    for (unsigned i = 0; i < count; i++) {
        uint32_t entry = i | (uint32_t)frequency[i] << layout->symbol;
        const uint32_t step = 1u << (layout->symbol + layout->field), end = at + frequency[i];
        if (end > 1u << table->bits) return LP_CORRUPT;
        for (; at < end; at++, entry += step) slots[at] = entry;
    }
    return at == 1u << table->bits ? LP_OK : LP_CORRUPT;
}

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* One entry of one lane; whether there was a word where one was wanted. */
LP_ALWAYS_INLINE int next_entry(uint32_t *state, const lp_rans_layout *l, const uint32_t *slots, const uint8_t **words, const uint8_t *end, uint32_t *entry)
{
    uint32_t x = *state;
    const uint32_t e = slots[x & ((1u << l->bits) - 1)];
    x = (e >> l->symbol & ((1u << l->field) - 1)) * (x >> l->bits) + (e >> (l->symbol + l->field));
    const uint32_t below = x < 1u << 16;
    *entry = e;
    if (end - *words >= 2) {
        /* Read whether it is wanted or not: a branch would be a guess. */
        const uint32_t word = (*words)[0] | (uint32_t)(*words)[1] << 8;
        *state = x << (16 * below) | (word & (0u - below));
        *words += 2 * below;
        return 1;
    }
    *state = x;
    return !below;
}

lp_status lp_rans_lanes_portable(lp_rans_run *run, size_t entries)
{
    const lp_rans_layout l = run->layout;
    const unsigned lanes = run->lanes, pairs = run->pairs, first = run->first;
    const uint32_t *const slots = run->slots;
    const uint8_t *words = run->words, *const end = run->end;
    uint8_t *const symbols = run->symbols;
    const size_t count = run->count;
    uint32_t entry;
    for (size_t i = run->done; i < entries; i++) {
        if (!next_entry(&run->states[i & (lanes - 1)], &l, slots, &words, end, &entry)) return LP_CORRUPT;
        if (!pairs) {
            symbols[i] = (uint8_t)((entry & ((1u << l.symbol) - 1)) + first);
        } else {
            symbols[2 * i] = (uint8_t)((entry >> 4 & 15) + first);
            if (2 * i + 1 < count) symbols[2 * i + 1] = (uint8_t)((entry & 15) + first);
        }
    }
    run->words = words;
    run->done = entries;
    return LP_OK;
}

/* Symbols in place of those that stand for exceptions. */
static lp_status patch(const uint8_t *bytes, const uint8_t *end, uint8_t *symbols, size_t count)
{
    uint64_t exceptions = 0;
    unsigned shift = 0;
    for (;; shift += 7) {
        if (bytes == end || shift > 56) return LP_CORRUPT;
        exceptions |= (uint64_t)(*bytes & 127) << shift;
        if (!(*bytes++ & 128)) break;
    }
    if (exceptions == 0) return bytes == end ? LP_OK : LP_CORRUPT;
    if (bytes == end || *bytes > 24 || exceptions > count) return LP_CORRUPT;
    const unsigned k = *bytes++;
    lp_bit_reader reader = {bytes, (size_t)(end - bytes), 0};
    if (exceptions > 8 * (uint64_t)reader.size / (k + 9)) return LP_CORRUPT;
    for (size_t at = 0; exceptions; exceptions--, at++) {
        const uint64_t ones = lp_read_unary(&reader, (uint32_t)((count >> k) + 1 < UINT32_MAX ? (count >> k) + 1 : UINT32_MAX));
        at += (size_t)(ones << k | lp_read_bits(&reader, k));
        if (at >= count) return LP_CORRUPT;
        symbols[at] = (uint8_t)lp_read_bits(&reader, 8);
    }
    return lp_read_all(&reader) ? LP_OK : LP_CORRUPT;
}

static lp_status decode_states(lp_rans_run *run, size_t entries, lp_path path)
{
    if ((size_t)(run->end - run->words) < 4 * (size_t)run->lanes) return LP_CORRUPT;
    for (unsigned i = 0; i < run->lanes; i++, run->words += 4) {
        run->states[i] = load32(run->words);
        if (run->states[i] < 1u << 16) return LP_CORRUPT;
    }
#if LP_X86
    if (path != LP_PORTABLE && run->lanes == LP_RANS_LANES) lp_rans_lanes_avx2(run, entries);
#else
    (void)path;
#endif
    const lp_status status = lp_rans_lanes_portable(run, entries);
    if (status != LP_OK) return status;
    for (unsigned i = 0; i < run->lanes; i++) {
        if (run->states[i] != 1u << 16) return LP_CORRUPT;
    }
    return LP_OK;
}

lp_status lp_rans_decode(const uint8_t *coded, size_t size, const lp_rans_table *table, uint32_t *slots, uint8_t *symbols, size_t count, lp_path path)
{
    if (!lp_has_path(path)) return LP_BAD_PATH;
    if ((!coded && size) || (!symbols && count) || !slots) return LP_NULL;
    const uint8_t *end = coded + size, *rest = coded;
    if (table->bits == 0) {
        if (count) memset(symbols, (int)table->first, count);
    } else if (count) {
        const size_t entries = table->pairs ? count / 2 + (count & 1) : count;
        lp_rans_run run = {.words = coded, .end = end, .slots = slots, .symbols = symbols, .count = count, .lanes = lp_rans_lanes(entries),
                           .pairs = table->pairs, .first = table->first};
        lp_status status = fill_slots(table, slots, &run.layout);
        if (status == LP_OK) status = decode_states(&run, entries, path);
        if (status != LP_OK) return status;
        rest = run.words;
    }
    return patch(rest, end, symbols, count);
}
