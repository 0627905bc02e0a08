/* Products with sparse weights for each path. Sizes and indices are checked by the caller. */
#ifndef LILLIPUT_GEMM_SPARSE_PATHS_H
#define LILLIPUT_GEMM_SPARSE_PATHS_H

#include "gemm_sparse.h"
#include "gemm_sparse_bytes.h"

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

/* Starts and indices of panels: LP_OK where they are in order and in range, with `limit` above every index. */
lp_status lp_check_sparse(const uint64_t *starts, size_t panels, const uint32_t *indices, size_t stored, size_t n, size_t limit);

void lp_sparse_portable(const lp_sparse_tile *tile);
void lp_sparse_avx2(const lp_sparse_tile *tile);
void lp_sparse_avx512(const lp_sparse_tile *tile);

/* A few rows of bytes with every panel. */
typedef struct {
    const lp_sparse_bytes *w;
    const uint8_t *a; /* quads of `rows` times four bytes, zeros beyond k; 128 more for signed ones on LP_AVX512 */
    size_t rows;
    int is_signed;
    int32_t *c; /* of the first of the rows */
} lp_sparse_byte_tile;

#define LP_SPARSE_BYTES_PORTABLE_TILES {4u, 1u, 1u}
#define LP_SPARSE_BYTES_AVX2_TILES {2u, 1u, 1u}
#define LP_SPARSE_BYTES_AVX512_TILES {16u, 4u, 1u}

void lp_sparse_bytes_portable(const lp_sparse_byte_tile *tile);
void lp_sparse_bytes_avx2(const lp_sparse_byte_tile *tile);
void lp_sparse_bytes_avx512(const lp_sparse_byte_tile *tile);

#endif
