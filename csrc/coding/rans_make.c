#include "rans.h"

#include <math.h>
#include <string.h>

#include "bit_io.h"
#include "rans_paths.h"

/* A table that is being made: which symbols have frequencies, and what all of it costs. */
typedef struct {
    lp_rans_table table;
    double bits;
} candidate;

/* Bits that an exception takes besides those of the symbol in its place, `share` of all symbols being exceptions. */
static double exception_bits(double share)
{
    return 8 + 1.5 + (share < 0.5 ? -log2(share) : 1);
}

/* Symbols so rare that a frequency of one costs the others more than exceptions would. */
static void drop_rare(const int64_t counts[256], double total, unsigned precision, double kept[256])
{
    double rare = 0;
    const double slots = (double)(1u << precision);
    for (unsigned s = 0; s < 256; s++) rare += (double)counts[s] * slots < total ? (double)counts[s] : 0;
    const double each = exception_bits(rare > 0 ? rare / total : 1e-9) + 2;
    for (unsigned s = 0; s < 256; s++) {
        const double c = (double)counts[s], within = c * precision + total * 1.4427 / slots;
        kept[s] = c * slots < total && c * each < within ? 0 : c;
    }
}

/* Frequencies that add up to 2^precision, none of a kept symbol zero, near those of least size. */
static void normalise(const double *kept, unsigned range, double total, unsigned precision, uint16_t *frequency)
{
    int32_t left = 1 << precision;
    for (unsigned i = 0; i < range; i++) {
        const double ideal = kept[i] / total * (double)(1u << precision);
        frequency[i] = (uint16_t)(kept[i] > 0 ? ideal < 1.5 ? 1 : (uint32_t)(ideal + 0.5) : 0);
        left -= frequency[i];
    }
    while (left) {
        unsigned best = range;
        double most = 0;
        for (unsigned i = 0; i < range; i++) {
            /* What one slot more saves, or one less costs, to first order. */
            const double f = frequency[i] + (left > 0 ? 0.5 : -0.5), worth = left > 0 ? kept[i] / f : f / (kept[i] + 1e-300);
            if (kept[i] > 0 && (left > 0 || frequency[i] > 1) && worth > most) {
                most = worth;
                best = i;
            }
        }
        /* Far off where the most frequent symbol has to make room for many others: in steps of a share of what it has. */
        const int32_t much = left > 64 || left < -64 ? left / 32 : left > 0 ? 1 : -1;
        const int32_t take = left < 0 && (int32_t)frequency[best] + much < 1 ? 1 - (int32_t)frequency[best] : much;
        frequency[best] = (uint16_t)(frequency[best] + take);
        left -= take;
    }
}

static size_t write_table(const lp_rans_table *t, uint8_t bytes[LP_RANS_TABLE_MAX])
{
    bytes[0] = (uint8_t)(t->single | t->pairs << 7);
    bytes[1] = (uint8_t)t->first;
    if (t->single == 0) return 2;
    bytes[2] = (uint8_t)(t->range - 1);
    lp_bit_writer writer = {bytes + 3, 0, 0, 0};
    unsigned before = 4;
    for (unsigned i = 0; i + 1 < t->range; i++) {
        const unsigned width = lp_width(t->frequency[i]);
        lp_write_unary(&writer, width >= before ? 2 * (width - before) : 2 * (before - width) - 1);
        if (width) lp_write_bits(&writer, t->frequency[i] - (1u << (width - 1)), width - 1);
        before = width;
    }
    return 3 + lp_write_end(&writer);
}

double lp_rans_bits(const lp_rans_table *table, const int64_t counts[256])
{
    double bits = 8, total = 0, exceptions = 0, kept[256] = {0};
    for (unsigned s = 0; s < 256; s++) {
        const unsigned at = s - table->first;
        total += (double)counts[s];
        if (at < table->range && table->frequency[at]) kept[at] += (double)counts[s];
        else exceptions += (double)counts[s];
    }
    kept[table->most] += exceptions;
    if (exceptions > 0) bits += 16 + exceptions * (exception_bits(exceptions / total));
    if (table->bits == 0 || total == 0) return bits;
    uint16_t frequency[256];
    const unsigned count = lp_rans_entries(table, frequency);
    const double entries = table->pairs ? total / 2 : total;
    for (unsigned i = 0; i < count; i++) {
        const double often = table->pairs ? kept[i >> 4] * kept[i & 15] / (2 * total) : kept[i];
        if (often > 0) bits += often * (table->bits - log2(frequency[i]));
    }
    return bits + 24.0 * lp_rans_lanes(entries < 1e9 ? (size_t)entries : (size_t)1e9);
}

/* One table; its cost is infinite where it cannot be. */
static void try_table(const int64_t counts[256], double total, unsigned precision, unsigned pairs, candidate *to)
{
    double kept[256];
    uint8_t bytes[LP_RANS_TABLE_MAX];
    unsigned first = 256, last = 0, most = 0;
    lp_rans_table *t = &to->table;
    memset(to, 0, sizeof *to);
    to->bits = INFINITY;
    drop_rare(counts, total, precision, kept);
    for (unsigned s = 0; s < 256; s++) {
        if (kept[s] <= 0) continue;
        first = first == 256 ? s : first;
        last = s;
        most = kept[s] > kept[most] ? s : most;
    }
    if (first == last || (pairs && last - first > 15)) return;
    for (unsigned s = 0; s < 256; s++) kept[most] += kept[s] > 0 ? 0 : (double)counts[s];
    t->single = precision;
    t->pairs = pairs;
    t->first = first;
    t->range = last - first + 1;
    normalise(kept + first, t->range, total, precision, t->frequency);
    const size_t size = write_table(t, bytes);
    if (lp_rans_read(bytes, size, t) == LP_OK) to->bits = lp_rans_bits(t, counts) + 8.0 * (double)size;
}

/* Pairs decode twice as fast; a table of fewer slots sooner. Each may cost so much more. */
static const double pairs_worth = 1.0005, small_worth = 1.0001;

lp_status lp_rans_make(const int64_t counts[256], unsigned precision, lp_rans_mode mode, uint8_t bytes[LP_RANS_TABLE_MAX], size_t *size)
{
    double total = 0;
    candidate best = {.bits = INFINITY}, now;
    unsigned most = 0;
    if (precision && (precision < 8 || precision > 14)) return LP_BAD_BITS;
    for (unsigned s = 0; s < 256; s++) {
        if (counts[s] < 0) return LP_BAD_SHAPE;
        total += (double)counts[s];
        most = counts[s] > counts[most] ? s : most;
    }
    best.table.first = most;
    best.table.range = 1;
    best.table.frequency[0] = 1;
    if (total > 0) best.bits = lp_rans_bits(&best.table, counts) + 16;
    if (total > 0 && (double)counts[most] < total) {
        /* One symbol and nothing but exceptions is a choice too. */
        const unsigned pairs_too = mode == LP_RANS_PAIRS || (mode == LP_RANS_AUTO && total >= 65536);
        for (unsigned pairs = 0; pairs <= pairs_too; pairs++) {
            for (unsigned p = 14; p >= 8; p--) {
                if (precision && p != precision) continue;
                try_table(counts, total, p, pairs, &now);
                const double worth = pairs == best.table.pairs ? small_worth : mode == LP_RANS_PAIRS ? INFINITY : pairs_worth;
                if (isfinite(now.bits) && now.bits <= best.bits * worth) best = now;
            }
        }
        if (!isfinite(best.bits)) return LP_BAD_SHAPE;
    }
    *size = write_table(&best.table, bytes);
    return LP_OK;
}
