/* Decoding with a table of the next 12 bits: an entry is the symbols, six at most, that are complete in them. */
#include "../cpu.h"
#include "huffman.h"

/* An entry: bytes 0 .. 5 the symbols, bits 48 .. 53 the bits that they take, bits 60 .. 63 how many they are. */
#define SYMBOLS 0x0000FFFFFFFFFFFFu
enum { MOST = 6, LONGEST = LP_HUFFMAN_LONGEST };

/* Fewer symbols than SMALL are decoded with a table of FEW bits where codes are no longer: it is made faster. */
enum { SMALL = 8192, FEW = 8 };

/* More than six symbols fit in the bits `index`: the bits of the first six. */
static unsigned six(const lp_huffman_code *code, unsigned index, unsigned bits) {
    unsigned used = 0u;
    for (unsigned i = 0; i < (unsigned)MOST; ++i) {
        const unsigned rest = (index << (LONGEST - bits) << used) & ((1u << LONGEST) - 1u);
        unsigned length = 1u;
        while (rest >= code->limit[length]) {
            ++length;
        }
        used += length;
    }
    return used;
}

/* Tables for the next b bits at tables + 2^b, b = 0 .. bits, each from smaller ones: a symbol, then the bits that its code leaves. */
static void make(const lp_huffman_code *code, unsigned bits, uint64_t *tables) {
    tables[1] = 0u;
    for (unsigned b = 1; b <= bits; ++b) {
        uint64_t *to = tables + ((size_t)1 << b);
        unsigned symbol = 0u;
        for (unsigned l = 1; l <= b; ++l) {
            const unsigned end = (uint16_t)((code->limit[l] >> (LONGEST - l)) - code->first[l]), size = 1u << (b - l);
            const uint64_t *rest = tables + size;
            for (; symbol < end; ++symbol) {
                const uint64_t head = ((uint64_t)1 << 60) + ((uint64_t)l << 48) + code->symbols[symbol];
                for (unsigned i = 0; i < size; ++i) {
                    to[i] = ((rest[i] << 8) & SYMBOLS) + (rest[i] & ~SYMBOLS) + head;
                }
                to += size;
            }
        }
        memset(to, 0, (size_t)((tables + ((size_t)2 << b)) - to) * sizeof *to);
    }
    if (code->limit[1] == 0u) {
        return; /* no code of one bit: no more than six in twelve */
    }
    uint64_t *table = tables + ((size_t)1 << bits);
    for (unsigned i = 0; i < 1u << bits; ++i) {
        if (table[i] >> 60 > (uint64_t)MOST) {
            table[i] = (table[i] & SYMBOLS) | (uint64_t)MOST << 60 | (uint64_t)six(code, i, bits) << 48;
        }
    }
}

typedef struct {
    const uint8_t *in, *in_end;
    uint8_t *out, *out_end;
    uint64_t bit; /* of *in, 0 .. 7 */
} cursor;

/* Four look-ups: at most 7 + 48 bits, 24 symbols, and 2 bytes written beyond them. */
enum { READ = 8, TAKEN = 6, GIVEN = 24, WRITTEN = 26 };

LP_PART void step(cursor *c, const uint64_t *table, unsigned down) {
    uint64_t bits = lp_load_be64(c->in) << c->bit, taken = c->bit;
    uint8_t *out = c->out;
    for (unsigned i = 0; i < 4u; ++i) {
        const uint64_t entry = table[bits >> down], told = entry >> 48;
        lp_store_le64(out, entry);
        out += entry >> 60;
        bits <<= told & 63u;
        taken += told; /* 55 at most below the counts of symbols, which are above bit 12 */
    }
    c->out = out;
    c->in += (taken & 63u) >> 3;
    c->bit = taken & 7u;
}

/* How many steps cannot leave the stream's bytes nor its symbols. */
static size_t steps(const cursor *c) {
    const size_t in = (size_t)(c->in_end - c->in), out = (size_t)(c->out_end - c->out);
    if (in < (size_t)READ || out < (size_t)WRITTEN) {
        return 0u;
    }
    const size_t by_in = (in - READ) / TAKEN + 1u, by_out = (out - WRITTEN) / GIVEN + 1u;
    return by_in < by_out ? by_in : by_out;
}

