#include "bit_io.h"
#include "tunstall.h"

enum { START = 32, COST_MOST = 255 };

/* ---- Reading ---- */

/* A length of at least 1; 0 when it is none. */
static uint32_t read_length(lp_bit_reader *r) {
    const uint32_t n = lp_read_unary(r, 9u);
    return n > 8u ? 0u : 1u << n | lp_read_bits(r, n);
}

static lp_status read_presence(lp_bit_reader *r, unsigned count, uint8_t present[256]) {
    unsigned symbol = 0u, seen = 0u;
    while (seen < count) {
        const uint32_t absent = read_length(r), run = read_length(r);
        if (absent == 0u || run == 0u || absent - 1u > 256u - symbol || run > 256u - symbol - (absent - 1u) || run > count - seen) {
            return LP_CORRUPT;
        }
        symbol += absent - 1u;
        memset(present + symbol, 1, run);
        symbol += run;
        seen += run;
    }
    return LP_OK;
}

static lp_status read_costs(lp_bit_reader *r, unsigned rice, const uint8_t present[256], uint8_t costs[256]) {
    int last = START;
    for (unsigned s = 0; s < 256u; ++s) {
        if (!present[s]) {
            continue;
        }
        const uint32_t high = lp_read_unary(r, 512u), coded = high << rice | lp_read_bits(r, rice);
        if (high == 512u || coded > 2u * (unsigned)COST_MOST) {
            return LP_CORRUPT;
        }
        last += coded & 1u ? -(int)((coded + 1u) / 2u) : (int)(coded / 2u);
        if (last < 1 || last > COST_MOST) {
            return LP_CORRUPT;
        }
        costs[s] = (uint8_t)last;
    }
    return LP_OK;
}

/* Ranks by counting: (cost, symbol) in order. */
static void rank(lp_tunstall_code *code, const uint8_t present[256], const uint8_t costs[256]) {
    uint16_t next[COST_MOST + 2] = {0};
    for (unsigned s = 0; s < 256u; ++s) {
        next[costs[s] + 1u] = (uint16_t)(next[costs[s] + 1u] + present[s]);
    }
    for (unsigned c = 1; c <= (unsigned)COST_MOST + 1u; ++c) {
        next[c] = (uint16_t)(next[c] + next[c - 1u]);
    }
    for (unsigned s = 0; s < 256u; ++s) {
        if (present[s]) {
            const unsigned at = next[costs[s]]++;
            code->symbols[at] = (uint8_t)s;
            code->costs[at] = costs[s];
        }
    }
}

lp_status lp_tunstall_parse(const uint8_t *table, size_t size, lp_tunstall_code *code) {
    uint8_t present[256] = {0}, costs[256] = {0};
    lp_bit_reader r = {table, size, 0u};
    memset(code, 0, sizeof *code);
    code->bits = 8u;
    if (size == 0u) {
        return LP_OK;
    }
    if (table == NULL) {
        return LP_NULL;
    }
    if (size > LP_TUNSTALL_TABLE_MOST) {
        return LP_CORRUPT;
    }
    const unsigned bits = 8u + lp_read_bits(&r, 4), kind = lp_read_bits(&r, 1), rice = lp_read_bits(&r, 3), count = 1u + lp_read_bits(&r, 8);
    lp_status status = bits > 16u ? LP_CORRUPT : read_presence(&r, count, present);
    if (status == LP_OK && count > 1u) {
        status = read_costs(&r, rice, present, costs);
    }
    if (status != LP_OK || !lp_read_all(&r)) {
        return LP_CORRUPT;
    }
    code->bits = bits;
    code->kind = kind;
    code->count = count;
    rank(code, present, costs);
    return LP_OK;
}

/* ---- Writing ---- */

static void write_length(lp_bit_writer *w, unsigned length) {
    unsigned n = 0u;
    while (length >> (n + 1u) != 0u) {
        ++n;
    }
    lp_write_unary(w, n);
    lp_write_bits(w, length - (1u << n), n);
}

/* The differences of costs as they are coded; how many. */
static unsigned differences(const uint8_t costs[256], uint16_t coded[256]) {
    int last = START;
    unsigned count = 0u;
    for (unsigned s = 0; s < 256u; ++s) {
        if (costs[s] != 0u) {
            const int d = costs[s] - last;
            coded[count++] = (uint16_t)(d >= 0 ? 2 * d : -2 * d - 1);
            last = costs[s];
        }
    }
    return count;
}

static unsigned best_rice(const uint16_t coded[256], unsigned count) {
    unsigned best = 0u;
    uint32_t least = UINT32_MAX;
    for (unsigned rice = 0; rice < 8u; ++rice) {
        uint32_t total = 0u;
        for (unsigned i = 0; i < count; ++i) {
            total += (uint32_t)(coded[i] >> rice) + 1u + rice;
        }
        if (total < least) {
            least = total;
            best = rice;
        }
    }
    return best;
}

lp_status lp_tunstall_write(const uint8_t costs[256], unsigned bits, unsigned kind, uint8_t *table, size_t *size) {
    uint16_t coded[256];
    lp_bit_writer w = {table, 0u, 0u, 0u};
    const unsigned count = differences(costs, coded), rice = best_rice(coded, count);
    *size = 0u;
    if (bits < 8u || bits > 16u || kind > 1u) {
        return LP_BAD_BITS;
    }
    if (count == 0u) {
        return LP_OK;
    }
    lp_write_bits(&w, bits - 8u, 4);
    lp_write_bits(&w, kind, 1);
    lp_write_bits(&w, rice, 3);
    lp_write_bits(&w, count - 1u, 8);
    for (unsigned s = 0, seen = 0; seen < count;) {
        unsigned from = s;
        while (costs[s] == 0u) {
            ++s;
        }
        write_length(&w, s - from + 1u);
        for (from = s; s < 256u && costs[s] != 0u; ++s) {
            ++seen;
        }
        write_length(&w, s - from);
    }
    for (unsigned i = 0; count > 1u && i < count; ++i) {
        lp_write_unary(&w, (uint32_t)coded[i] >> rice);
        lp_write_bits(&w, coded[i] & ((1u << rice) - 1u), rice);
    }
    *size = lp_write_end(&w);
    return LP_OK;
}
