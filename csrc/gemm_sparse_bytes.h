/* Products of 8-bit activations and 8-bit weights with blocks of zeros: c = a w^T with a (m x k), int8 or uint8, and w (n x k), int8.
 *
 *     c[i][j] = sum over l of a[i][l] w[j][l]        int32, exact: k is at most 2^16, so that no sum leaves the range
 *
 * A panel is 16 rows of w, a quad four of its columns, from a multiple of four on; stored are the quads in which a weight is not zero.
 * Panel p has the stored quads starts[p] to starts[p + 1], of which number s is the columns 4 quads[s] to 4 quads[s] + 3 and holds in
 * values[64 s + 4 r + t] row 16 p + r, column 4 quads[s] + t. Rows beyond n and columns beyond k are zero.
 *
 * No function allocates: the caller hands over a workspace. None reads past the given lengths, or writes past them.
 */
#ifndef LILLIPUT_GEMM_SPARSE_BYTES_H
#define LILLIPUT_GEMM_SPARSE_BYTES_H

#include <stddef.h>
#include <stdint.h>

#include "cpu.h"
#include "gemm_low.h"
#include "status.h"
#include "workspace.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LP_SPARSE_COLUMNS ((size_t)65536u) /* the largest k */
#define LP_SPARSE_QUAD ((size_t)64u)       /* values of a stored quad */

typedef struct {
    const int8_t *values;   /* 64 to a stored quad */
    const uint32_t *quads;  /* below ceil(k / 4) */
    size_t stored;          /* quads there are: 64 times as many values */
    const uint64_t *starts; /* of panels, never falling, from zero to `stored` */
    size_t panels;          /* ceil(n / 16); there is one start more */
    size_t n, k;
} lp_sparse_bytes;

/* Bytes that the product wants. */
size_t lp_gemm_sparse_bytes_workspace(lp_path path, size_t m, size_t k);

/* Write the m x n products to `c`, which has room for `room` values. LP_BAD_SHAPE for starts and quads out of order or out of range. */
lp_status lp_gemm_sparse_bytes(lp_path path, const lp_activations *a, const lp_sparse_bytes *w, int32_t *c, size_t room, lp_workspace work);

#ifdef __cplusplus
}
#endif

#endif
