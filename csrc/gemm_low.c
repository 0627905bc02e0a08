#include "gemm_low.h"

#include <string.h>

#include "bits.h"
#include "gemm_low_paths.h"

#define PANEL_ROWS ((size_t)16u)
#define CHUNK_BYTES ((size_t)64u)

typedef void (*low_product)(const lp_low_product *product);

#if LP_X86
static const low_product PRODUCT[] = {lp_low_portable, lp_low_avx2, lp_low_avx512};
#else
static const low_product PRODUCT[] = {lp_low_portable};
#endif

static int valid_bits(unsigned bits) { return bits == 1u || bits == 2u || bits == 4u; }

static uint8_t offset_of(unsigned bits) { return bits == 4u ? 8u : bits == 2u ? 2u : 1u; }

/* Bytes of one panel: chunks of 32 / bits columns. */
static size_t panel_size(size_t k, unsigned bits) {
    const size_t columns = 32u / bits;
    return (k / columns + (k % columns != 0u)) * CHUNK_BYTES;
}

size_t lp_low_size(size_t n, size_t k, unsigned bits) {
    if (!valid_bits(bits) || k == 0u || k > LP_LOW_COLUMNS) {
        return 0u;
    }
    const size_t panels = n / PANEL_ROWS + (n % PANEL_ROWS != 0u), each = panel_size(k, bits);
    return panels > SIZE_MAX / each ? 0u : panels * each;
}

static lp_status check_shape(size_t n, size_t k, unsigned bits) {
    if (!valid_bits(bits)) {
        return LP_BAD_BITS;
    }
    if (k > LP_LOW_COLUMNS || (k != 0u && n > SIZE_MAX / k)) {
        return LP_BAD_SHAPE;
    }
    return n != 0u && k != 0u && lp_low_size(n, k, bits) == 0u ? LP_BAD_SHAPE : LP_OK;
}

lp_status lp_low_pack(const uint8_t *codes, size_t size, const lp_low_weights *shape, uint8_t *panels, size_t room) {
    if (shape == NULL) {
        return LP_NULL;
    }
    const size_t n = shape->n, k = shape->k, needed = lp_low_size(n, k, shape->bits);
    const unsigned bits = shape->bits, mask = (1u << (bits & 7u)) - 1u, flip = bits == 1u ? 0u : offset_of(bits);
    const lp_status status = check_shape(n, k, bits);
    if (status != LP_OK || needed == 0u) {
        return status;
    }
    if (size < lp_packed_size(n * k, bits) || room < needed) {
        return LP_TOO_SHORT;
    }
    if (codes == NULL || panels == NULL) {
        return LP_NULL;
    }
    const size_t each = panel_size(k, bits), per_byte = 8u / bits;
    memset(panels, 0, needed);
    for (size_t row = 0; row < n; ++row) {
        uint8_t *to = panels + row / PANEL_ROWS * each + 4u * (row % PANEL_ROWS);
        for (size_t column = 0; column < k; ++column) {
            const size_t i = row * k + column, group = column / 4u;
            const unsigned code = ((unsigned)codes[i / per_byte] >> (i % per_byte * bits)) & mask;
            to[group / per_byte * CHUNK_BYTES + column % 4u] |= (uint8_t)((code ^ flip) << (group % per_byte * bits));
        }
    }
    return LP_OK;
}

size_t lp_gemm_low_workspace(lp_path path, size_t m, size_t k) {
    if (!lp_has_path(path) || m == 0u || k == 0u || m > (SIZE_MAX - LP_LOW_TILE - 63u) / sizeof(int32_t)) {
        return 0u;
    }
    return LP_LOW_TILE + 63u + m * sizeof(int32_t);
}

static lp_status check(const lp_activations *a, const lp_low_weights *w, const int32_t *c, size_t size) {
    if (a == NULL || w == NULL) {
        return LP_NULL;
    }
    const lp_status status = check_shape(w->n, w->k, w->bits);
    if (status != LP_OK) {
        return status;
    }
    const int has_rows = w->k == 0u || a->m <= a->size / w->k, has_room = w->n == 0u || a->m <= size / w->n;
    if (!has_rows || !has_room || w->size < lp_low_size(w->n, w->k, w->bits)) {
        return LP_TOO_SHORT;
    }
    const int any = a->m != 0u && w->n != 0u;
    return any && (c == NULL || (w->k != 0u && (a->values == NULL || w->panels == NULL))) ? LP_NULL : LP_OK;
}

static void sum_rows(const lp_activations *a, size_t k, int32_t offset, int32_t *sums) {
    for (size_t i = 0; i < a->m; ++i) {
        int32_t sum = 0;
        if (a->is_signed) {
            const int8_t *row = (const int8_t *)a->values + i * k;
            for (size_t l = 0; l < k; ++l) {
                sum += row[l];
            }
        } else {
            const uint8_t *row = (const uint8_t *)a->values + i * k;
            for (size_t l = 0; l < k; ++l) {
                sum += row[l];
            }
        }
        sums[i] = sum * offset;
    }
}

lp_status lp_gemm_low(lp_path path, const lp_activations *a, const lp_low_weights *w, int32_t *c, size_t size,
                      lp_workspace work) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    const lp_status status = check(a, w, c, size);
    if (status != LP_OK || a->m == 0u || w->n == 0u) {
        return status;
    }
    if (w->k == 0u) {
        memset(c, 0, a->m * w->n * sizeof *c);
        return LP_OK;
    }
    const size_t needed = lp_gemm_low_workspace(path, a->m, w->k);
    if (needed == 0u || work.size < needed) {
        return LP_TOO_SHORT;
    }
    if (work.bytes == NULL) {
        return LP_NULL;
    }
    unsigned char *tile = (unsigned char *)work.bytes + (64u - (uintptr_t)work.bytes % 64u) % 64u;
    int32_t *sums = (int32_t *)(void *)(tile + LP_LOW_TILE);
    sum_rows(a, w->k, offset_of(w->bits), sums);
    const lp_low_product product = {.a = a->values, .m = a->m, .n = w->n, .k = w->k, .is_signed = a->is_signed, .bits = w->bits,
                                    .panels = w->panels, .panel = panel_size(w->k, w->bits), .sums = sums, .tile = tile, .c = c};
    PRODUCT[path](&product);
    return LP_OK;
}
