/* How the chunks of the static coders (Huffman, Tunstall) are divided, and unaligned words.
 *
 * A chunk of n symbols is S adjacent streams: S = 1 for n < LP_STREAMS_FROM, else S = LP_STREAMS. Stream i codes the symbols
 * [i * m, min(n, (i + 1) * m)), m = ceil(n / S). The chunk begins with the sizes in bytes of the streams 0 .. S - 2, w bytes each,
 * little-endian, w being the least number with 2 * m < 256**w; the last stream takes what is left. One stream thus has no header.
 */
#ifndef LILLIPUT_CODING_STREAMS_H
#define LILLIPUT_CODING_STREAMS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../status.h"

/* Functions whose arguments are constants once they are part of their callers. */
#if defined(__GNUC__)
#define LP_PART __attribute__((always_inline)) static inline
#else
#define LP_PART static inline
#endif

#define LP_STREAMS 4u
#define LP_STREAMS_FROM 4096u

typedef struct {
    size_t streams;  /* S */
    size_t each;     /* m: symbols of every stream but the last, which may have fewer */
    unsigned width;  /* w */
    size_t header;   /* bytes of all sizes */
} lp_streams;

static inline lp_streams lp_streams_of(size_t count) {
    lp_streams s;
    s.streams = count < LP_STREAMS_FROM ? 1u : LP_STREAMS;
    s.each = count / s.streams + (count % s.streams != 0u);
    s.width = 0u;
    for (size_t most = s.each; most != 0u; most >>= 8) {
        ++s.width;
    }
    if (s.width != 0u && (s.each >> (8u * s.width - 1u)) != 0u) {
        ++s.width; /* 2 * m has one bit more */
    }
    s.header = (s.streams - 1u) * s.width;
    return s;
}

/* Symbols of stream `i` of a chunk of `count`. */
static inline size_t lp_streams_count(const lp_streams *s, size_t count, size_t i) {
    return i + 1u < s->streams ? s->each : count - i * s->each;
}

static inline void lp_streams_put(const lp_streams *s, uint8_t *coded, size_t i, size_t size) {
    for (unsigned b = 0; b < s->width; ++b) {
        coded[i * s->width + b] = (uint8_t)(size & 0xFFu);
        size >>= 8;
    }
}

/* Size of stream `i` of a chunk of `size` bytes, the first of its bytes being at `at`; LP_CORRUPT when it leaves the chunk. */
static inline lp_status lp_streams_get(const lp_streams *s, const uint8_t *coded, size_t size, size_t i, size_t at, size_t *out) {
    size_t told = 0u;
    if (at > size || s->header > size) {
        return LP_CORRUPT;
    }
    if (i + 1u == s->streams) {
        *out = size - at;
        return LP_OK;
    }
    for (unsigned b = s->width; b-- > 0u;) {
        if (told > (SIZE_MAX >> 8)) {
            return LP_CORRUPT;
        }
        told = (told << 8) | coded[i * s->width + b];
    }
    *out = told;
    return told <= size - at ? LP_OK : LP_CORRUPT;
}

/* Compilers turn these into one instruction (or two) each. */
static inline uint64_t lp_load_le64(const uint8_t *p) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t v;
    memcpy(&v, p, 8u);
    return v;
#else
    uint64_t v = 0u;
    for (unsigned i = 8u; i-- > 0u;) {
        v = (v << 8) | p[i];
    }
    return v;
#endif
}

static inline void lp_store_le64(uint8_t *p, uint64_t v) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(p, &v, 8u);
#else
    for (unsigned i = 0; i < 8u; ++i) {
        p[i] = (uint8_t)(v >> (8u * i));
    }
#endif
}

static inline uint64_t lp_swap64(uint64_t v) {
#if defined(__GNUC__)
    return __builtin_bswap64(v);
#else
    v = ((v & 0x00FF00FF00FF00FFu) << 8) | ((v >> 8) & 0x00FF00FF00FF00FFu);
    v = ((v & 0x0000FFFF0000FFFFu) << 16) | ((v >> 16) & 0x0000FFFF0000FFFFu);
    return (v << 32) | (v >> 32);
#endif
}

static inline uint64_t lp_load_be64(const uint8_t *p) { return lp_swap64(lp_load_le64(p)); }
static inline void lp_store_be64(uint8_t *p, uint64_t v) { lp_store_le64(p, lp_swap64(v)); }

#endif
