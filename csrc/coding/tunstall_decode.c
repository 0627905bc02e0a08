/* Decoding by strings: a word's symbols are copied at once, with what lies behind them, and the next word's over that. */
#include "tunstall.h"

enum { LONGEST = LP_TUNSTALL_LONGEST };

/* ---- Strings ---- */

typedef struct {
    uint32_t *words, *inner; /* entries of words and of inner nodes */
    uint8_t *strings;
    size_t used;
    unsigned longest;
} strings;

/* Sixteen bytes that may overlap. */
LP_PART void copy(uint8_t *to, const uint8_t *from) {
    uint8_t part[16];
    memcpy(part, from, sizeof part);
    memcpy(to, part, sizeof part);
}

/* The string of a node after its parent's. */
LP_PART uint32_t lengthen(strings *to, uint32_t node) {
    const uint32_t parent = LP_TUNSTALL_PARENT(node), length = LP_TUNSTALL_LENGTH(node);
    uint8_t *string = to->strings + to->used;
    if (parent != 0u) {
        const uint8_t *begin = to->strings + (to->inner[parent - 1u] >> 8);
        copy(string, begin); /* more than wanted: there is room */
        for (uint32_t i = 16u; i < length; i += 16u) {
            copy(string + i, begin + i);
        }
    }
    string[length - 1u] = (uint8_t)(node & 0xFFu);
    to->longest = length > to->longest ? length : to->longest;
    to->used += length;
    return (uint32_t)(string - to->strings) << 8 | length;
}

static size_t nodes_of(const lp_tunstall_code *code) { return (size_t)1 << code->bits; }

/* Strings, then nodes, costs and entries: of kind 1 the nodes are all words. */
size_t lp_tunstall_decode_work(const lp_tunstall_code *code) {
    const size_t n = nodes_of(code), kinds = code->kind == (unsigned)LP_TUNSTALL_NODES ? 1u : 2u;
    return kinds * n * (LONGEST + 8u) + 2u * n + LONGEST;
}

static lp_tunstall_strings build(const lp_tunstall_code *code, void *work) {
    const size_t n = nodes_of(code);
    const int split = code->kind == (unsigned)LP_TUNSTALL_LEAVES;
    uint32_t *at = (uint32_t *)work;
    lp_tunstall_nodes nodes;
    strings s;
    memset(&nodes, 0, sizeof nodes);
    memset(&s, 0, sizeof s);
    nodes.words = at;
    s.words = at + n;
    nodes.inner = split ? at + 2u * n : nodes.words;
    s.inner = split ? at + 3u * n : s.words;
    nodes.costs = (uint16_t *)(at + (split ? 4u : 2u) * n);
    s.strings = (uint8_t *)(nodes.costs + n);
    lp_tunstall_build(code, &nodes);
    for (uint32_t i = 0; split && i < nodes.inner_count; ++i) {
        s.inner[i] = lengthen(&s, nodes.inner[i]);
    }
    for (uint32_t i = 0; i < nodes.word_count; ++i) {
        s.words[i] = lengthen(&s, nodes.words[i]);
    }
    memset(s.words + nodes.word_count, 0, (n - nodes.word_count) * sizeof *s.words);
    const lp_tunstall_strings built = {s.words, s.strings, code->bits, s.longest};
    return built;
}

/* ---- Streams ---- */

typedef struct {
    const uint8_t *in, *in_end;
    uint8_t *out, *out_end;
} cursor;

LP_PART uint8_t *put(const lp_tunstall_strings *d, uint64_t word, uint8_t *out, unsigned copied) {
    const uint32_t entry = d->entries[word];
    memcpy(out, d->strings + (entry >> 8), copied);
    return out + (entry & 0xFFu);
}

/* Eight words, which are as many bytes as a word has bits. */
LP_PART void step(const lp_tunstall_strings *d, cursor *c, unsigned bits, unsigned copied) {
    const uint64_t mask = ((uint64_t)1 << bits) - 1u;
    uint64_t low = lp_load_le64(c->in), high = lp_load_le64(c->in + bits / 2u) >> (4u * bits % 8u);
    uint8_t *out = c->out;
    for (unsigned i = 0; i < 4u; ++i) {
        out = put(d, (low >> (i * bits)) & mask, out, copied);
    }
    for (unsigned i = 0; i < 4u; ++i) {
        out = put(d, (high >> (i * bits)) & mask, out, copied);
    }
    c->out = out;
    c->in += bits;
}

