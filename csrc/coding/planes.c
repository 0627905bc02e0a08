#include "planes.h"

/* Words of two bytes, which are most of what there is, in loops of a constant form that compilers turn into vectors. */
static void join2(const uint8_t *high, const uint8_t *low, size_t count, int rotate, uint8_t *words)
{
    for (size_t i = 0; i < count; i++) {
        const uint16_t word = (uint16_t)(high[i] << 8 | low[i]);
        const uint16_t turned = rotate ? (uint16_t)(word >> 1 | word << 15) : word;
        words[2 * i] = (uint8_t)turned;
        words[2 * i + 1] = (uint8_t)(turned >> 8);
    }
}

static void split2(const uint8_t *words, size_t count, int rotate, uint8_t *high, uint8_t *low)
{
    for (size_t i = 0; i < count; i++) {
        const uint16_t word = (uint16_t)(words[2 * i] | words[2 * i + 1] << 8);
        const uint16_t turned = rotate ? (uint16_t)(word << 1 | word >> 15) : word;
        high[i] = (uint8_t)(turned >> 8);
        low[i] = (uint8_t)turned;
    }
}

lp_status lp_split_planes(const uint8_t *words, size_t count, unsigned width, int rotate, uint8_t *planes)
{
    if (width != 2 && width != 4 && width != 8) return LP_BAD_BITS;
    if (count && (!words || !planes)) return LP_NULL;
    if (width == 2) {
        if (rotate) split2(words, count, 1, planes, planes + count);
        else split2(words, count, 0, planes, planes + count);
        return LP_OK;
    }
    const unsigned bits = 8 * width;
    const uint64_t mask = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    for (size_t i = 0; i < count; i++) {
        uint64_t word = 0;
        for (unsigned k = 0; k < width; k++) word |= (uint64_t)words[i * width + k] << (8 * k);
        if (rotate) word = (word << 1 | word >> (bits - 1)) & mask;
        for (unsigned k = 0; k < width; k++) planes[(width - 1 - k) * count + i] = (uint8_t)(word >> (8 * k));
    }
    return LP_OK;
}

lp_status lp_join_planes(const uint8_t *const *planes, size_t count, unsigned width, int rotate, uint8_t *words)
{
    if (width != 2 && width != 4 && width != 8) return LP_BAD_BITS;
    if (count && (!words || !planes)) return LP_NULL;
    if (width == 2) {
        if (rotate) join2(planes[0], planes[1], count, 1, words);
        else join2(planes[0], planes[1], count, 0, words);
        return LP_OK;
    }
    const unsigned bits = 8 * width;
    for (size_t i = 0; i < count; i++) {
        uint64_t word = 0;
        for (unsigned k = 0; k < width; k++) word |= (uint64_t)planes[width - 1 - k][i] << (8 * k);
        if (rotate) word = word >> 1 | word << (bits - 1);
        for (unsigned k = 0; k < width; k++) words[i * width + k] = (uint8_t)(word >> (8 * k));
    }
    return LP_OK;
}
