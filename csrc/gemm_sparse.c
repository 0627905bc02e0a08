#include "gemm_sparse.h"

#include "gemm_sparse_paths.h"

#define TILES 3u
#define STRIP ((size_t)16u) /* columns of a at once, whose lines stay in the first cache while they are laid out anew */

typedef struct {
    void (*product)(const lp_sparse_tile *tile);
    size_t tiles[TILES]; /* falling, the last one row */
} kernel;

static const kernel KERNELS[] = {
    {lp_sparse_portable, LP_SPARSE_PORTABLE_TILES},
#if LP_X86
    {lp_sparse_avx2, LP_SPARSE_AVX2_TILES},
    {lp_sparse_avx512, LP_SPARSE_AVX512_TILES},
#endif
};

static const kernel *kernel_of(lp_path path) {
#if LP_X86
    if (path == LP_AVX2 && !__builtin_cpu_supports("fma")) {
        return &KERNELS[LP_PORTABLE];
    }
#endif
    return &KERNELS[path];
}

static size_t tile_of(const kernel *k, size_t left) {
    size_t i = 0;
    while (k->tiles[i] > left && i + 1u < TILES) {
        ++i;
    }
    return k->tiles[i];
}

size_t lp_gemm_sparse_workspace(lp_path path, size_t m, size_t k) {
    if (!lp_has_path(path) || m == 0u) {
        return 0u;
    }
    const size_t rows = tile_of(kernel_of(path), m);
    /* A single row is laid out as it should be. */
    if (rows == 1u) {
        return 0u;
    }
    return k > (SIZE_MAX - 63u) / sizeof(float) / rows ? SIZE_MAX : rows * k * sizeof(float) + 63u;
}

/* Columns of `rows` values, from rows of k. */
static void lay_out(const float *a, size_t rows, size_t k, float *out) {
    for (size_t first = 0; first < k; first += STRIP) {
        const size_t end = k - first < STRIP ? k : first + STRIP;
        for (size_t r = 0; r < rows; ++r) {
            for (size_t l = first; l < end; ++l) {
                out[l * rows + r] = a[r * k + l];
            }
        }
    }
}

lp_status lp_check_sparse(const uint64_t *starts, size_t panels, const uint32_t *indices, size_t stored, size_t n, size_t limit) {
    if (panels != n / LP_SPARSE_ROWS + (n % LP_SPARSE_ROWS != 0u)) {
        return LP_BAD_SHAPE;
    }
    if (panels != 0u && (starts == NULL || (stored != 0u && indices == NULL))) {
        return LP_NULL;
    }
    uint64_t last = 0;
    for (size_t p = 0; panels != 0u && p <= panels; ++p) {
        if (starts[p] < last || starts[p] > stored) {
            return LP_BAD_SHAPE;
        }
        last = starts[p];
    }
    uint32_t largest = 0;
    for (size_t s = 0; s < (size_t)last; ++s) {
        largest = indices[s] > largest ? indices[s] : largest;
    }
    return last != 0u && largest >= limit ? LP_BAD_SHAPE : LP_OK;
}

lp_status lp_gemm_sparse(lp_path path, const float *a, size_t size, size_t m, const lp_sparse_weights *w, float *c, size_t room,
                         lp_workspace work) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    if (w == NULL) {
        return LP_NULL;
    }
    const lp_status status = lp_check_sparse(w->starts, w->panels, w->columns, w->stored, w->n, w->k);
    if (status != LP_OK || m == 0u || w->n == 0u) {
        return status;
    }
    const size_t needed = lp_gemm_sparse_workspace(path, m, w->k);
    if ((w->k != 0u && m > size / w->k) || m > room / w->n || work.size < needed) {
        return LP_TOO_SHORT;
    }
    if (c == NULL || (w->k != 0u && a == NULL) || (w->stored != 0u && w->values == NULL) || (needed != 0u && work.bytes == NULL)) {
        return LP_NULL;
    }
    const kernel *chosen = kernel_of(path);
    float *laid = needed == 0u ? NULL : (float *)(void *)((unsigned char *)work.bytes + (64u - (uintptr_t)work.bytes % 64u) % 64u);
    for (size_t i = 0; i < m;) {
        const size_t rows = tile_of(chosen, m - i);
        const lp_sparse_tile tile = {.w = w, .a = rows == 1u ? a + i * w->k : laid, .rows = rows, .c = c + i * w->n};
        if (rows != 1u) {
            lay_out(a + i * w->k, rows, w->k, laid);
        }
        chosen->product(&tile);
        i += rows;
    }
    return LP_OK;
}
