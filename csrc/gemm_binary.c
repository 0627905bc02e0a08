#include "gemm_binary.h"

#include "gemm_binary_paths.h"

typedef struct {
    void (*popcount)(const lp_product *product);
    void (*sliced)(const lp_product *product, void *work);
    size_t (*size)(size_t m, size_t words);
    size_t width; /* columns of one sliced product */
    size_t least; /* columns from which the sliced kernel is the faster one */
} kernels;

static const kernels KERNELS[] = {
    {lp_popcount_portable, lp_sliced_portable_product, lp_sliced_portable_size, 64u, 32u},
#if LP_X86
    {lp_popcount_avx2, lp_sliced_avx2_product, lp_sliced_avx2_size, 256u, 80u},
    {lp_popcount_avx512, lp_sliced_avx512_product, lp_sliced_avx512_size, 512u, 240u},
#endif
};

/* Rows that make up for transposing b and for its tables. */
#define LEAST_ROWS ((size_t)40u)

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static int slices(const kernels *k, size_t m, size_t n, size_t words) {
    return m >= LEAST_ROWS && n >= k->least && words != 0u && words <= LP_SLICED_WORDS;
}

size_t lp_product_size(lp_path path, size_t m, size_t n, size_t words) {
    const kernels *k = &KERNELS[path];
    return slices(k, m, n, words) ? k->size(m, words) : 0u;
}

void lp_multiply(lp_path path, const lp_product *product, void *work) {
    const kernels *k = &KERNELS[path];
    lp_product part = *product;
    size_t left = product->n;
    while (slices(k, part.m, left, part.words)) {
        part.n = smaller(left, k->width);
        k->sliced(&part, work);
        part.b += part.n * part.words;
        part.c += part.n;
        left -= part.n;
    }
    part.n = left;
    if (left != 0u) {
        k->popcount(&part);
    }
}

size_t lp_gemm_binary_workspace(lp_path path, size_t m, size_t n, size_t k) {
    return lp_has_path(path) ? lp_product_size(path, m, n, lp_sign_words(k)) : 0u;
}

static lp_status check(const lp_signs *a, const lp_signs *b, const int32_t *c, size_t size) {
    const lp_status left = lp_check_signs(a), right = lp_check_signs(b);
    if (left != LP_OK || right != LP_OK) {
        return left != LP_OK ? left : right;
    }
    if (a->columns != b->columns || a->columns > (size_t)INT32_MAX) {
        return LP_BAD_SHAPE;
    }
    if (b->rows != 0u && a->rows > size / b->rows) {
        return LP_TOO_SHORT;
    }
    return c == NULL && a->rows != 0u && b->rows != 0u ? LP_NULL : LP_OK;
}

lp_status lp_gemm_binary(lp_path path, const lp_signs *a, const lp_signs *b, int32_t *c, size_t size, lp_workspace work) {
    if (!lp_has_path(path)) {
        return LP_BAD_PATH;
    }
    const lp_status status = check(a, b, c, size);
    if (status != LP_OK) {
        return status;
    }
    const size_t words = lp_sign_words(a->columns), needed = lp_product_size(path, a->rows, b->rows, words);
    if (needed > work.size) {
        return LP_TOO_SHORT;
    }
    if (needed != 0u && work.bytes == NULL) {
        return LP_NULL;
    }
    const unsigned used = (unsigned)(a->columns % 64u);
    const lp_product product = {.a = a->words, .b = b->words, .m = a->rows, .n = b->rows, .words = words,
                                .tail = used == 0u ? ~UINT64_C(0) : (UINT64_C(1) << used) - 1u,
                                .total = (int32_t)a->columns, .c = c, .stride = b->rows};
    if (product.m != 0u && product.n != 0u) {
        lp_multiply(path, &product, work.bytes);
    }
    return LP_OK;
}
