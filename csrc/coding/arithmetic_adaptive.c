#include "arithmetic.h"

#include "range_coder.h"

#define GROWTH 32u
#define LIMIT (1u << 22)

static void start(lp_arithmetic_model *m) {
    m->tree[0] = 0u;
    for (uint32_t i = 1u; i <= 256u; ++i) {
        m->tree[i] = i & (0u - i);
    }
    m->total = 256u;
}

/* Partial sums to frequencies, each halved, and back. */
static void halve(lp_arithmetic_model *m) {
    for (uint32_t i = 256u; i != 0u; --i) {
        const uint32_t parent = i + (i & (0u - i));
        if (parent <= 256u) {
            m->tree[parent] -= m->tree[i];
        }
    }
    m->total = 0u;
    for (uint32_t i = 1u; i <= 256u; ++i) {
        m->tree[i] = (m->tree[i] + 1u) / 2u;
        m->total += m->tree[i];
    }
    for (uint32_t i = 1u; i <= 256u; ++i) {
        const uint32_t parent = i + (i & (0u - i));
        if (parent <= 256u) {
            m->tree[parent] += m->tree[i];
        }
    }
}

static void learn(lp_arithmetic_model *m, unsigned symbol) {
    for (uint32_t i = symbol + 1u; i <= 256u; i += i & (0u - i)) {
        m->tree[i] += GROWTH;
    }
    m->total += GROWTH;
    if (m->total > LIMIT) {
        halve(m);
    }
}

/* What the symbols before have together. */
static uint32_t below(const lp_arithmetic_model *m, unsigned symbol) {
    uint32_t sum = 0u;
    for (uint32_t i = symbol; i != 0u; i &= i - 1u) {
        sum += m->tree[i];
    }
    return sum;
}

/* The symbol that holds `target`, below the total, which becomes how far into it that is. */
static unsigned find(const lp_arithmetic_model *m, uint32_t *target) {
    unsigned s = 0u;
    for (unsigned step = 128u; step != 0u; step >>= 1) {
        const uint32_t sum = m->tree[s + step];
        if (sum <= *target) {
            *target -= sum;
            s += step;
        }
    }
    return s;
}

lp_status lp_adaptive_encode(const uint8_t *symbols, size_t count, lp_arithmetic_model *model, uint8_t *coded, size_t *size) {
    if (count != 0u && (symbols == NULL || coded == NULL)) {
        return LP_NULL;
    }
    lp_range_encoder e = {0u, UINT64_MAX, coded, coded + *size, 0};
    start(model);
    for (size_t i = 0; i < count; ++i) {
        const uint32_t before = below(model, symbols[i]), frequency = below(model, symbols[i] + 1u) - before;
        const uint64_t r = e.range / model->total;
        lp_range_add(&e, before * r);
        e.range = frequency * r;
        lp_range_flush(&e);
        learn(model, symbols[i]);
    }
    if (count != 0u) {
        lp_range_finish(&e);
    }
    *size = (size_t)(e.next - coded);
    return e.full ? LP_TOO_SHORT : LP_OK;
}

lp_status lp_adaptive_decode(const uint8_t *coded, size_t size, lp_arithmetic_model *model, uint8_t *symbols, size_t count) {
    if (count != 0u && symbols == NULL) {
        return LP_NULL;
    }
    if (count == 0u || coded == NULL || size == 0u) {
        return count == 0u && size == 0u ? LP_OK : LP_CORRUPT;
    }
    lp_range_decoder d;
    lp_range_open(&d, coded, size);
    start(model);
    uint64_t beyond = 0u;
    for (size_t i = 0; i < count; ++i) {
        const uint64_t r = d.range / model->total, quotient = d.value / r, last = model->total - 1u;
        const uint32_t target = (uint32_t)(quotient < last ? quotient : last);
        beyond |= quotient ^ target;
        uint32_t within = target;
        const unsigned s = find(model, &within);
        const uint32_t before = target - within;
        d.value -= before * r;
        d.range = (below(model, s + 1u) - before) * r;
        lp_range_refill(&d);
        learn(model, s);
        symbols[i] = (uint8_t)s;
    }
    return beyond == 0u && lp_range_size(&d) == size ? LP_OK : LP_CORRUPT;
}
