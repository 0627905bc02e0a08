/* Coding: from the empty sequence down the tree by the symbols' ranks, all streams at the same time. */
#include "tunstall.h"

enum { UNKNOWN = 0x100, BLOCK = 512 }; /* a symbol without rank: rank 0 with a mark */

static size_t nodes_of(const lp_tunstall_code *code) { return (size_t)1 << code->bits; }

/* Nodes, costs and links, or a number for each node where they are evaluated. */
size_t lp_tunstall_encode_work(const lp_tunstall_code *code) {
    return nodes_of(code) * (8u + 2u + sizeof(lp_tunstall_link) + 8u) + 2u * sizeof(lp_tunstall_link) + 16u;
}

static lp_tunstall_nodes build(const lp_tunstall_code *code, void *work) {
    const size_t n = nodes_of(code);
    lp_tunstall_nodes nodes;
    nodes.words = (uint32_t *)work + 2u * n; /* behind the numbers of lp_tunstall_rate */
    nodes.inner = code->kind == (unsigned)LP_TUNSTALL_NODES ? nodes.words : nodes.words + n;
    nodes.links = (lp_tunstall_link *)(nodes.words + 2u * n);
    nodes.costs = (uint16_t *)(nodes.links + n + 1u);
    lp_tunstall_build(code, &nodes);
    return nodes;
}

typedef struct {
    const uint8_t *in, *in_end;
    uint32_t node; /* where in the tree: 0 the empty sequence, else an inner node's number plus 1 */
    uint8_t *out;
    uint64_t pending; /* bits that do not fill a byte yet */
    unsigned used;
    unsigned count; /* words to be written */
    uint16_t words[BLOCK];
} stream;

typedef struct {
    const lp_tunstall_link *links;
    const uint16_t *ranks; /* by symbol */
    unsigned bits, kind, symbols;
} tree;

/* One symbol; a word is noted in any case and counts where it ended. */
LP_PART unsigned step(const tree *t, stream *s, unsigned kind) {
    const unsigned marked = t->ranks[*s->in++], rank = marked & 0xFFu;
    const lp_tunstall_link link = t->links[s->node];
    const unsigned ends = rank >= link.inner;
    const uint32_t down = link.first + rank + 1u;
    if (kind == (unsigned)LP_TUNSTALL_NODES) {
        s->words[s->count] = (uint16_t)link.word;
        s->node = ends ? rank + 1u : down;
    } else {
        s->words[s->count] = (uint16_t)(link.word + rank - link.inner);
        s->node = ends ? 0u : down;
    }
    s->count += ends;
    return marked;
}

static void flush(stream *s, unsigned bits) {
    unsigned i = 0u;
    for (; s->count - i >= 3u; i += 3u) { /* 7 + 48 bits at most */
        const uint64_t words = s->words[i] | (uint64_t)s->words[i + 1u] << bits | (uint64_t)s->words[i + 2u] << (2u * bits);
        s->pending |= words << s->used;
        s->used += 3u * bits;
        lp_store_le64(s->out, s->pending);
        s->out += s->used >> 3;
        s->pending >>= s->used & ~7u;
        s->used &= 7u;
    }
    for (; i < s->count; ++i) {
        s->pending |= (uint64_t)s->words[i] << s->used;
        for (s->used += bits; s->used >= 8u; s->used -= 8u) {
            *s->out++ = (uint8_t)s->pending;
            s->pending >>= 8;
        }
    }
    s->count = 0u;
}

LP_PART unsigned walk(const tree *t, stream *streams, size_t count, unsigned kind) {
    unsigned seen = 0u;
    for (;;) {
        size_t turns = BLOCK;
        for (size_t i = 0; i < count; ++i) {
            const size_t left = (size_t)(streams[i].in_end - streams[i].in);
            turns = left < turns ? left : turns;
        }
        if (turns == 0u) {
            return seen;
        }
        for (size_t j = 0; j < turns; ++j) {
            for (size_t i = 0; i < count; ++i) {
                seen |= step(t, &streams[i], kind);
            }
        }
        for (size_t i = 0; i < count; ++i) {
            flush(&streams[i], t->bits);
        }
    }
}

static unsigned walk_kind(const tree *t, stream *streams, size_t count) {
    if (t->kind == (unsigned)LP_TUNSTALL_NODES) {
        return count == LP_STREAMS ? walk(t, streams, LP_STREAMS, LP_TUNSTALL_NODES) : walk(t, streams, 1u, LP_TUNSTALL_NODES);
    }
    return count == LP_STREAMS ? walk(t, streams, LP_STREAMS, LP_TUNSTALL_LEAVES) : walk(t, streams, 1u, LP_TUNSTALL_LEAVES);
}

/* The word that the stream ends within, and the bits up to the byte. */
static void end(const tree *t, stream *s) {
    if (s->node != 0u) {
        while (t->kind == (unsigned)LP_TUNSTALL_LEAVES && t->links[s->node].inner == t->symbols) {
            s->node = t->links[s->node].first + 1u;
        }
        s->words[0] = (uint16_t)t->links[s->node].word;
        s->count = 1u;
        flush(s, t->bits);
    }
    if (s->used != 0u) {
        *s->out++ = (uint8_t)s->pending;
    }
}

