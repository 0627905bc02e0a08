/* Tunstall codes of byte symbols: sequences of symbols to words of b bits, 8 <= b <= 16 (tunstall1967).
 *
 * Table: bits, the least significant of each byte first, fields least significant bit first:
 *
 *     4 bits b - 8;  1 bit: the kind of dictionary;  3 bits r;  8 bits K - 1, K being how many symbols the alphabet has
 *     presence: runs of absent and present symbols in turn, from symbol 0 and an absent run on, until K are present; the length of a run
 *     (of an absent one: plus 1) as n ones, a zero, and its n bits below the uppermost
 *     costs, if K > 1: of the present symbols in turn, 1 .. 255, in eighths of a bit, about -8 log2 of their probabilities: the difference
 *     to the cost before (to 32 at first), d >= 0 as 2 d and d < 0 as -2 d - 1, of which the part above the low r bits as ones and a zero,
 *     then the low r bits
 *
 * and zeros up to the byte. The alphabet without symbols has an empty table.
 *
 * Dictionary: the symbols by (cost, value) have the ranks 0 .. K - 1. The cost of a sequence is the sum of its symbols' costs.
 *     Kind 0, the leaves of a tree (Tunstall's): the M = floor((2^b - 1) / (K - 1)) - 1 cheapest sequences of 1 .. 63 symbols, and
 *     the empty one, are inner nodes; words are the children of inner nodes that are none themselves.
 *     Kind 1, all nodes of a tree: words are the K symbols and the cheapest longer sequences of at most 64 symbols, 2^b in all.
 * Of equal costs those that come first in breadth-first order (by length, then by the numbers of their parents, then by rank) are taken.
 * Words are numbered in breadth-first order, children of one parent by rank. So the dictionary follows from integers alone.
 * Numbers that are left over stand for no symbols; coders do not write them.
 *
 * Chunk: streams as in streams.h. A stream is its words one after another, the least significant bit first, each byte being filled
 * from its least significant bit; the bits left of its last byte are zero. Symbols are taken by the longest word that they begin with.
 * The last word of a stream may have more symbols than are left: those are dropped; a stream that ends within a word of kind 0 is
 * completed so. With fewer than two symbols in the alphabet a chunk is empty.
 */
#ifndef LILLIPUT_TUNSTALL_H
#define LILLIPUT_TUNSTALL_H

#include "streams.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LP_TUNSTALL_LONGEST 64u    /* symbols of a word */
#define LP_TUNSTALL_TABLE_MOST 640u /* bytes that a table may take */

enum { LP_TUNSTALL_LEAVES = 0, LP_TUNSTALL_NODES = 1 };

/* A table, read. */
typedef struct {
    unsigned bits, kind, count; /* of a word; of dictionary; symbols of the alphabet */
    uint8_t symbols[256];       /* by rank */
    uint8_t costs[256];         /* by rank */
} lp_tunstall_code;

/* A node: the parent's number among the inner nodes plus 1 (0: the empty sequence) above bit 15, the length above bit 8, the last symbol. */
#define LP_TUNSTALL_PARENT(node) ((node) >> 15)
#define LP_TUNSTALL_LENGTH(node) (((node) >> 8) & 127u)

/* Children of a node by rank: those below `inner` are the inner nodes from `first` on, the others the words from `word` on. */
typedef struct {
    uint32_t first, word;
    uint32_t inner;
} lp_tunstall_link;

/* The dictionary. Of kind 1 words are the inner nodes. */
typedef struct {
    uint32_t *words; /* 2^b */
    uint32_t *inner; /* 2^b; of kind 1 the same as `words` */
    uint16_t *costs; /* of inner nodes; 2^b */
    lp_tunstall_link *links; /* 2^b + 1, of the empty sequence and of inner nodes; NULL: not wanted */
    uint32_t word_count, inner_count;
} lp_tunstall_nodes;

