/* The dictionary from the costs. Sequences that cost no more than a limit are found in breadth-first order without sorting; the limit is the
 * greatest of which there are not too many, by counting the sequences of each cost: N(c) = sum_r N(c - cost_r). */
#include "tunstall.h"

enum { COST_MOST = 255 };

/* Sequences of `least` (of kind 1 those of one symbol are words whatever they cost) .. `longest` symbols that may be inner nodes. */
typedef struct {
    const lp_tunstall_code *code;
    uint32_t most;    /* how many there may be */
    unsigned longest; /* symbols of them */
    uint32_t limit;   /* those that cost up to this are; */
    uint32_t more;    /* and so many of those that cost one more */
} selection;

/* Symbols that cost more than `limit` and are in all the same. */
static uint32_t forced(const selection *s, uint32_t limit) {
    uint32_t count = 0u;
    for (unsigned r = s->code->count; s->code->kind == (unsigned)LP_TUNSTALL_NODES && r-- > 0u && s->code->costs[r] > limit;) {
        ++count;
    }
    return count;
}

/* How many sequences cost up to `limit`, of whatever length where `lengths` do not matter; the greatest limit with at most s->most. */
static uint32_t count_by_cost(selection *s) {
    uint32_t ring[COST_MOST + 1] = {0}, total = 0u, before;
    const lp_tunstall_code *code = s->code;
    ring[0] = 1u;
    for (uint32_t cost = 1;; ++cost) {
        uint32_t here = 0u;
        for (unsigned r = 0; r < code->count && code->costs[r] <= cost; ++r) {
            here += ring[(cost - code->costs[r]) & (uint32_t)COST_MOST];
        }
        before = total;
        total += here;
        if (total + forced(s, cost) > s->most) {
            s->limit = cost - 1u;
            return before + forced(s, s->limit);
        }
        ring[cost & (uint32_t)COST_MOST] = here;
    }
}

/* How many sequences of at most s->longest symbols cost up to `limit`; s->most + 1 when they are more than s->most. */
static uint32_t count_by_length(const selection *s, uint32_t limit) {
    const lp_tunstall_code *code = s->code;
    uint32_t cost[LP_TUNSTALL_LONGEST + 1u], count = forced(s, limit);
    unsigned next[LP_TUNSTALL_LONGEST + 1u], depth = 0u;
    cost[0] = 0u;
    next[0] = 0u;
    for (;;) {
        if (depth < s->longest && next[depth] < code->count && cost[depth] + code->costs[next[depth]] <= limit) {
            if (++count > s->most) {
                return count;
            }
            cost[depth + 1u] = cost[depth] + code->costs[next[depth]];
            ++next[depth++];
            next[depth] = 0u;
        } else if (depth == 0u) {
            return count;
        } else {
            --depth;
        }
    }
}

static selection selected(const lp_tunstall_code *code) {
    const uint32_t words = (uint32_t)1 << code->bits;
    const int nodes = code->kind == (unsigned)LP_TUNSTALL_NODES;
    selection s = {code, nodes ? words : (words - 1u) / (code->count - 1u) - 1u, nodes ? LP_TUNSTALL_LONGEST : LP_TUNSTALL_LONGEST - 1u, 0u, 0u};
    uint32_t count = count_by_cost(&s);
    if (s.limit + 1u >= (s.longest + 1u) * code->costs[0]) { /* sequences that are too long were counted */
        uint32_t low = s.limit, high = COST_MOST * LP_TUNSTALL_LONGEST; /* high is too much: two symbols have 2^63 sequences */
        while (high - low > 1u) {
            const uint32_t middle = low + (high - low) / 2u;
            if (count_by_length(&s, middle) <= s.most) {
                low = middle;
            } else {
                high = middle;
            }
        }
        s.limit = low;
        count = count_by_length(&s, low);
    }
    s.more = s.most - count;
    return s;
}

static int chosen(selection *s, uint32_t cost, unsigned length) {
    if (length > s->longest || cost > s->limit + 1u || (cost > s->limit && s->more == 0u)) {
        return 0;
    }
    s->more -= cost > s->limit;
    return 1;
}

static uint32_t node_of(uint32_t parent, unsigned length, unsigned symbol) { return parent << 15 | length << 8 | symbol; }

/* Children of the inner node `parent - 1` (0: the empty sequence), kind 0: the first are inner nodes, the others words. */
static void expand_leaves(selection *s, lp_tunstall_nodes *n, uint32_t parent, uint32_t cost, unsigned length) {
    const lp_tunstall_code *code = s->code;
    const uint32_t first = n->inner_count;
    unsigned r = 0u;
    for (; r < code->count && chosen(s, cost + code->costs[r], length); ++r) {
        n->costs[n->inner_count] = (uint16_t)(cost + code->costs[r]);
        n->inner[n->inner_count++] = node_of(parent, length, code->symbols[r]);
    }
    if (n->links) {
        const lp_tunstall_link link = {first, n->word_count, r};
        n->links[parent] = link;
    }
    for (; r < code->count; ++r) {
        n->words[n->word_count++] = node_of(parent, length, code->symbols[r]);
    }
}

/* The same of kind 1: those that are in. */
static void expand_nodes(selection *s, lp_tunstall_nodes *n, uint32_t parent, uint32_t cost, unsigned length) {
    const lp_tunstall_code *code = s->code;
    const uint32_t first = n->inner_count;
    unsigned r = 0u;
    for (; r < code->count && (parent == 0u || chosen(s, cost + code->costs[r], length)); ++r) {
        n->costs[n->inner_count] = (uint16_t)(cost + code->costs[r]);
        n->inner[n->inner_count++] = node_of(parent, length, code->symbols[r]);
    }
    if (n->links) {
        const lp_tunstall_link link = {first, parent - 1u, r}; /* the word that ends here, when the next symbol has no node */
        n->links[parent] = link;
    }
}

void lp_tunstall_build(const lp_tunstall_code *code, lp_tunstall_nodes *nodes) {
    selection s = selected(code);
    nodes->word_count = nodes->inner_count = 0u;
    if (code->kind == (unsigned)LP_TUNSTALL_NODES) {
        expand_nodes(&s, nodes, 0u, 0u, 1u);
        for (uint32_t i = 0; i < nodes->inner_count; ++i) {
            expand_nodes(&s, nodes, i + 1u, nodes->costs[i], LP_TUNSTALL_LENGTH(nodes->inner[i]) + 1u);
        }
        nodes->word_count = nodes->inner_count;
        return;
    }
    expand_leaves(&s, nodes, 0u, 0u, 1u);
    for (uint32_t i = 0; i < nodes->inner_count; ++i) {
        expand_leaves(&s, nodes, i + 1u, nodes->costs[i], LP_TUNSTALL_LENGTH(nodes->inner[i]) + 1u);
    }
}
