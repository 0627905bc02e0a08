/* Products with sparse weights for each path. Sizes and indices are checked by the caller. */
#ifndef LILLIPUT_GEMM_SPARSE_PATHS_H
#define LILLIPUT_GEMM_SPARSE_PATHS_H

#include "gemm_sparse.h"

/* A few rows of a with every panel. */
typedef struct {
    const lp_sparse_weights *w;
    const float *a; /* k columns of `rows` values, one to a row of a */
    size_t rows;
    float *c; /* of the first of the rows */
} lp_sparse_tile;

/* The numbers of rows that a path takes at once: the largest of those that are left. */
#define LP_SPARSE_PORTABLE_TILES {4u, 1u, 1u}
#define LP_SPARSE_AVX2_TILES {6u, 2u, 1u}
#define LP_SPARSE_AVX512_TILES {16u, 4u, 1u}

void lp_sparse_portable(const lp_sparse_tile *tile);
void lp_sparse_avx2(const lp_sparse_tile *tile);
void lp_sparse_avx512(const lp_sparse_tile *tile);

#endif