LP_PART void together(cursor c[LP_STREAMS], const uint64_t *table, unsigned down) {
    for (;;) {
        size_t turns = SIZE_MAX;
        for (unsigned s = 0; s < LP_STREAMS; ++s) {
            const size_t own = steps(&c[s]);
            turns = own < turns ? own : turns;
        }
        if (turns == 0u) {
            return;
        }
        cursor c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3]; /* in registers, which an array would not be */
        for (; turns != 0u; --turns) {
            step(&c0, table, down);
            step(&c1, table, down);
            step(&c2, table, down);
            step(&c3, table, down);
        }
        c[0] = c0;
        c[1] = c1;
        c[2] = c2;
        c[3] = c3;
    }
}

#if LP_X86
/* Shifts by a variable are one instruction instead of three. */
__attribute__((target("bmi2"))) static void together_bmi2(cursor c[LP_STREAMS], const uint64_t *table, unsigned down) {
    together(c, table, down);
}

static int has_bmi2(lp_path path) { return path >= LP_AVX2 && __builtin_cpu_supports("bmi2"); }
#endif

static void all(cursor c[LP_STREAMS], const uint64_t *table, unsigned down, lp_path path) {
#if LP_X86
    if (has_bmi2(path)) {
        together_bmi2(c, table, down);
        return;
    }
#endif
    (void)path;
    together(c, table, down);
}

static void alone(cursor *c, const uint64_t *table, unsigned down) {
    for (size_t turns = steps(c); turns != 0u; turns = steps(c)) {
        for (; turns != 0u; --turns) {
            step(c, table, down);
        }
    }
}

/* What the steps left. */
static lp_status finish(const lp_huffman_code *code, const cursor *c) {
    uint64_t bit = c->bit;
    const size_t size = (size_t)(c->in_end - c->in);
    const lp_status status = lp_huffman_symbols(code, c->in, size, &bit, c->out, (size_t)(c->out_end - c->out));
    return status != LP_OK ? status : lp_huffman_ended(c->in, size, bit);
}

static lp_status divide(const lp_streams *layout, const uint8_t *coded, size_t size, uint8_t *symbols, size_t count, cursor c[LP_STREAMS]) {
    size_t at = layout->header;
    for (size_t s = 0; s < layout->streams; ++s) {
        size_t bytes = 0u;
        const lp_status status = lp_streams_get(layout, coded, size, s, at, &bytes);
        if (status != LP_OK) {
            return status;
        }
        c[s].in = coded + at;
        c[s].in_end = coded + at + bytes;
        c[s].out = symbols + s * layout->each;
        c[s].out_end = c[s].out + lp_streams_count(layout, count, s);
        c[s].bit = 0u;
        at += bytes;
    }
    return LP_OK;
}

lp_status lp_huffman_decode(const lp_huffman_code *code, lp_huffman_chunk chunk, uint8_t *symbols, size_t count,
                            uint64_t work[LP_HUFFMAN_WORK], lp_path path) {
    const lp_streams layout = lp_streams_of(count);
    cursor c[LP_STREAMS];
    if ((count != 0u && symbols == NULL) || (chunk.size != 0u && chunk.bytes == NULL)) {
        return LP_NULL;
    }
    if (code->count < 2u) {
        return lp_huffman_only(code, chunk, symbols, count);
    }
    if (count == 0u) {
        return chunk.size == 0u ? LP_OK : LP_CORRUPT;
    }
    lp_status status = divide(&layout, chunk.bytes, chunk.size, symbols, count, c);
    if (status != LP_OK) {
        return status;
    }
    const unsigned bits = count < (size_t)SMALL && code->limit[FEW] == 1u << LONGEST ? (unsigned)FEW : (unsigned)LONGEST;
    const uint64_t *table = work + ((size_t)1 << bits);
    make(code, bits, work);
    if (layout.streams == LP_STREAMS) {
        all(c, table, 64u - bits, path);
    }
    for (size_t s = 0; s < layout.streams && status == LP_OK; ++s) {
        alone(&c[s], table, 64u - bits);
        status = finish(code, &c[s]);
    }
    return status;
}
