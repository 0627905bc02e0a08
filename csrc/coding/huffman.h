/* Canonical Huffman codes of byte symbols, of at most 12 bits (huffman1952; han2016deep for weights).
 *
 * Code. Symbols are numbered by (length, value); codes are given in that order, counting up, each length beginning where the one
 * before ended, doubled: the codes of length l are consecutive, and shorter codes, padded with zeros, are smaller than longer ones.
 * Lengths are complete: sum 2**-length = 1, the lengths of the only symbol of an alphabet being 0.
 *
 * Table: bits, the least significant of each byte first, of one token or more for the symbols 0, 1, 2, ... in turn. `last` is
 * the length of the last symbol that has a code, 4 at first; fields are least significant bit first.
 *
 *     0             the symbol has the length `last`
 *     1 0 0         length last + 1
 *     1 0 1         length last - 1
 *     1 1 0 vvvv    v = 1 .. 12: length v; v = 0: the only symbol, without any bits
 *                   v = 13: fff follow, 2 + f symbols have no code; v = 14: ffffffff, 10 + f have none
 *                   v = 15: ffffffff, 16 + f symbols have the length `last`
 *     1 1 1         the symbol has no code
 *
 * It ends with the token that completes the code, the bits left of its last byte being zero. The alphabet without symbols has
 * an empty table.
 *
 * Chunk: streams as in streams.h. A stream is the codes of its symbols, the most significant bit first, filling each byte from
 * its most significant bit; the bits left of its last byte are zero. With fewer than two symbols in the alphabet it is empty.
 */
#ifndef LILLIPUT_HUFFMAN_H
#define LILLIPUT_HUFFMAN_H

#include "../cpu.h"
#include "streams.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LP_HUFFMAN_LONGEST 12u
#define LP_HUFFMAN_TABLE_MOST 224u /* bytes that a table may take */
#define LP_HUFFMAN_WORK 8192u      /* words of 64 bits that `lp_huffman_decode` wants */

/* A code, ready for decoding a symbol at a time: 310 bytes. */
typedef struct {
    uint16_t limit[LP_HUFFMAN_LONGEST + 1u]; /* codes of at most l bits, left-justified in 12, are less than limit[l] */
    uint16_t first[LP_HUFFMAN_LONGEST + 1u]; /* code of l bits - first[l] (modulo 2**16) is its symbol's number */
    uint8_t symbols[256];                    /* by number */
    uint16_t count;                          /* symbols that have codes */
} lp_huffman_code;

/* Lengths of the code of fewest bits for symbols of these counts; 0 for those that do not occur, and for an only one. */
lp_status lp_huffman_lengths(const uint64_t counts[256], uint8_t lengths[256]);

/* Serialise the code of the alphabet `present` (0 or 1) with these lengths into `table`, of room for LP_HUFFMAN_TABLE_MOST bytes. */
lp_status lp_huffman_write(const uint8_t lengths[256], const uint8_t present[256], uint8_t *table, size_t *size);

/* Read a table; `lengths` and `present` (1 for symbols that have codes) may be NULL. LP_CORRUPT when it is none. */
lp_status lp_huffman_parse(const uint8_t *table, size_t size, lp_huffman_code *code, uint8_t lengths[256], uint8_t present[256]);

/* Bytes that are room enough for any chunk of `count` symbols. */
size_t lp_huffman_bound(size_t count);

/* Code `count` symbols into `coded`, which has room for lp_huffman_bound(count); LP_BAD_CODE when the table does not know one of them. */
lp_status lp_huffman_encode(const uint8_t *table, size_t table_size, const uint8_t *symbols, size_t count, uint8_t *coded, size_t *size);

typedef struct {
    const uint8_t *bytes;
    size_t size;
} lp_huffman_chunk;

/* Decode a chunk of `count` symbols. Paths from LP_AVX2 on use BMI2 where the processor has it. */
lp_status lp_huffman_decode(const lp_huffman_code *code, lp_huffman_chunk chunk, uint8_t *symbols, size_t count,
                            uint64_t work[LP_HUFFMAN_WORK], lp_path path);

/* The same chunks without large tables, a part at a time, in the order of their symbols. */
typedef struct {
    const lp_huffman_code *code;
    lp_huffman_chunk chunk;
    size_t count; /* symbols of the chunk */
    lp_streams layout;
    size_t stream, left; /* the stream being read, and its symbols still to come */
    size_t at, end;      /* where its bytes begin and end */
    uint64_t bit;        /* bits of it that were read */
} lp_huffman_reader;

lp_status lp_huffman_open(lp_huffman_reader *reader, const lp_huffman_code *code, lp_huffman_chunk chunk, size_t count);
/* The next `count` symbols; with the last of them the chunk is checked for being used up. LP_TOO_SHORT when it has fewer. */
lp_status lp_huffman_next(lp_huffman_reader *reader, uint8_t *symbols, size_t count);

/* ---- For use within the coder ---- */

/* The chunk of an alphabet of at most one symbol. */
lp_status lp_huffman_only(const lp_huffman_code *code, lp_huffman_chunk chunk, uint8_t *symbols, size_t count);
/* `count` symbols from bit `*bit` of a stream; LP_CORRUPT when it ends before. */
lp_status lp_huffman_symbols(const lp_huffman_code *code, const uint8_t *stream, size_t size, uint64_t *bit, uint8_t *symbols,
                             size_t count);
/* Whether a stream ends at bit `bit`, but for zeros up to the byte. */
lp_status lp_huffman_ended(const uint8_t *stream, size_t size, uint64_t bit);

#ifdef __cplusplus
}
#endif

#endif
