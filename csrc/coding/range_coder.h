/* The interval of an arithmetic coder without carry limits (Witten 1987, with a range in place of a high end), and its bytes.
 *
 * The coder holds [low, low + range), 64-bit numbers, at first low = 0, range = 2^64 - 1. What is coded narrows the interval. When
 * range < 2^32 the highest four bytes of low are written (carries go into what was written before), and low and range are shifted left
 * by 32. At the end t is 1 where range >= 2^57, 2 where >= 2^49, 3 where >= 2^41, 4 where >= 2^33, else 5, and the t highest bytes are
 * written of low rounded up to a multiple of 2^(64 - 8t): a number in the interval whatever follows. The most significant byte comes first.
 * The decoder holds code - low; since range is the same on both sides, it knows in the end how many bytes there must be. */
#ifndef LILLIPUT_RANGE_CODER_H
#define LILLIPUT_RANGE_CODER_H

#include <stddef.h>
#include <stdint.h>

#include "../cpu.h"

#ifdef __GNUC__
#define LP_OFTEN(condition) __builtin_expect((condition) != 0, 1)
#else
#define LP_OFTEN(condition) (condition)
#endif

#define LP_RANGE_LEAST (UINT64_C(1) << 32)

/* Bytes of the end, see above. */
static inline unsigned lp_range_tail(uint64_t range) {
    unsigned bytes = 1u;
    while (bytes < 5u && range >> (65u - 8u * bytes) == 0u) {
        bytes += 1u;
    }
    return bytes;
}

typedef struct {
    uint64_t low, range;
    uint8_t *next; /* where the next byte goes */
    uint8_t *end;  /* behind the room */
    int full;      /* there was none left: nothing was written since */
} lp_range_encoder;

static inline void lp_range_put(lp_range_encoder *e, unsigned bytes) {
    if ((size_t)(e->end - e->next) < bytes) {
        e->full = 1;
        return;
    }
    for (unsigned i = 0; i < bytes; ++i) {
        *e->next++ = (uint8_t)(e->low >> (56u - 8u * i));
    }
}

/* Move the low end. There is no carry before the first byte, since low + range never exceeded 2^64 - 1 then. */
LP_ALWAYS_INLINE void lp_range_add(lp_range_encoder *e, uint64_t amount) {
    e->low += amount;
    if (e->low < amount && !e->full) {
        uint8_t *behind = e->next;
        do {
            behind -= 1;
            *behind = (uint8_t)(*behind + 1u);
        } while (*behind == 0u);
    }
}

LP_ALWAYS_INLINE void lp_range_flush(lp_range_encoder *e) {
    if (e->range < LP_RANGE_LEAST) {
        lp_range_put(e, 4u);
        e->low <<= 32;
        e->range <<= 32;
    }
}

static inline void lp_range_finish(lp_range_encoder *e) {
    const unsigned tail = lp_range_tail(e->range);
    lp_range_add(e, (UINT64_C(1) << (64u - 8u * tail)) - 1u);
    lp_range_put(e, tail);
}

typedef struct {
    uint64_t value, range;
    const uint8_t *bytes;
    size_t size;
    uint64_t at; /* the next byte; it may lie behind the end, where zeros stand */
} lp_range_decoder;

/* Four bytes as a number. */
LP_ALWAYS_INLINE uint32_t lp_range_word(lp_range_decoder *d) {
    uint32_t word = 0u;
    if (d->at + 4u <= d->size) {
        const uint8_t *next = d->bytes + d->at;
        word = (uint32_t)next[0] << 24 | (uint32_t)next[1] << 16 | (uint32_t)next[2] << 8 | next[3];
    } else {
        for (unsigned i = 0; i < 4u; ++i) {
            word = word << 8 | (d->at + i < d->size ? d->bytes[d->at + i] : 0u);
        }
    }
    d->at += 4u;
    return word;
}

static inline void lp_range_open(lp_range_decoder *d, const uint8_t *bytes, size_t size) {
    d->range = UINT64_MAX;
    d->bytes = bytes;
    d->size = size;
    d->at = 0u;
    d->value = (uint64_t)lp_range_word(d) << 32;
    d->value |= lp_range_word(d);
}

LP_ALWAYS_INLINE void lp_range_refill(lp_range_decoder *d) {
    if (!LP_OFTEN(d->range >= LP_RANGE_LEAST)) {
        d->value = d->value << 32 | lp_range_word(d);
        d->range <<= 32;
    }
}

/* Bytes that the coder wrote for what was decoded. */
static inline uint64_t lp_range_size(const lp_range_decoder *d) { return d->at - 8u + lp_range_tail(d->range); }

#endif
