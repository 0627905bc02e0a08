#include "convolution.h"
#include "gemm_binary_paths.h"

#define TILE ((size_t)512u) /* patches at once */

typedef struct {
    lp_patches patches;
    size_t words;    /* of a pixel */
    size_t row;      /* words of a patch */
    size_t tile;     /* patches at once */
    int is_direct;   /* the pixels are the patches */
    int is_padded;   /* with zeros, which need the correction */
    size_t begin[3]; /* bytes from which the workspace holds the patches, the sums of the taps, the product's own */
    size_t size;     /* of the workspace, without alignment */
} plan;

static size_t rounded(size_t bytes) { return (bytes + 63u) / 64u * 64u; }

static lp_status make_plan(lp_path path, const lp_binary_convolution *c, plan *p) {
    const lp_window *w = &c->window;
    const lp_status status = lp_plan_patches(w, &p->patches);
    if (status != LP_OK) {
        return status;
    }
    p->words = lp_sign_words(w->channels);
    if (p->patches.taps > (size_t)INT32_MAX / w->channels || c->n > (size_t)INT32_MAX / sizeof(int32_t) / p->patches.taps) {
        return LP_BAD_SHAPE;
    }
    p->row = p->patches.taps * p->words;
    p->tile = p->patches.positions < TILE ? p->patches.positions : TILE;
    p->is_direct = lp_patches_are_pixels(w);
    p->is_padded = !c->pad_minus && (w->pad[0] != 0u || w->pad[1] != 0u || w->pad[2] != 0u || w->pad[3] != 0u);
    if (p->row > (size_t)INT32_MAX / sizeof(uint64_t) / TILE) {
        return LP_BAD_SHAPE;
    }
    p->begin[0] = 0u;
    p->begin[1] = p->is_direct ? 0u : rounded(p->tile * p->row * sizeof(uint64_t));
    p->begin[2] = p->begin[1] + (p->is_padded ? rounded(p->patches.taps * c->n * sizeof(int32_t)) : 0u);
    p->size = p->begin[2] + lp_product_size(path, p->tile, c->n, p->row);
    return LP_OK;
}

size_t lp_convolve_binary_workspace(lp_path path, const lp_binary_convolution *convolution) {
    plan p;
    if (convolution == NULL || !lp_has_path(path) || make_plan(path, convolution, &p) != LP_OK) {
        return SIZE_MAX;
    }
    return p.size == 0u ? 0u : p.size + 63u;
}

static int has_stray_bits(const uint64_t *words, size_t rows, size_t channels) {
    const size_t each = lp_sign_words(channels);
    uint64_t stray = 0u;
    for (size_t i = 0; channels % 64u != 0u && i < rows; ++i) {
        stray |= words[i * each + each - 1u] >> (channels % 64u);
    }
    return stray != 0u;
}

static lp_status check(const lp_binary_convolution *c, const plan *p, const int32_t *out, size_t size, lp_workspace work) {
    const size_t taps = c->n * p->patches.taps;
    if (p->patches.pixels > c->pixel_words / p->words || taps > c->weight_words / p->words) {
        return LP_TOO_SHORT;
    }
    if (c->n != 0u && p->patches.positions > size / c->n) {
        return LP_TOO_SHORT;
    }
    if (c->n == 0u || p->patches.positions == 0u) {
        return LP_OK;
    }
    if (c->pixels == NULL || c->weights == NULL || out == NULL || (p->size != 0u && work.bytes == NULL)) {
        return LP_NULL;
    }
    if (p->size != 0u && work.size < p->size + 63u) {
        return LP_TOO_SHORT;
    }
    const size_t channels = c->window.channels;
    const int stray = has_stray_bits(c->pixels, p->patches.pixels, channels) || has_stray_bits(c->weights, taps, channels);
    return stray ? LP_BAD_CODE : LP_OK;
}

/* sums[t][j] = sum of the weights of tap t, output channel j: what a tap of clear bits takes away. */
static void sum_taps(const lp_binary_convolution *c, const plan *p, int32_t *sums) {
    for (size_t tap = 0; tap < p->patches.taps; ++tap) {
        for (size_t j = 0; j < c->n; ++j) {
            const uint64_t *weights = c->weights + (j * p->patches.taps + tap) * p->words;
            uint32_t count = 0u;
            for (size_t word = 0; word < p->words; ++word) {
                count += lp_count(weights[word]);
            }
            *sums++ = (int32_t)(2u * count) - (int32_t)c->window.channels;
        }
    }
}

static void add_row(int32_t *to, const int32_t *row, size_t n) {
    for (size_t j = 0; j < n; ++j) {
        to[j] += row[j];
    }
}

/* Take out what the padded taps of the positions from `first` on added as -1. */
static void correct(const lp_binary_convolution *c, const plan *p, size_t first, size_t count, const int32_t *sums,
                    int32_t *out) {
    const size_t width = c->window.kernel[1];
    size_t pixel = 0;
    for (size_t position = first; position - first < count; ++position, out += c->n) {
        const lp_corner corner = lp_corner_of(&p->patches, position);
        for (size_t tap = 0; !corner.inside && tap < p->patches.taps; ++tap) {
            if (!lp_tap(&p->patches, &corner, tap / width, tap % width, &pixel)) {
                add_row(out, sums + tap * c->n, c->n);
            }
        }
    }
}

/* All positions, tile by tile; `bytes` is the workspace, aligned. */
static void convolve(lp_path path, const lp_binary_convolution *c, const plan *p, unsigned char *bytes, int32_t *out) {
    const size_t taps = p->patches.taps;
    int32_t *sums = p->is_padded ? (int32_t *)(void *)(bytes + p->begin[1]) : NULL;
    void *work = p->size > p->begin[2] ? bytes + p->begin[2] : NULL;
    if (p->is_padded) {
        sum_taps(c, p, sums);
    }
    for (size_t first = 0; first < p->patches.positions; first += p->tile) {
        const size_t left = p->patches.positions - first, count = left < p->tile ? left : p->tile;
        lp_product product = {.a = c->pixels + first * p->words, .b = c->weights, .m = count, .n = c->n, .words = p->row,
                              .tail = ~UINT64_C(0), .total = (int32_t)(taps * c->window.channels), .c = out + first * c->n,
                              .stride = c->n};
        if (!p->is_direct) {
            lp_write_patches(&p->patches, first, count, (const uint8_t *)c->pixels, p->words * sizeof(uint64_t), 0u, bytes);
            product.a = (const uint64_t *)(const void *)bytes;
        }
        lp_multiply(path, &product, work);
        if (p->is_padded) {
            correct(c, p, first, count, sums, product.c);
        }
    }
}

lp_status lp_convolve_binary(lp_path path, const lp_binary_convolution *convolution, int32_t *c, size_t size, lp_workspace work) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    plan p;
    lp_status status = convolution == NULL ? LP_NULL : make_plan(path, convolution, &p);
    if (status == LP_OK) {
        status = check(convolution, &p, c, size, work);
    }
    if (status == LP_OK && convolution->n != 0u && p.patches.positions != 0u) {
        unsigned char *bytes = work.bytes;
        convolve(path, convolution, &p, p.size == 0u ? NULL : bytes + (64u - (uintptr_t)bytes % 64u) % 64u, c);
    }
    return status;
}