/* Costs of 0: symbols that do not occur. `table` has room for LP_TUNSTALL_TABLE_MOST bytes. */
lp_status lp_tunstall_write(const uint8_t costs[256], unsigned bits, unsigned kind, uint8_t *table, size_t *size);

/* Read a table; LP_CORRUPT when it is none. */
lp_status lp_tunstall_parse(const uint8_t *table, size_t size, lp_tunstall_code *code);

/* Build the dictionary of a code of two symbols or more in the arrays that `nodes` names. */
void lp_tunstall_build(const lp_tunstall_code *code, lp_tunstall_nodes *nodes);

/* Bytes, in multiples of 8, that the functions below want of an aligned workspace. */
size_t lp_tunstall_encode_work(const lp_tunstall_code *code);
size_t lp_tunstall_decode_work(const lp_tunstall_code *code);

/* Bytes that are room enough for any chunk of `count` symbols. */
size_t lp_tunstall_bound(const lp_tunstall_code *code, size_t count);

/* Code `count` symbols into `coded`, which has room for lp_tunstall_bound(); LP_BAD_CODE when the table does not know one of them. */
lp_status lp_tunstall_encode(const lp_tunstall_code *code, const uint8_t *symbols, size_t count, uint8_t *coded, size_t *size, void *work);

/* Symbols a word for symbols that occur as often as `counts` tell, in any order; of a code of two symbols or more. Host only. */
double lp_tunstall_rate(const lp_tunstall_code *code, const double counts[256], void *work);

typedef struct {
    const uint8_t *bytes;
    size_t size;
} lp_tunstall_chunk;

/* Decode a chunk of `count` symbols. */
lp_status lp_tunstall_decode(const lp_tunstall_code *code, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count, void *work);

/* The strings of the dictionary, by which a chunk is decoded: built from a code, or constants of a program. */
typedef struct {
    const uint32_t *entries; /* 2^b: where the word's symbols begin in `strings` above bit 8, how many they are; 0 where there is no word */
    const uint8_t *strings;  /* 64 bytes can be read from the beginning of each */
    unsigned bits, longest;  /* of a word; symbols of the longest word */
} lp_tunstall_strings;

lp_status lp_tunstall_decode_strings(const lp_tunstall_strings *dictionary, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count);

/* The same chunks by the nodes alone, from the last symbol of each word back: 4 bytes a node, and 2 more while they are built. */
size_t lp_tunstall_small_work(const lp_tunstall_code *code);
lp_status lp_tunstall_decode_small(const lp_tunstall_code *code, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count, void *work);

/* ---- For use within the coder ---- */

/* The chunk of an alphabet of at most one symbol. */
lp_status lp_tunstall_only(const lp_tunstall_code *code, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count);

/* Word `index` of a stream. The words of `size` bytes are size * 8 / bits. */
static inline unsigned lp_tunstall_word(const uint8_t *stream, size_t size, unsigned bits, size_t index) {
    /* index * bits / 8 without overflow */
    const size_t at = index / 8u * bits + (index % 8u) * bits / 8u;
    uint32_t word = stream[at];
    if (at + 1u < size) {
        word |= (uint32_t)stream[at + 1u] << 8;
    }
    if (at + 2u < size) {
        word |= (uint32_t)stream[at + 2u] << 16;
    }
    return (word >> ((index % 8u) * bits % 8u)) & ((1u << bits) - 1u);
}

/* How many whole words `size` bytes hold. */
static inline size_t lp_tunstall_words(size_t size, unsigned bits) { return size / bits * 8u + size % bits * 8u / bits; }

/* Whether a stream's bits after its words are less than a byte, and zero. */
static inline int lp_tunstall_ended(const uint8_t *stream, size_t size, unsigned bits) {
    const size_t left = size % bits * 8u % bits;
    return left == 0u || (left < 8u && stream[size - 1u] >> (8u - left) == 0u);
}

#ifdef __cplusplus
}
#endif

#endif
