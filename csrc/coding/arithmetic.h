/* Arithmetic coding of byte symbols, with static or with adaptive frequencies (Witten 1987; the interval is that of range_coder.h).
 *
 * A symbol with frequency f, those before it having F together, of a total T, takes [low + F r, low + (F + f) r) of an interval, r = floor(range / T).
 *
 * Static table: byte 0 P, 0 or 1 .. 16; byte 1 the first symbol that occurs. P = 0 ends here: all symbols are the first one. Else byte 2,
 * how many symbols there are from the first to the last, less one, and bits (bit_io.h): for each of them but the last its frequency f, by
 * w = the bits that f takes (0 for f = 0), told as the difference to the w before (at first 4), zigzag (0, -1, 1, -2, ... as 0, 1, 2, 3, ...)
 * in unary, then the low w - 1 bits of f. The last one has what is left of T = 2^P, at least one. Zero bits fill the last byte.
 *
 * Adaptive frequencies have no table: all 256 are 1 at first; after every symbol its own grows by 32; when T then exceeds 2^22, each f
 * becomes ceil(f / 2).
 *
 * A chunk of no symbols, or with P = 0, has no byte. No function allocates, or reads or writes beyond what it is given. */
#ifndef LILLIPUT_ARITHMETIC_H
#define LILLIPUT_ARITHMETIC_H

#include <stddef.h>
#include <stdint.h>

#include "../status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    LP_ARITHMETIC_PRECISION = 16,
    LP_ARITHMETIC_TABLE_MAX = 1280 /* bytes that no table exceeds */
};

/* A static table, read: `below[s]` is what the symbols before s have together; all that exist lie in first .. last. */
typedef struct {
    uint32_t below[257];
    unsigned precision, first, last;
} lp_arithmetic_table;

/* Working memory of the adaptive coders: a tree of partial sums, tree[i] those of the i & -i frequencies up to the i-th. */
typedef struct {
    uint32_t tree[257];
    uint32_t total;
} lp_arithmetic_model;

lp_status lp_arithmetic_read(const uint8_t *bytes, size_t size, lp_arithmetic_table *table);

/* The table of least total size for symbols with these counts; `*size` bytes. */
lp_status lp_arithmetic_make(const int64_t counts[256], uint8_t bytes[LP_ARITHMETIC_TABLE_MAX], size_t *size);

/* `*size` is the room at `coded` first, then what was written. LP_BAD_CODE for a symbol that the table does not have. */
lp_status lp_arithmetic_encode(const uint8_t *symbols, size_t count, const lp_arithmetic_table *table, uint8_t *coded, size_t *size);
lp_status lp_arithmetic_decode(const uint8_t *coded, size_t size, const lp_arithmetic_table *table, uint8_t *symbols, size_t count);

lp_status lp_adaptive_encode(const uint8_t *symbols, size_t count, lp_arithmetic_model *model, uint8_t *coded, size_t *size);
lp_status lp_adaptive_decode(const uint8_t *coded, size_t size, lp_arithmetic_model *model, uint8_t *symbols, size_t count);

/* Room that no chunk exceeds. */
size_t lp_arithmetic_bound(size_t count);

#ifdef __cplusplus
}
#endif

#endif
