/* Binary products for each path, and the choice between them. Sizes are checked by the caller. */
#ifndef LILLIPUT_GEMM_BINARY_PATHS_H
#define LILLIPUT_GEMM_BINARY_PATHS_H

#include "gemm_binary.h"

/* c[i][j] = total - 2 popcount((a[i] xor b[j]) & valid), rows of `words` words, of whose last one the bits in `tail` count. */
typedef struct {
    const uint64_t *a, *b;
    size_t m, n, words;
    uint64_t tail;
    int32_t total;
    int32_t *c;
    size_t stride; /* of c: values from one row to the next */
} lp_product;

/* The longest row that the sliced kernels take: twice the count must fit in 16 bits. */
#define LP_SLICED_WORDS ((size_t)510u)

/* Set bits of a word without a processor's help: counts of 2, 4, 8 bits in parallel, then the sum of the bytes. */
static inline uint32_t lp_count(uint64_t x) {
    x -= (x >> 1) & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
    x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (uint32_t)((x * UINT64_C(0x0101010101010101)) >> 56);
}

void lp_popcount_portable(const lp_product *product);
void lp_popcount_avx2(const lp_product *product);
void lp_popcount_avx512(const lp_product *product);

/* Products with n <= 64, 256 and 512; `work` has the bytes that the second function says. */
void lp_sliced_portable_product(const lp_product *product, void *work);
void lp_sliced_avx2_product(const lp_product *product, void *work);
void lp_sliced_avx512_product(const lp_product *product, void *work);
size_t lp_sliced_portable_size(size_t m, size_t words);
size_t lp_sliced_avx2_size(size_t m, size_t words);
size_t lp_sliced_avx512_size(size_t m, size_t words);

/* The product by the faster kernel for its shape; `path` can run and `work` suffices (lp_product_size). */
void lp_multiply(lp_path path, const lp_product *product, void *work);
size_t lp_product_size(lp_path path, size_t m, size_t n, size_t words);

#endif
