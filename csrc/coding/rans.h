/* Interleaved rANS over byte symbols with static frequencies (duda2014ans).
 *
 * Bits are little-endian: bit 0 of a byte first, numbers with their lowest bit first. A varint has seven bits a byte, the low ones first,
 * and the high bit set in all bytes but the last.
 *
 * Table:
 *     byte 0      low four bits: P, 0 or 8..14, the frequencies of the symbols add up to 2^P; bit 7: symbols are coded in pairs; others zero
 *     byte 1      the first symbol
 *     P = 0 ends here: all symbols are the first one.
 *     byte 2      how many symbols the range has, less one (at least two have a frequency above zero)
 *     then bits   for each symbol of the range but the last, its frequency f: w = bits that f takes (0 for f = 0), told as the difference
 *                 to the previous symbol's w (to 4 at first), zigzag (0, -1, 1, -2, ... as 0, 1, 2, 3, ...) in unary (so many ones, then a zero);
 *                 then the low w - 1 bits of f. The last one has what is left of 2^P, at least one. Zero bits fill the last byte.
 *     The largest frequency F takes at most 12 bits where the range has more than 16 symbols or pairs are coded, so that an entry of the decoding
 *     table has 32 bits.
 *
 * Pairs are for ranges of at most 16 symbols: with a and b counted from the first symbol, a * 16 + b stands for a, then b. The frequency
 * of a pair is, with f the symbols' own and R = P + 2 at most 14, max(1, round(f_a f_b 2^(R - 2P))) where neither f is 0, halves rounded up;
 * what is missing to 2^R or too much goes to the pair of the most frequent symbol (the first of them), which must keep at least one.
 *
 * Chunk of n symbols (m = n, or m = ceil(n / 2) pairs, an odd last pair being filled with the most frequent symbol as its second):
 *     4 L bytes   the states x_0 ... x_(L-1), 32 bits each; L = 64 lanes for m >= 65536, 4 for m >= 2048, else 1; absent where P = 0 or n = 0
 *     words       of 16 bits; for i = 0 ... m - 1, lane i mod L: s = x mod 2^P, the symbol is the one whose slots hold s;
 *                 x = f (x >> P) + s - (where its slots begin); where x < 2^16, x = x 2^16 + the next word.
 *                 At the end every state is 2^16.
 *     varint e    exceptions: symbols that the table gives no frequency; the most frequent one stands in their place above
 *     where e > 0: a byte k (0..24), then bits: for each exception q in unary (q ones, then a zero), k bits r, and 8 bits, the symbol; it stands
 *                 q 2^k + r places after the previous exception's next place (the first: after the beginning). Zero bits fill the last byte.
 *     Nothing follows.
 *
 * No function allocates, reads beyond the given sizes, or writes beyond them.
 */
#ifndef LILLIPUT_RANS_H
#define LILLIPUT_RANS_H

#include <stddef.h>
#include <stdint.h>

#include "../cpu.h"
#include "../status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LP_RANS_TABLE_MAX = 768, /* bytes that no serialised table exceeds */
    LP_RANS_SLOTS_MAX = 1 << 14
};

/* How symbols are coded: whatever is smallest, or one by one, or in pairs where that is possible. */
typedef enum { LP_RANS_AUTO = 0, LP_RANS_SINGLE = 1, LP_RANS_PAIRS = 2 } lp_rans_mode;

/* A table, read. */
typedef struct {
    unsigned bits;       /* P, of pairs R: slots are 2^bits; 0: one symbol alone */
    unsigned pairs;      /* whether entries are pairs */
    unsigned first;      /* the first symbol of the range */
    unsigned range;      /* symbols in it */
    unsigned most;       /* the most frequent one, from the first */
    unsigned single;     /* P */
    uint16_t frequency[256]; /* of symbols from `first` on; they add up to 2^P */
} lp_rans_table;

/* Read a serialised table. */
lp_status lp_rans_read(const uint8_t *bytes, size_t size, lp_rans_table *table);

/* Frequencies of the entries of the decoding table, symbols or pairs; returns how many there are, 0 for a table whose pairs do not fit. */
unsigned lp_rans_entries(const lp_rans_table *table, uint16_t frequency[256]);

/* The table of least total size for symbols with these counts, or of `precision` bits (8..14) where that is not 0; `*size` bytes. */
lp_status lp_rans_make(const int64_t counts[256], unsigned precision, lp_rans_mode mode, uint8_t bytes[LP_RANS_TABLE_MAX], size_t *size);

/* Bits that a chunk of symbols with these counts takes with that table. */
double lp_rans_bits(const lp_rans_table *table, const int64_t counts[256]);

/* Bytes that no chunk of `count` symbols exceeds. */
size_t lp_rans_bound(size_t count);

/* Code `count` symbols into `coded`, which has room for lp_rans_bound(count) bytes. */
lp_status lp_rans_encode(const uint8_t *symbols, size_t count, const lp_rans_table *table, uint8_t *coded, size_t capacity, size_t *size);

/* Decode a chunk of `count` symbols; `slots` has room for 2^bits entries (LP_RANS_SLOTS_MAX at most). */
lp_status lp_rans_decode(const uint8_t *coded, size_t size, const lp_rans_table *table, uint32_t *slots, uint8_t *symbols, size_t count, lp_path path);

/* A bound for how often symbols are counted in one go, and the count of `count` symbols added to `counts`. */
void lp_count_symbols(const uint8_t *symbols, size_t count, int64_t counts[256]);

#ifdef __cplusplus
}
#endif

#endif
