#include "convolution.h"

#define TILE ((size_t)512u)           /* patches at once, */
#define TILE_BYTES ((size_t)1048576u) /* as far as they take no more than this, which one patch at the limit of k does */

typedef struct {
    lp_patches patches;
    size_t row;    /* bytes of a patch */
    size_t tile;   /* patches at once */
    int is_direct; /* the pixels are the patches */
    size_t begin;  /* bytes from which the workspace is the product's */
    size_t size;   /* of the workspace */
} plan;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static lp_status make_plan(lp_path path, const lp_low_convolution *c, plan *p) {
    const lp_status status = lp_plan_patches(&c->window, &p->patches);
    if (status != LP_OK) {
        return status;
    }
    if (p->patches.taps > LP_LOW_COLUMNS / c->window.channels || c->weights.k != p->patches.taps * c->window.channels) {
        return LP_BAD_SHAPE;
    }
    p->row = c->weights.k;
    p->tile = smaller(smaller(p->patches.positions, TILE), TILE_BYTES / p->row);
    p->is_direct = lp_patches_are_pixels(&c->window);
    p->begin = p->is_direct ? 0u : p->tile * p->row;
    p->size = p->begin + lp_gemm_low_workspace(path, p->tile, p->row);
    return LP_OK;
}

size_t lp_convolve_low_workspace(lp_path path, const lp_low_convolution *convolution) {
    plan p;
    return convolution == NULL || !lp_has_path(path) || make_plan(path, convolution, &p) != LP_OK ? SIZE_MAX : p.size;
}

static lp_status check(const lp_low_convolution *c, const plan *p, const int32_t *out, size_t size, lp_workspace work) {
    if (p->patches.pixels > c->size / c->window.channels || (c->weights.n != 0u && p->patches.positions > size / c->weights.n)) {
        return LP_TOO_SHORT;
    }
    if (p->patches.positions == 0u || c->weights.n == 0u) {
        return LP_OK;
    }
    if (c->pixels == NULL || out == NULL || work.bytes == NULL) {
        return LP_NULL;
    }
    return work.size < p->size ? LP_TOO_SHORT : LP_OK;
}

lp_status lp_convolve_low(lp_path path, const lp_low_convolution *convolution, int32_t *c, size_t size, lp_workspace work) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    plan p;
    lp_status status = convolution == NULL ? LP_NULL : make_plan(path, convolution, &p);
    if (status == LP_OK) {
        status = check(convolution, &p, c, size, work);
    }
    for (size_t first = 0; status == LP_OK && convolution->weights.n != 0u && first < p.patches.positions; first += p.tile) {
        const size_t count = smaller(p.patches.positions - first, p.tile), n = convolution->weights.n;
        const uint8_t *pixels = convolution->pixels;
        unsigned char *patches = work.bytes;
        const lp_workspace rest = {patches + p.begin, p.size - p.begin};
        if (!p.is_direct) {
            lp_write_patches(&p.patches, first, count, pixels, convolution->window.channels, convolution->fill, patches);
        }
        const lp_activations a = {p.is_direct ? pixels + first * p.row : patches, count * p.row, count, convolution->is_signed};
        status = lp_gemm_low(path, &a, &convolution->weights, c + first * n, count * n, rest);
    }
    return status;
}