/* A word for each symbol, and what `flush` stores beyond. */
static size_t stream_bound(const lp_tunstall_code *code, const lp_streams *layout) {
    return layout->each / 8u * code->bits + 2u * (layout->each % 8u) + 16u;
}

size_t lp_tunstall_bound(const lp_tunstall_code *code, size_t count) {
    const lp_streams layout = lp_streams_of(count);
    return count > SIZE_MAX / 4u ? SIZE_MAX : layout.header + layout.streams * stream_bound(code, &layout);
}

static size_t join(const lp_streams *layout, const stream *streams, const uint8_t *from, size_t bound, uint8_t *coded) {
    uint8_t *to = coded + layout->header;
    for (size_t i = 0; i < layout->streams; ++i) {
        const size_t size = (size_t)(streams[i].out - (from + i * bound));
        if (i + 1u < layout->streams) {
            lp_streams_put(layout, coded, i, size);
        }
        memmove(to, from + i * bound, size);
        to += size;
    }
    return (size_t)(to - coded);
}

lp_status lp_tunstall_encode(const lp_tunstall_code *code, const uint8_t *symbols, size_t count, uint8_t *coded, size_t *size, void *work) {
    const lp_streams layout = lp_streams_of(count);
    const size_t bound = stream_bound(code, &layout);
    uint16_t ranks[256];
    stream streams[LP_STREAMS];
    *size = 0u;
    if (count == 0u) {
        return LP_OK;
    }
    if (symbols == NULL || coded == NULL) {
        return LP_NULL;
    }
    for (unsigned r = 0; r < 256u; ++r) {
        ranks[r] = UNKNOWN;
    }
    for (unsigned r = 0; r < code->count; ++r) {
        ranks[code->symbols[r]] = (uint16_t)r;
    }
    for (size_t i = 0; code->count < 2u && i < count; ++i) {
        if (ranks[symbols[i]] != 0u) {
            return LP_BAD_CODE;
        }
    }
    if (code->count < 2u) {
        return LP_OK;
    }
    const lp_tunstall_nodes nodes = build(code, work);
    const tree t = {nodes.links, ranks, code->bits, code->kind, code->count};
    for (size_t i = 0; i < layout.streams; ++i) {
        memset(&streams[i], 0, sizeof streams[i]);
        streams[i].in = symbols + i * layout.each;
        streams[i].in_end = streams[i].in + lp_streams_count(&layout, count, i);
        streams[i].out = coded + layout.header + i * bound;
    }
    unsigned seen = walk_kind(&t, streams, layout.streams);
    for (size_t i = 0; i < layout.streams; ++i) {
        seen |= walk_kind(&t, &streams[i], 1u); /* the last stream is the shorter */
        end(&t, &streams[i]);
    }
    if (seen >= (unsigned)UNKNOWN) {
        return LP_BAD_CODE;
    }
    *size = join(&layout, streams, coded + layout.header, bound, coded);
    return LP_OK;
}

/* ---- The length of an average word ---- */

/* Kind 0: a symbol more for each inner node that is passed. */
static double passed(const lp_tunstall_nodes *n, const double *p, double *reach) {
    double length = 1.0;
    for (uint32_t i = 0; i < n->inner_count; ++i) {
        const uint32_t parent = LP_TUNSTALL_PARENT(n->inner[i]);
        reach[i] = (parent != 0u ? reach[parent - 1u] : 1.0) * p[n->inner[i] & 0xFFu];
        length += reach[i];
    }
    return length;
}

/* Kind 1, where the next symbol is none of the `after` most frequent with the probabilities `ended` (which become those of the word after). */
static double passed_after(const lp_tunstall_nodes *n, const lp_tunstall_code *code, const double *p, double *ended, double *reach) {
    double rest[257], next[257] = {0.0}, first = 0.0, length = 0.0;
    rest[code->count] = 0.0;
    for (unsigned r = code->count; r-- > 0u;) {
        rest[r] = rest[r + 1u] + p[code->symbols[r]];
    }
    for (uint32_t i = 0; i < n->inner_count; ++i) {
        const uint32_t parent = LP_TUNSTALL_PARENT(n->inner[i]), inner = n->links[i + 1u].inner;
        if (parent == 0u) { /* the node of rank i */
            first += rest[i] > 0.0 ? ended[i] / rest[i] : 0.0;
        }
        reach[i] = (parent != 0u ? reach[parent - 1u] : first) * p[n->inner[i] & 0xFFu];
        length += reach[i];
        next[inner] += reach[i] * rest[inner];
    }
    memcpy(ended, next, sizeof next);
    return length;
}

double lp_tunstall_rate(const lp_tunstall_code *code, const double counts[256], void *work) {
    double p[256], ended[257] = {1.0}, sum = 0.0, length = 1.0;
    double *reach = (double *)work;
    const lp_tunstall_nodes nodes = build(code, work);
    for (unsigned s = 0; s < 256u; ++s) {
        sum += counts[s];
    }
    if (!(sum > 0.0)) {
        return 1.0;
    }
    for (unsigned s = 0; s < 256u; ++s) {
        p[s] = counts[s] / sum;
    }
    if (code->kind == (unsigned)LP_TUNSTALL_LEAVES) {
        return passed(&nodes, p, reach);
    }
    for (unsigned i = 0; i < 8u; ++i) { /* each word depends on the one before only through what cannot follow that: soon stationary */
        length = passed_after(&nodes, code, p, ended, reach);
    }
    return length;
}
