/* Low-bit products for each path. Sizes are checked by the caller. */
#ifndef LILLIPUT_GEMM_LOW_PATHS_H
#define LILLIPUT_GEMM_LOW_PATHS_H

#include "gemm_low.h"

typedef struct {
    const uint8_t *a; /* m * k, int8_t if is_signed */
    size_t m, n, k;
    int is_signed;
    unsigned bits;
    const uint8_t *panels;
    size_t panel;        /* bytes of one */
    const int32_t *sums; /* of the rows of a, times the offset of the codes */
    void *tile;          /* LP_LOW_TILE bytes, aligned to 64 */
    int32_t *c;          /* m * n */
} lp_low_product;

#define LP_LOW_TILE ((size_t)32768u)

/* The product is (sum of a u) << lp_low_shift(bits), less the sum of the row. */
static inline unsigned lp_low_shift(unsigned bits) { return bits == 1u ? 1u : 0u; }

void lp_low_portable(const lp_low_product *product);
void lp_low_avx2(const lp_low_product *product);
void lp_low_avx512(const lp_low_product *product);

#endif
