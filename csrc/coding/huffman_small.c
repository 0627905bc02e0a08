/* Decoding a symbol at a time: codes of one length are consecutive numbers, so that comparing with a limit for each length finds it. */
#include "huffman.h"

lp_status lp_huffman_symbols(const lp_huffman_code *code, const uint8_t *stream, size_t size, uint64_t *bit, uint8_t *symbols,
                             size_t count) {
    size_t at = (size_t)(*bit >> 3);
    uint32_t bits = 0u; /* the next of the stream, the first uppermost; zeros beyond the end */
    unsigned have = 0u, shortest = 1u;
    if (*bit > 8u * (uint64_t)size) {
        return LP_CORRUPT;
    }
    if ((*bit & 7u) != 0u) {
        bits = (uint32_t)stream[at++] << (24u + (unsigned)(*bit & 7u));
        have = 8u - (unsigned)(*bit & 7u);
    }
    while (code->limit[shortest] == 0u) {
        ++shortest;
    }
    for (size_t i = 0; i < count; ++i) {
        if (have < LP_HUFFMAN_LONGEST) {
            for (; have <= 24u && at < size; have += 8u) {
                bits |= (uint32_t)stream[at++] << (24u - have);
            }
        }
        const uint32_t next = bits >> (32u - LP_HUFFMAN_LONGEST);
        unsigned length = shortest;
        while (next >= code->limit[length]) { /* a complete code: limit[12] is more than any 12 bits */
            ++length;
        }
        if (length > have) {
            return LP_CORRUPT;
        }
        symbols[i] = code->symbols[((next >> (LP_HUFFMAN_LONGEST - length)) - code->first[length]) & 0xFFu];
        have -= length;
        bits <<= length;
    }
    *bit = 8u * (uint64_t)at - have;
    return LP_OK;
}

lp_status lp_huffman_ended(const uint8_t *stream, size_t size, uint64_t bit) {
    const uint64_t all = 8u * (uint64_t)size;
    if (bit > all || all - bit >= 8u) {
        return LP_CORRUPT;
    }
    return bit == all || (stream[size - 1u] & ((1u << (all - bit)) - 1u)) == 0u ? LP_OK : LP_CORRUPT;
}

lp_status lp_huffman_only(const lp_huffman_code *code, lp_huffman_chunk chunk, uint8_t *symbols, size_t count) {
    if (chunk.size != 0u || (count != 0u && code->count == 0u)) {
        return LP_CORRUPT;
    }
    if (count != 0u) {
        memset(symbols, code->symbols[0], count);
    }
    return LP_OK;
}

static lp_status next_stream(lp_huffman_reader *r, size_t stream, size_t at) {
    size_t size = 0u;
    const lp_status status = lp_streams_get(&r->layout, r->chunk.bytes, r->chunk.size, stream, at, &size);
    r->stream = stream;
    r->left = lp_streams_count(&r->layout, r->count, stream);
    r->at = at;
    r->end = at + size;
    r->bit = 0u;
    return status;
}

lp_status lp_huffman_open(lp_huffman_reader *reader, const lp_huffman_code *code, lp_huffman_chunk chunk, size_t count) {
    if (chunk.bytes == NULL && chunk.size != 0u) {
        return LP_NULL;
    }
    reader->code = code;
    reader->chunk = chunk;
    reader->count = count;
    reader->layout = lp_streams_of(count);
    reader->left = count;
    if (code->count < 2u || count == 0u) {
        return chunk.size != 0u || (count != 0u && code->count == 0u) ? LP_CORRUPT : LP_OK;
    }
    return next_stream(reader, 0u, reader->layout.header);
}

lp_status lp_huffman_next(lp_huffman_reader *r, uint8_t *symbols, size_t count) {
    if (r->code->count < 2u || r->count == 0u) {
        const size_t left = r->left;
        r->left -= count <= left ? count : 0u;
        return count <= left ? lp_huffman_only(r->code, r->chunk, symbols, count) : LP_TOO_SHORT;
    }
    for (;;) {
        const size_t here = count < r->left ? count : r->left;
        lp_status status = lp_huffman_symbols(r->code, r->chunk.bytes + r->at, r->end - r->at, &r->bit, symbols, here);
        if (status != LP_OK) {
            return status;
        }
        r->left -= here;
        count -= here;
        symbols += here;
        if (r->left != 0u) {
            return LP_OK;
        }
        status = lp_huffman_ended(r->chunk.bytes + r->at, r->end - r->at, r->bit);
        if (status != LP_OK || r->stream + 1u == r->layout.streams) {
            return status != LP_OK ? status : count == 0u ? LP_OK : LP_TOO_SHORT;
        }
        status = next_stream(r, r->stream + 1u, r->end);
        if (status != LP_OK) {
            return status;
        }
    }
}
