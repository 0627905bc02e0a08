#include "gemm_sparse_bytes.h"

#include <string.h>

#include "gemm_sparse_paths.h"

#define TILES 3u

typedef struct {
    void (*product)(const lp_sparse_byte_tile *tile);
    size_t tiles[TILES]; /* falling, the last one row */
    uint8_t flip;        /* of signed bytes, so that they are unsigned and 128 more */
} kernel;

static const kernel KERNELS[] = {
    {lp_sparse_bytes_portable, LP_SPARSE_BYTES_PORTABLE_TILES, 0u},
#if LP_X86
    {lp_sparse_bytes_avx2, LP_SPARSE_BYTES_AVX2_TILES, 0u},
    {lp_sparse_bytes_avx512, LP_SPARSE_BYTES_AVX512_TILES, 0x80u},
#endif
};

static size_t tile_of(const kernel *k, size_t left) {
    size_t i = 0;
    while (k->tiles[i] > left && i + 1u < TILES) {
        ++i;
    }
    return k->tiles[i];
}

static size_t quads_of(size_t k) { return k / 4u + (k % 4u != 0u); }

size_t lp_gemm_sparse_bytes_workspace(lp_path path, size_t m, size_t k) {
    if (!lp_has_path(path) || m == 0u || k > LP_SPARSE_COLUMNS) {
        return 0u;
    }
    return tile_of(&KERNELS[path], m) * quads_of(k) * 4u + 63u;
}

/* Quads of `rows` times four bytes, from rows of k. */
static void lay_out(const uint8_t *a, size_t rows, size_t k, uint8_t flip, uint8_t *out) {
    const uint32_t flips = flip * UINT32_C(0x01010101);
    for (size_t r = 0; r < rows; ++r) {
        const uint8_t *row = a + r * k;
        uint8_t *to = out + 4u * r;
        size_t q = 0;
        for (; q < k / 4u; ++q) {
            uint32_t word;
            memcpy(&word, row + 4u * q, sizeof word);
            word ^= flips;
            memcpy(to + 4u * rows * q, &word, sizeof word);
        }
        if (k % 4u != 0u) {
            uint8_t last[4] = {0u, 0u, 0u, 0u};
            for (size_t l = 0; l < k % 4u; ++l) {
                last[l] = (uint8_t)(row[4u * q + l] ^ flip);
            }
            memcpy(to + 4u * rows * q, last, sizeof last);
        }
    }
}

lp_status lp_gemm_sparse_bytes(lp_path path, const lp_activations *a, const lp_sparse_bytes *w, int32_t *c, size_t room, lp_workspace work) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    if (a == NULL || w == NULL) {
        return LP_NULL;
    }
    if (w->k > LP_SPARSE_COLUMNS) {
        return LP_BAD_SHAPE;
    }
    const lp_status status = lp_check_sparse(w->starts, w->panels, w->quads, w->stored, w->n, quads_of(w->k));
    if (status != LP_OK || a->m == 0u || w->n == 0u) {
        return status;
    }
    if ((w->k != 0u && a->m > a->size / w->k) || a->m > room / w->n || work.size < lp_gemm_sparse_bytes_workspace(path, a->m, w->k)) {
        return LP_TOO_SHORT;
    }
    if (c == NULL || work.bytes == NULL || (w->k != 0u && a->values == NULL) || (w->stored != 0u && w->values == NULL)) {
        return LP_NULL;
    }
    const kernel *chosen = &KERNELS[path];
    uint8_t *laid = (uint8_t *)work.bytes + (64u - (uintptr_t)work.bytes % 64u) % 64u;
    for (size_t i = 0; i < a->m;) {
        const size_t rows = tile_of(chosen, a->m - i);
        const lp_sparse_byte_tile tile = {.w = w, .a = laid, .rows = rows, .is_signed = a->is_signed, .c = c + i * w->n};
        lay_out((const uint8_t *)a->values + i * w->k, rows, w->k, a->is_signed ? chosen->flip : 0u, laid);
        chosen->product(&tile);
        i += rows;
    }
    return LP_OK;
}
