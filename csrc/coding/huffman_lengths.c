/* Package-merge (larmore & hirschberg's coin collector): from the coins 2**-12 up, pairs of the cheapest are packages of the
 * next denomination; the 2 n - 2 cheapest of denomination 1/2 hold as many coins of a symbol as its code has bits. */
#include "huffman.h"

enum { LONGEST = LP_HUFFMAN_LONGEST, MOST = 512 };

typedef struct {
    uint64_t weight;
    uint8_t symbol;
} leaf;

/* Leaves in the order of weights; equal ones in the order of symbols, the later the lighter, so that earlier symbols get shorter codes. */
static unsigned sorted(const uint64_t counts[256], leaf leaves[256]) {
    uint64_t most = 0u;
    unsigned n = 0u, down = 0u;
    for (unsigned s = 0; s < 256u; ++s) {
        most |= counts[s];
    }
    while (most >> down >= (uint64_t)1 << 50) {
        ++down; /* so that the sum of 12 * 256 of them stays in 64 bits */
    }
    for (unsigned s = 256u; s-- > 0u;) {
        if (counts[s] == 0u) {
            continue;
        }
        const uint64_t weight = counts[s] >> down ? counts[s] >> down : 1u;
        unsigned at = n++;
        for (; at > 0u && leaves[at - 1u].weight > weight; --at) {
            leaves[at] = leaves[at - 1u];
        }
        leaves[at].weight = weight;
        leaves[at].symbol = (uint8_t)s;
    }
    return n;
}

/* Leaves and the packages of `before`, merged by weight; leaves first where equal. Returns how many. */
static unsigned merge(const leaf *leaves, unsigned n, const uint64_t *before, unsigned count, uint64_t *weights, uint8_t *packages) {
    const unsigned pairs = count / 2u, all = n + pairs;
    for (unsigned i = 0, l = 0, p = 0; i < all; ++i) {
        const uint64_t package = p < pairs ? before[2u * p] + before[2u * p + 1u] : UINT64_MAX;
        if (l < n && leaves[l].weight <= package) {
            weights[i] = leaves[l++].weight;
            packages[i] = 0u;
        } else {
            weights[i] = package;
            packages[i] = 1u;
            ++p;
        }
    }
    return all;
}

lp_status lp_huffman_lengths(const uint64_t counts[256], uint8_t lengths[256]) {
    leaf leaves[256];
    uint64_t weights[2][MOST];
    uint8_t packages[LONGEST][MOST];
    const unsigned n = sorted(counts, leaves);
    memset(lengths, 0, 256u);
    if (n < 2u) {
        return LP_OK;
    }
    unsigned count = 0u;
    for (unsigned level = 0; level < LONGEST; ++level) {
        count = merge(leaves, n, weights[(level + 1u) % 2u], count, weights[level % 2u], packages[level]);
    }
    unsigned taken = 2u * n - 2u;
    for (unsigned level = LONGEST; level-- > 0u && taken != 0u;) {
        unsigned pairs = 0u;
        for (unsigned i = 0; i < taken; ++i) {
            pairs += packages[level][i];
        }
        for (unsigned i = 0; i < taken - pairs; ++i) {
            ++lengths[leaves[i].symbol];
        }
        taken = 2u * pairs;
    }
    return LP_OK;
}
