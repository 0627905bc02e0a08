#include "gemm_low_paths.h"

#define ROWS ((size_t)16u)

/* The sixteen sums of one row of a with one panel, without the offset. */
static void panel_sums(const lp_low_product *p, const uint8_t *a, const uint8_t *panel, uint32_t *sums) {
    const unsigned mask = (1u << p->bits) - 1u;
    for (size_t r = 0; r < ROWS; ++r) {
        sums[r] = 0u;
    }
    for (size_t column = 0; column < p->k; panel += 64u) {
        for (unsigned shift = 0; shift < 8u && column < p->k; shift += p->bits, column += 4u) {
            uint32_t x[4] = {0u, 0u, 0u, 0u};
            for (size_t t = 0; t < 4u && column + t < p->k; ++t) {
                x[t] = p->is_signed ? (uint32_t)(int32_t)((const int8_t *)a)[column + t] : a[column + t];
            }
            for (size_t r = 0; r < ROWS; ++r) {
                const uint8_t *u = panel + 4u * r;
                sums[r] += x[0] * (((unsigned)u[0] >> shift) & mask) + x[1] * (((unsigned)u[1] >> shift) & mask) +
                           x[2] * (((unsigned)u[2] >> shift) & mask) + x[3] * (((unsigned)u[3] >> shift) & mask);
            }
        }
    }
}

void lp_low_portable(const lp_low_product *p) {
    for (size_t j = 0; j < p->n; j += ROWS) {
        const size_t here = p->n - j < ROWS ? p->n - j : ROWS;
        for (size_t i = 0; i < p->m; ++i) {
            uint32_t sums[ROWS];
            panel_sums(p, p->a + i * p->k, p->panels + j / ROWS * p->panel, sums);
            for (size_t r = 0; r < here; ++r) {
                /* Modulo 2^32 throughout: the result is in range even where the sum before the offset is not. */
                p->c[i * p->n + j + r] = (int32_t)((sums[r] << lp_low_shift(p->bits)) - (uint32_t)p->sums[i]);
            }
        }
    }
}