/* Steps that stay within the stream's bytes and symbols, again and again as long as there are any. */
LP_PART void run(const lp_tunstall_strings *dictionary, cursor *to, unsigned bits, unsigned copied) {
    const lp_tunstall_strings d = *dictionary;
    const size_t reads = bits / 2u + 8u, given = 8u * (size_t)d.longest, written = given + copied;
    cursor c = *to;
    for (;;) {
        const size_t in = (size_t)(c.in_end - c.in), out = (size_t)(c.out_end - c.out);
        if (in < reads || out < written) {
            *to = c;
            return;
        }
        const size_t by_in = (in - reads) / bits + 1u, by_out = (out - written) / given + 1u;
        for (size_t turns = by_in < by_out ? by_in : by_out; turns != 0u; --turns) {
            step(&d, &c, bits, copied);
        }
    }
}

LP_PART void run_bits(const lp_tunstall_strings *d, cursor *c, unsigned copied) {
    if (d->bits == 12u) {
        run(d, c, 12u, copied);
    } else if (d->bits == 8u) {
        run(d, c, 8u, copied);
    } else {
        run(d, c, d->bits, copied);
    }
}

static void run_all(const lp_tunstall_strings *d, cursor *c) {
    if (d->longest <= 8u) {
        run_bits(d, c, 8u);
    } else if (d->longest <= 16u) {
        run_bits(d, c, 16u);
    } else if (d->longest <= 32u) {
        run_bits(d, c, 32u);
    } else {
        run_bits(d, c, (unsigned)LONGEST);
    }
}

/* The words that the steps left, one at a time. */
static lp_status finish(const lp_tunstall_strings *d, const cursor *c) {
    const size_t size = (size_t)(c->in_end - c->in), words = lp_tunstall_words(size, d->bits);
    size_t left = (size_t)(c->out_end - c->out);
    uint8_t *out = c->out;
    for (size_t i = 0; i < words; ++i) {
        const uint32_t entry = d->entries[lp_tunstall_word(c->in, size, d->bits, i)];
        const size_t length = entry & 0xFFu, here = length < left ? length : left;
        if (left == 0u) {
            return LP_CORRUPT;
        }
        memcpy(out, d->strings + (entry >> 8), here);
        out += here;
        left -= here;
    }
    return left == 0u && lp_tunstall_ended(c->in, size, d->bits) ? LP_OK : LP_CORRUPT;
}

lp_status lp_tunstall_decode_strings(const lp_tunstall_strings *dictionary, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count) {
    const lp_streams layout = lp_streams_of(count);
    size_t at = layout.header;
    if ((count != 0u && symbols == NULL) || (chunk.size != 0u && chunk.bytes == NULL)) {
        return LP_NULL;
    }
    if (count == 0u) {
        return chunk.size == 0u ? LP_OK : LP_CORRUPT;
    }
    for (size_t s = 0; s < layout.streams; ++s) {
        size_t size = 0u;
        lp_status status = lp_streams_get(&layout, chunk.bytes, chunk.size, s, at, &size);
        if (status != LP_OK) {
            return status;
        }
        uint8_t *out = symbols + s * layout.each;
        cursor c = {chunk.bytes + at, chunk.bytes + at + size, out, out + lp_streams_count(&layout, count, s)};
        run_all(dictionary, &c);
        status = finish(dictionary, &c);
        if (status != LP_OK) {
            return status;
        }
        at += size;
    }
    return LP_OK;
}

lp_status lp_tunstall_decode(const lp_tunstall_code *code, lp_tunstall_chunk chunk, uint8_t *symbols, size_t count, void *work) {
    if (code->count < 2u) {
        return lp_tunstall_only(code, chunk, symbols, count);
    }
    if (count == 0u) {
        return chunk.size == 0u ? LP_OK : LP_CORRUPT;
    }
    const lp_tunstall_strings dictionary = build(code, work);
    return lp_tunstall_decode_strings(&dictionary, chunk, symbols, count);
}
