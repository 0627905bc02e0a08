/* Decoding by the nodes of the dictionary alone. */
#include "tunstall.h"

lp_status lp_tunstall_only(const lp_tunstall_code *code, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count) {
    if (chunk.size != 0u || (count != 0u && code->count == 0u)) {
        return LP_CORRUPT;
    }
    if (count != 0u && symbols == NULL) {
        return LP_NULL;
    }
    if (count != 0u) {
        memset(symbols, code->symbols[0], count);
    }
    return LP_OK;
}

size_t lp_tunstall_small_work(const lp_tunstall_code *code) {
    return ((size_t)1 << code->bits) * (code->kind == (unsigned)LP_TUNSTALL_NODES ? 6u : 10u);
}

/* The symbols of a word, the last first; those beyond `left` are dropped. Returns how many were written. */
static size_t put(const lp_tunstall_nodes *nodes, uint32_t word, uint8_t *out, size_t left) {
    uint32_t node = nodes->words[word];
    const size_t length = LP_TUNSTALL_LENGTH(node);
    for (size_t i = length;;) {
        if (--i < left) {
            out[i] = (uint8_t)(node & 0xFFu);
        }
        if (LP_TUNSTALL_PARENT(node) == 0u) {
            return length < left ? length : left;
        }
        node = nodes->inner[LP_TUNSTALL_PARENT(node) - 1u];
    }
}

static lp_status stream(const lp_tunstall_nodes *nodes, unsigned bits, lp_tunstall_chunk from, uint8_t *out, size_t left) {
    const size_t words = lp_tunstall_words(from.size, bits);
    for (size_t i = 0; i < words; ++i) {
        const uint32_t word = lp_tunstall_word(from.bytes, from.size, bits, i);
        if (left == 0u) {
            return LP_CORRUPT;
        }
        const size_t here = word < nodes->word_count ? put(nodes, word, out, left) : 0u;
        out += here;
        left -= here;
    }
    return left == 0u && lp_tunstall_ended(from.bytes, from.size, bits) ? LP_OK : LP_CORRUPT;
}

lp_status lp_tunstall_decode_small(const lp_tunstall_code *code, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count, void *work) {
    const lp_streams layout = lp_streams_of(count);
    const size_t n = (size_t)1 << code->bits;
    const int split = code->kind == (unsigned)LP_TUNSTALL_LEAVES;
    lp_tunstall_nodes nodes;
    size_t at = layout.header;
    if (code->count < 2u) {
        return lp_tunstall_only(code, chunk, symbols, count);
    }
    if (count == 0u) {
        return chunk.size == 0u ? LP_OK : LP_CORRUPT;
    }
    if (symbols == NULL || (chunk.size != 0u && chunk.bytes == NULL)) {
        return LP_NULL;
    }
    memset(&nodes, 0, sizeof nodes);
    nodes.words = (uint32_t *)work;
    nodes.inner = split ? nodes.words + n : nodes.words;
    nodes.costs = (uint16_t *)(nodes.inner + n);
    lp_tunstall_build(code, &nodes);
    for (size_t s = 0; s < layout.streams; ++s) {
        size_t size = 0u;
        lp_status status = lp_streams_get(&layout, chunk.bytes, chunk.size, s, at, &size);
        if (status == LP_OK) {
            const lp_tunstall_chunk part = {chunk.bytes + at, size};
            status = stream(&nodes, code->bits, part, symbols + s * layout.each, lp_streams_count(&layout, count, s));
        }
        if (status != LP_OK) {
            return status;
        }
        at += size;
    }
    return LP_OK;
}
