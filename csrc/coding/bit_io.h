/* Bits in bytes, the lowest first: a reader that gives zeros beyond the end and knows that it did, and a writer into enough room. */
#ifndef LILLIPUT_BIT_IO_H
#define LILLIPUT_BIT_IO_H

#include <stddef.h>
#include <stdint.h>

/* Bits of a number without leading zeros: 0 for 0. */
static inline unsigned lp_width(uint32_t value)
{
    unsigned width = 0;
    for (; value; value >>= 1) width++;
    return width;
}

typedef struct {
    const uint8_t *bytes;
    size_t size;
    size_t at; /* the next bit */
} lp_bit_reader;

/* The next `count` (at most 25) bits as a number; zeros beyond the end. */
static inline uint32_t lp_read_bits(lp_bit_reader *r, unsigned count)
{
    const size_t byte = r->at >> 3;
    uint32_t value = 0;
    for (unsigned i = 0; i < 4 && byte + i < r->size; i++) value |= (uint32_t)r->bytes[byte + i] << (8 * i);
    value >>= r->at & 7;
    r->at += count;
    return value & ((1u << count) - 1);
}

/* Ones before the next zero, or `limit` of them. */
static inline uint32_t lp_read_unary(lp_bit_reader *r, uint32_t limit)
{
    uint32_t ones = 0;
    while (ones < limit && lp_read_bits(r, 1)) ones++;
    return ones;
}

/* Whether no bit beyond the end was read and nothing but the zeros that fill the last byte is left. */
static inline int lp_read_all(const lp_bit_reader *r)
{
    if (r->at > 8 * r->size || 8 * r->size - r->at >= 8) return 0;
    return (r->at & 7) == 0 || r->bytes[r->size - 1] >> (r->at & 7) == 0;
}

typedef struct {
    uint8_t *bytes;
    size_t at;        /* the next byte */
    uint64_t pending; /* bits that do not fill a byte yet */
    unsigned count;
} lp_bit_writer;

/* The low `count` (at most 32) bits of `value`. */
static inline void lp_write_bits(lp_bit_writer *w, uint32_t value, unsigned count)
{
    w->pending |= (uint64_t)value << w->count;
    w->count += count;
    while (w->count >= 8) {
        w->bytes[w->at++] = (uint8_t)w->pending;
        w->pending >>= 8;
        w->count -= 8;
    }
}

static inline void lp_write_unary(lp_bit_writer *w, uint32_t ones)
{
    for (; ones >= 16; ones -= 16) lp_write_bits(w, 0xffff, 16);
    lp_write_bits(w, (1u << ones) - 1, ones + 1);
}

/* Fill the last byte with zeros; how many bytes there are. */
static inline size_t lp_write_end(lp_bit_writer *w)
{
    if (w->count) lp_write_bits(w, 0, 8 - w->count);
    return w->at;
}

#endif
